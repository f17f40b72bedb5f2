"""Rectangles of one size at random places: what `Box` and `Band` share."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import materialize, sample_words, whole_below
from dropax.kit.errors import must, require_kind
from dropax.modes.calibration import (
    Border,
    box_fractions,
    fraction_units,
    largest_side,
    pick_sides,
    ratios_between,
    start_range,
)

_MOST = 64  # rectangles of a record
_LEVELS, _LEVELS_EACH = 2**14, 2**10  # of one row of sizes, and of each of several
_ROWS = 2**9  # of several numbers of rectangles: with many, fewer aspect ratios are told apart
_LONGEST = 2**28  # positions on an axis: with more, `pick_sides` would overflow


def require_count(name: str, count: Any, *, may_vary: bool = False) -> None:
    """Refuses what is no number of rectangles, nor a range of such numbers if it may vary."""
    if may_vary and isinstance(count, tuple):
        for n, bound in enumerate(count):
            require_count(f"{name}[{n}]", bound)
        if len(count) != 2 or count[0] > count[1]:
            raise ValueError(must(name, "be a number or (low, high) with low <= high", count))
        return
    require_kind(name, count, int, "an int")
    if not 1 <= count <= _MOST:
        cure = (
            "For more holes, take Patch." if name.startswith("Box.count") and count > _MOST else ""
        )
        raise ValueError(must(name, f"be from 1 to {_MOST}", count, cure))


@functools.lru_cache(maxsize=64)
def size_levels(
    spatial: tuple[int, ...],
    count: int | tuple[int, int],
    aspect_ratio: tuple[float, float],
    border: Border,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sizes that boxes can have, for each aspect ratio a row from none to all.

    (units, sides): what each drops, shape (counts * ratios, levels), for one number of boxes after
    the other; its sides, (ratios, levels, axes).
    """
    if max(spatial) > _LONGEST:
        name = "a spatial axis that boxes or bands are drawn on"
        raise ValueError(must(name, f"have at most {_LONGEST} positions", max(spatial)))
    if 0 in spatial:  # there is nothing to drop, so any boxes will do
        spatial = (1,) * len(spatial)
    counts = 1 + count[1] - count[0] if isinstance(count, tuple) else 1
    ratios = ratios_between(*aspect_ratio, _ROWS // counts)
    most = _LEVELS if len(ratios) * counts == 1 else _LEVELS_EACH
    rows = [_growth(spatial, ratio, border, most) for ratio in ratios]
    longest = max(map(len, rows))
    # Shorter rows repeat some levels.
    sides = np.stack(
        [row[np.linspace(0, len(row) - 1, longest).round().astype(int)] for row in rows]
    )
    fractions = box_fractions(sides.reshape(-1, len(spatial)), spatial, count, border)
    by_count = fractions.reshape(*sides.shape[:2], counts).transpose(2, 0, 1)
    return fraction_units(by_count.reshape(-1, longest)), sides.astype(np.int32)


def _growth(spatial: tuple[int, ...], ratio: float, border: Border, most: int) -> np.ndarray:
    """Lets a box grow from nothing to all, by a pixel along one axis at a time.

    Returns its sides, of shape (levels, axes). Of more levels than `most`, half are the first ones,
    and the others grow by a constant factor.
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


def draw_union(
    key: jax.Array,
    rate: Any,
    spatial: tuple[int, ...],
    count: int | tuple[int, int],
    border: Border,
    units: np.ndarray,
    sides: np.ndarray,
    positions: Callable[[], Sequence[jax.Array]],
) -> jax.Array:
    """Draws boxes: where at least one covers, bool of the shape of the spatial axes.

    `positions` returns those along each axis that are asked about, int32.
    """
    fewest, most = count if isinstance(count, tuple) else (count, count)

    def draw(key: jax.Array) -> list[jax.Array]:
        words = sample_words(key, (2 + len(spatial) * most,))
        row = whole_below(words[0], len(units))
        ratio = row if fewest == most else row % np.uint32(len(sides))
        side = pick_sides(words[1], rate, jnp.asarray(units)[row], jnp.asarray(sides)[ratio])
        covered, asked = [], positions()  # here, or they would be stored as the draw is
        for axis, place in enumerate(words[2:].reshape(len(spatial), most)):
            first, starts = start_range(spatial[axis], side[axis], border)
            start = first + whole_below(place, starts).astype(jnp.int32)
            position = asked[axis]
            boxes = [(position >= box) & (position < box + side[axis]) for box in list(start)]
            if axis == 0 and fewest < most:  # boxes past the number that was drawn cover nothing
                more = row // np.uint32(len(sides))
                boxes[fewest:] = [box & (n < more) for n, box in enumerate(boxes[fewest:])]
            covered.append(boxes)
        if len(spatial) == 1:
            return [functools.reduce(jnp.logical_or, covered[0])]
        return [_bits(boxes) for boxes in covered]

    # Kept for each axis are bytes whose bits say which of eight boxes cover a position. A pixel is
    # covered by the boxes whose bits are set along all axes.
    covered = materialize(draw, key)
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
