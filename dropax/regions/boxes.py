"""Rectangles and strips: `Box` and `Band`."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import sample_words, store, whole_below
from dropax.kit.errors import must, require_choice, require_kind
from dropax.kit.serialization import Plain
from dropax.regions.base import (
    known_sizes,
    one_dispatch,
    require_aspect_ratio,
    spatial_shape,
)
from dropax.regions.calibration import (
    Border,
    box_fractions,
    fraction_units,
    largest_side,
    pick_sides,
    ratios_between,
    start_range,
)

_MOST = 64  # boxes of a record
_LEVELS, _LEVELS_EACH = 2**14, 2**10  # of one aspect ratio, and of each of several
_LONGEST = 2**28  # positions on an axis: with more, `pick_sides` would overflow


@dataclasses.dataclass(frozen=True)
class Box(Plain):
    """Drops rectangles, or on one axis intervals and on three cuboids.

    Known elsewhere as Cutout (DeVries and Taylor, 2017, arXiv:1708.04552), Random Erasing (Zhong et
    al., 2017, arXiv:1708.04896) and CoarseDropout. All boxes of a record are of one size, with
    sides of whole pixels, each placed on its own; where they overlap counts once. The size is drawn
    from the two that come nearest to the rate, so that exactly the rate drops in expectation. Of
    more than 16,384 sizes (1,024 with a range of aspect ratios) only some are calibrated, and what
    drops at the others is interpolated, to within 1e-5 of the rate.

    Attributes:
      count: how many boxes, 1 to 64.
      aspect_ratio: (lowest, highest) height / width, log-uniform, from 64 steps. It holds for the
        last two axes; a third has the mean side. If such a box does not fit, the ratio is reduced.
      border: "inside" keeps boxes within the image, so that its edges are dropped less often than
        its middle; "clip" centres them on any pixel and cuts off what lies outside.

    Raises:
      TypeError: if an option is of the wrong type.
      ValueError: if an option is out of range; when sampling, if there is no spatial axis.

    Example:
      >>> Box(count=2).sample(jax.random.key(0), (8, 8, 3), 0.2).shape
      (8, 8, 1)
    """

    count: int = 1
    aspect_ratio: tuple[float, float] = (1, 1)
    border: Border = "inside"

    def __post_init__(self) -> None:
        _require_count("Box.count", self.count)
        require_aspect_ratio("Box.aspect_ratio", self.aspect_ratio)
        require_choice("Box.border", self.border, ("inside", "clip"))

    @one_dispatch
    def sample(self, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Draws the keep mask of one record.

        Args:
          key: one typed key. Consumed; do not reuse.
          element_shape: `(..., channels)`, with one spatial axis or more.
          rate: the fraction dropped in expectation, exactly.

        Returns:
          Keep mask, bool, of `element_shape` with one channel.

        Raises:
          ValueError: if there is no spatial axis.
        """
        spatial = known_sizes(self, spatial_shape(self, element_shape))
        levels = _levels(spatial, self.count, self.aspect_ratio, self.border)
        return ~_draw_union(key, rate, spatial, self.count, self.border, *levels)[..., None]


