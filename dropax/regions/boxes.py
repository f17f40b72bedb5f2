"""Rectangles and strips: `Box` and `Band`."""

import dataclasses
import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import sample_words, store, whole_below
from dropax.kit.errors import is_number, must, require_choice, require_kind, require_whole
from dropax.kit.serialization import Plain
from dropax.regions.base import one_dispatch, spatial_shape
from dropax.regions.calibration import (
    Border,
    box_fractions,
    fraction_units,
    largest_side,
    pick_level,
    start_range,
)

_MOST = 64  # boxes of a record, and aspect ratios that are told apart
_TABLE = 2**14  # levels of all aspect ratios together


@dataclasses.dataclass(frozen=True)
class Box(Plain):
    """Drops rectangles, or on one axis intervals and on three cuboids.

    Known elsewhere as Cutout (DeVries and Taylor, 2017, arXiv:1708.04552), Random Erasing (Zhong et
    al., 2017, arXiv:1708.04896) and CoarseDropout. All boxes of a record are of one size, with
    sides of whole pixels, each placed on its own; where they overlap counts once. The size is drawn
    from the two that come nearest to the rate, so that exactly the rate drops in expectation.

    Attributes:
      count: how many boxes, 1 to 64.
      aspect_ratio: (lowest, highest) height / width, log-uniform, from 64 steps. It holds for the
        last two axes; a third has the mean side. Where such a box cannot fit, it gives way.
      border: "inside" keeps boxes within the image, so that its edges are dropped less often than
        its middle; "clip" centres them on any pixel and cuts off what lies outside.

    Raises:
      TypeError: if an option is of another kind.
      ValueError: if an option is out of range; when sampling, if there is no spatial axis.

    Example:
      >>> Box(count=2).sample(jax.random.key(0), (8, 8, 3), 0.2).shape
      (8, 8, 1)
    """

    count: int = 1
    aspect_ratio: tuple[float, float] = (1, 1)
    border: Border = "inside"

    def __post_init__(self) -> None:
        require_whole("Box.count", self.count, 1, _MOST + 1)
        bounds: Any = self.aspect_ratio
        if not isinstance(bounds, tuple) or not all(map(is_number, bounds)):
            cure = "Pass a tuple such as (0.5, 2.0)."
            raise TypeError(must("Box.aspect_ratio", "be a tuple of two numbers", bounds, cure))
        if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
            constraint = "be (low, high) with 0 < low <= high"
            raise ValueError(must("Box.aspect_ratio", constraint, bounds))
        if not (bounds[0] >= 1e-9 and bounds[1] <= 1e9):
            raise ValueError(must("Box.aspect_ratio", "be from 1e-9 to 1e9", bounds))
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
        spatial = spatial_shape(self, element_shape)
        units, sides = _levels(spatial, self.count, self.aspect_ratio, self.border)
        covered = _draw_covers(key, rate, spatial, self.count, self.border, units, sides)
        return ~_union(covered, spatial)


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
      TypeError: if an option is of another kind.
      ValueError: if `count` is out of range; when sampling, if there is no such spatial axis.

    Example:
      >>> Band(axis=1).sample(jax.random.key(0), (8, 8, 3), 0.2).shape
      (1, 8, 1)
    """

    axis: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        require_kind("Band.axis", self.axis, int, "an int")
        require_whole("Band.count", self.count, 1, _MOST + 1)

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
        size = (spatial[axis],)
        units, sides = _levels(size, self.count, (1, 1), "inside")
        covered = _draw_covers(key, rate, size, self.count, "inside", units, sides)
        shape = [1] * (len(spatial) + 1)
        shape[axis] = spatial[axis]
        return ~covered[0].any(axis=0).reshape(shape)


@functools.lru_cache(maxsize=64)
def _levels(
    spatial: tuple[int, ...], count: int, aspect_ratio: tuple[float, float], border: Border
) -> tuple[np.ndarray, np.ndarray]:
    """Makes the sizes that boxes can have, for each aspect ratio a row from none to all.

    Returns:
      (units, sides): what each drops, shape (ratios, levels); its sides, (ratios, levels, axes).
    """
    low, high = aspect_ratio
    steps = (np.arange(_MOST) + 0.5) / _MOST if low < high else np.zeros(1)
    ratios = low * (high / low) ** steps
    rows = [_growth(spatial, ratio, border) for ratio in ratios]
    longest = min(max(map(len, rows)), max(64, _TABLE // len(rows)))
    # Rows are thinned out to `longest`, always with none and all.
    rows = [row[np.linspace(0, len(row) - 1, longest).round().astype(int)] for row in rows]
    units = [fraction_units(box_fractions(row, spatial, count, border)) for row in rows]
    return np.stack(units), np.stack(rows).astype(np.int32)


def _growth(spatial: tuple[int, ...], ratio: float, border: Border) -> np.ndarray:
    """Lets a box grow from nothing to all, by a pixel along one axis at a time.

    Returns:
      Its sides, int64, shape (levels, axes), the first of them all 0.
    """
    shares = np.ones(len(spatial))
    if len(spatial) > 1:
        shares[-2:] = ratio**0.5, ratio**-0.5
    largest = [largest_side(size, border) for size in spatial]
    axes = np.repeat(np.arange(len(spatial)), largest)
    # A side rounds up to k as soon as the common scale times the axis' share reaches k - 1/2.
    scales = np.concatenate(
        [(np.arange(n) + 0.5) / s for n, s in zip(largest, shares, strict=True)]
    )
    order = np.argsort(scales, kind="stable")
    sides = np.cumsum(axes[order][:, None] == np.arange(len(spatial)), axis=0)
    return np.concatenate([np.zeros((1, len(spatial)), int), sides[sides.all(axis=1)]])


def _draw_covers(
    key: jax.Array,
    rate: Any,
    spatial: tuple[int, ...],
    count: int,
    border: Border,
    units: np.ndarray,
    sides: np.ndarray,
) -> tuple[jax.Array, ...]:
    """Draws boxes: for each axis which positions each box covers, bool of shape (count, size)."""

    def draw(key: jax.Array) -> tuple[jax.Array, ...]:
        words = sample_words(key, (2 + len(spatial) * count,))
        row = whole_below(words[0], len(units))
        level = pick_level(words[1], rate, jnp.asarray(units)[row])
        side = jnp.asarray(sides)[row, level]
        covered = []
        for axis, place in enumerate(words[2:].reshape(len(spatial), count)):
            first, starts = start_range(spatial[axis], side[axis], border)
            start = first + whole_below(place, starts).astype(jnp.int32)[:, None]
            position = jnp.arange(spatial[axis], dtype=jnp.int32)[None]
            covered.append((position >= start) & (position < start + side[axis]))
        return tuple(covered)

    return store(draw, key)


def _union(covered: tuple[jax.Array, ...], spatial: tuple[int, ...]) -> jax.Array:
    """Returns where at least one box covers all axes, with an axis for channels at the end."""
    boxes = []
    for box in range(covered[0].shape[0]):
        axes = [
            cover[box].reshape([size if other == axis else 1 for other in range(len(spatial) + 1)])
            for axis, (cover, size) in enumerate(zip(covered, spatial, strict=True))
        ]
        boxes.append(functools.reduce(operator.and_, axes))
    return functools.reduce(operator.or_, boxes)
