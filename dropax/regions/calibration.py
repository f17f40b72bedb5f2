"""How large a region must be for the expected dropped fraction to be the rate.

A region of whole pixels has no size for every rate. So each has a table of levels, made in NumPy
where it is traced, that holds the exact fraction which each level drops in expectation; a record
draws one of the two levels on either side of its rate, as often as makes up the difference. Rates
count in units of 2^-23, and drawing is done in integers, so it is the same on every device.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import GRID, drop_units, whole_below

Border = Literal["inside", "clip"]


def fraction_units(fractions: np.ndarray) -> np.ndarray:
    """Counts fractions in units of 2^-23, as a rate of that value counts.

    Args:
      fractions: expected dropped fractions, ascending from 0.0 to 1.0 along the last axis.

    Returns:
      uint32 of the same shape; only 0.0 is 0, and only 1.0 is 2^23.
    """
    kept = np.ceil((np.float32(1) - fractions.astype(np.float32)) * np.float32(GRID))
    units = np.clip(GRID - kept.astype(np.int64), 1, GRID - 1)
    return np.where(fractions <= 0, 0, np.where(fractions >= 1, GRID, units)).astype(np.uint32)


def pick_level(word: jax.Array, rate: Any, units: jax.Array | np.ndarray) -> jax.Array:
    """Draws the level of one record.

    Args:
      word: uint32 scalar, 32 random bits.
      rate: a float or a scalar array that may be traced.
      units: what each level drops, from `fraction_units`, shape (levels,).

    Returns:
      int32 scalar: an index into the levels, such that the expected fraction is the rate.
    """
    units = jnp.asarray(units)
    target = drop_units(rate)
    above = jnp.sum(units <= target, dtype=jnp.int32)
    below, above = above - 1, jnp.minimum(above, units.shape[0] - 1)
    gap = units[above] - units[below]
    return below + (whole_below(word, gap) < target - units[below]).astype(jnp.int32)


def start_range(size: int, side: Any, border: Border) -> tuple[Any, Any]:
    """Returns where an interval may start: the first position, and how many there are.

    Args:
      size: positions on the axis.
      side: length of the interval; an int, or an int32 array that may be traced.
      border: "inside" keeps the interval on the axis; "clip" centres it on any position.

    Returns:
      (first, count). All of them are equally likely.
    """
    if border == "inside":
        return 0, size - side + 1
    return -(side // 2), size


def largest_side(size: int, border: Border) -> int:
    """Returns the least length of an interval that always covers an axis."""
    return size if border == "inside" else max(2 * size - 1, 0)


def covering_starts(size: int, side: int, border: Border) -> np.ndarray:
    """Counts for each position of an axis the starts of an interval that covers it.

    Args:
      size: positions on the axis.
      side: length of the interval.
      border: as in `start_range`.

    Returns:
      int64, shape (size,).
    """
    first, count = start_range(size, side, border)
    position = np.arange(size)
    last = np.minimum(position, first + count - 1)
    return np.maximum(last - np.maximum(first, position - side + 1) + 1, 0)


@functools.lru_cache(maxsize=64)
def coverage(size: int, border: Border, count: int) -> np.ndarray:
    """Says for several intervals on one axis how many of them cover a position.

    Args:
      size: positions on the axis.
      border: as in `start_range`.
      count: the most intervals that are asked about.

    Returns:
      float64, shape (sides, count + 1, count + 1), for each length of an interval from 0 on: entry
      [side, m, j] is the probability, averaged over positions, that j of m intervals cover one.
    """
    sides, positions = largest_side(size, border) + 1, max(size, 1)
    total, covered = np.mgrid[0 : count + 1, 0 : count + 1]
    missed = np.maximum(total - covered, 0)
    ways = np.ones((count + 1, count + 1))
    for j in range(count):
        ways[:, j + 1] = ways[:, j] * (np.arange(count + 1) - j) / (j + 1)
    exponents = np.arange(count + 1)[:, None]
    table = np.zeros((sides, count + 1, count + 1))
    for side in range(sides):
        starts = start_range(size, side, border)[1]
        hits = covering_starts(size, side, border)
        # means[j, k] of hit^j * miss^k: all terms are positive, so nothing cancels.
        means = (hits / starts) ** exponents @ ((1 - hits / starts) ** exponents).T / positions
        table[side] = ways * means[covered, missed]
    return table


def box_fractions(
    sides: np.ndarray, spatial: tuple[int, ...], count: int, border: Border
) -> np.ndarray:
    """Returns the fraction that boxes of the same size cover in expectation, overlaps counted once.

    Args:
      sides: ints, shape (levels, axes).
      spatial: positions on each axis.
      count: boxes; each is placed on its own.
      border: as in `start_range`.

    Returns:
      float64, shape (levels,).
    """
    # Along each axis in turn, some of the boxes that covered all axes so far go on covering.
    still = np.zeros((len(sides), count + 1))
    still[:, count] = 1
    for axis, size in enumerate(spatial):
        still = np.einsum("lm,lmj->lj", still, coverage(size, border, count)[sides[:, axis]])
    return 1 - still[:, 0]