@dataclasses.dataclass(frozen=True)
class Band(Plain):
    """Drops full strips across one axis.

    Known elsewhere as the time and frequency masks of SpecAugment (Park et al., 2019,
    arXiv:1904.08779) and as XYMasking. All strips of a record are of one width, drawn from the two
    that come nearest to the rate, so that exactly the rate drops in expectation. They lie inside
    the image, so that its edges are dropped less often than its middle.

    Attributes:
      axis: the spatial axis that is cut: 0 drops rows of an image, 1 columns, -1 the last.
      count: how many strips, 1 to 64. Where they overlap counts once.

    Raises:
      TypeError: if an option is of the wrong type.
      ValueError: if `count` is out of range; when sampling, if there is no such spatial axis.

    Example:
      >>> Band(axis=1).sample(jax.random.key(0), (8, 8, 3), 0.2).shape
      (1, 8, 1)
    """

    axis: int = 0
    count: int = 1

    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_kind("Band.axis", self.axis, int, "an int")
        _require_count("Band.count", self.count)

    @one_dispatch
    def sample(self, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Draws the keep mask of one record.

        Args:
          key: one typed key. Consumed; do not reuse.
          element_shape: `(..., channels)`, with the axis that is cut.
          rate: the fraction dropped in expectation, exactly.

        Returns:
          Keep mask, bool, of size 1 along every axis but the one that is cut.

        Raises:
          ValueError: if there is no such spatial axis.
        """
        spatial = spatial_shape(self, element_shape)
        if not -len(spatial) <= self.axis < len(spatial):
            raise ValueError(must("Band.axis", f"name one of {len(spatial)} axes", self.axis))
        axis = self.axis % len(spatial)
        size = known_sizes(self, (spatial[axis],))
        levels = _levels(size, self.count, (1, 1), "inside")
        covered = _draw_union(key, rate, size, self.count, "inside", *levels)
        shape = [1] * (len(spatial) + 1)
        shape[axis] = spatial[axis]
        return ~covered.reshape(shape)


def _require_count(owner: str, count: Any) -> None:
    require_kind(owner, count, int, "an int")
    if not 1 <= count <= _MOST:
        cure = "For more holes, take Patch." if owner == "Box.count" and count > _MOST else ""
        raise ValueError(must(owner, f"be from 1 to {_MOST}", count, cure))


@functools.lru_cache(maxsize=64)
def _levels(
    spatial: tuple[int, ...], count: int, aspect_ratio: tuple[float, float], border: Border
) -> tuple[np.ndarray, np.ndarray]:
    """Makes the sizes that boxes can have, for each aspect ratio a row from none to all.

    Returns:
      (units, sides): what each drops, shape (ratios, levels); its sides, (ratios, levels, axes).
    """
    if max(spatial) > _LONGEST:
        owner = "a spatial axis that boxes or bands are drawn on"
        raise ValueError(must(owner, f"have at most {_LONGEST} positions", max(spatial)))
    if 0 in spatial:  # there is nothing to drop, so any boxes will do
        spatial = (1,) * len(spatial)
    ratios = ratios_between(*aspect_ratio)
    most = _LEVELS if len(ratios) == 1 else _LEVELS_EACH
    rows = [_growth(spatial, ratio, border, most) for ratio in ratios]
    longest = max(map(len, rows))
    # Shorter rows repeat some levels.
    sides = np.stack(
        [row[np.linspace(0, len(row) - 1, longest).round().astype(int)] for row in rows]
    )
    fractions = box_fractions(sides.reshape(-1, len(spatial)), spatial, count, border)
    return fraction_units(fractions.reshape(sides.shape[:2])), sides.astype(np.int32)


def _growth(spatial: tuple[int, ...], ratio: float, border: Border, most: int) -> np.ndarray:
    """Lets a box grow from nothing to all, by a pixel along one axis at a time.

    Of more levels than `most`, half of these are the first ones, and the others grow by a constant
    factor.

    Returns:
      Its sides, int64, shape (levels, axes), the first of them all 0.
    """
    shares = np.ones(len(spatial))
    if len(spatial) > 1:
        shares[-2:] = ratio**0.5, ratio**-0.5
    largest = np.array([largest_side(size, border) for size in spatial])
    # A side rounds up to k as soon as the common scale times the axis' share reaches k - 1/2.
    # Of a long axis no more steps matter than all the first levels could take.
    steps = np.minimum(largest, 2 * most)
    axes = np.repeat(np.arange(len(spatial)), steps)
    scales = np.concatenate([(np.arange(n) + 0.5) / s for n, s in zip(steps, shares, strict=True)])
    order = np.argsort(scales, kind="stable")
    sides = np.cumsum(axes[order][:, None] == np.arange(len(spatial)), axis=0)
    has_all = sides.all(axis=1)
    scales, sides = scales[order][has_all], sides[has_all]
    none = np.zeros((1, len(spatial)), int)
    if len(sides) < most and (steps == largest).all():
        return np.concatenate([none, sides])
    first = most // 2
    scale = np.geomspace(scales[first - 1], ((largest - 0.5) / shares).max(), most - first)
    grown = np.minimum(np.floor(scale[1:, None] * shares + 0.5).astype(int), largest)
    grown[-1] = largest
    # Rounding must not take back what the first levels have.
    return np.concatenate([none, np.maximum.accumulate(np.concatenate([sides[:first], grown]))])


def _draw_union(
    key: jax.Array,
    rate: Any,
    spatial: tuple[int, ...],
    count: int,
    border: Border,
    units: np.ndarray,
    sides: np.ndarray,
) -> jax.Array:
    """Draws boxes: where at least one covers, bool of the shape of the spatial axes."""

    def draw(key: jax.Array) -> list[jax.Array]:
        words = sample_words(key, (2 + len(spatial) * count,))
        row = whole_below(words[0], len(units))
        side = pick_sides(words[1], rate, jnp.asarray(units)[row], jnp.asarray(sides)[row])
        covered = []
        for axis, place in enumerate(words[2:].reshape(len(spatial), count)):
            first, starts = start_range(spatial[axis], side[axis], border)
            start = first + whole_below(place, starts).astype(jnp.int32)
            position = jnp.arange(spatial[axis], dtype=jnp.int32)
            boxes = [(position >= box) & (position < box + side[axis]) for box in list(start)]
            covered.append(boxes)
        if len(spatial) == 1:
            return [functools.reduce(jnp.logical_or, covered[0])]
        return [_bits(boxes) for boxes in covered]

    # Kept for each axis are bytes whose bits say which of eight boxes cover a position. A pixel is
    # covered by the boxes whose bits are set along all axes.
    covered = store(draw, key)
    if len(spatial) == 1:
        return covered[0]
    shared = functools.reduce(
        jnp.bitwise_and,
        [
            bits.reshape([len(bits), *(n if a == axis else 1 for a, n in enumerate(spatial))])
            for axis, bits in enumerate(covered)
        ],
    )
    return functools.reduce(jnp.bitwise_or, list(shared)) != 0


def _bits(boxes: list[jax.Array]) -> jax.Array:
    """Packs bools, an array for each box, into bytes of shape (boxes / 8, size)."""
    bits = [box.astype(jnp.uint8) << np.uint8(n % 8) for n, box in enumerate(boxes)]
    groups = [bits[n : n + 8] for n in range(0, len(bits), 8)]
    return jnp.stack([functools.reduce(jnp.bitwise_or, group) for group in groups])
