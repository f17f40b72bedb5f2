"""How large a region must be for the expected dropped fraction to be the rate.

A region of whole pixels has no size for every rate. So each has a table of levels, made in NumPy
where it is traced, that holds the exact fraction which each level drops in expectation; a record
draws one of the two levels on either side of its rate, as often as makes up the difference. Rates
count in units of 2^-23, and drawing is done in integers, so it is the same on every device.
"""

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
    # The last bits, which may differ from one machine's linear algebra to the other's, decide
    # nothing.
    rounded = (np.round(fractions * 2**40) / 2**40).astype(np.float32)
    kept = np.ceil((np.float32(1) - rounded) * np.float32(GRID))
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


def coverage(sides: np.ndarray, size: int, border: Border, count: int) -> np.ndarray:
    """Says for several intervals on one axis how many of them cover a position.

    Args:
      sides: lengths of an interval, int64, shape (sides,).
      size: positions on the axis.
      border: as in `start_range`.
      count: the most intervals that are asked about.

    Returns:
      float64, shape (sides, count + 1, count + 1), for each length: entry [side, m, j] is the
      probability, averaged over positions, that j of m intervals cover one.
    """
    hits, weights = _hits(sides, size, border, count)
    total, covered = np.mgrid[0 : count + 1, 0 : count + 1]
    missed = np.maximum(total - covered, 0)
    ways = np.ones((count + 1, count + 1))
    for j in range(count):
        ways[:, j + 1] = ways[:, j] * (np.arange(count + 1) - j) / (j + 1)
    # means[j, k] of hit^j * miss^k: all terms are positive, so nothing cancels.
    means = (_powers(hits, count) * weights[:, None]) @ _powers(1 - hits, count).swapaxes(1, 2)
    return ways * means[:, covered, missed]


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
    fractions = []
    # In parts of a few megabytes.
    for part in np.array_split(sides, 1 + len(sides) * (count + 1) ** 2 // 2**20):
        # Along each axis in turn, some of the boxes that covered all axes so far go on covering.
        still = np.zeros((len(part), count + 1))
        still[:, count] = 1
        for axis, size in enumerate(spatial):
            lengths, places = np.unique(part[:, axis], return_inverse=True)
            table = coverage(lengths, size, border, count)
            still = np.einsum("lm,lmj->lj", still, table[places])
        fractions.append(1 - still[:, 0])
    return np.concatenate(fractions)


def _hits(
    sides: np.ndarray, size: int, border: Border, degree: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns how likely an interval covers a position, for a few positions that stand for all.

    From either end of the axis the starts that cover a position grow one by one, as
    `covering_starts` counts them, up to a plateau. So means along each slope are those along a run
    of integers, and a few points of a Gauss rule give them exactly, on however long an axis.

    Returns:
      (probabilities, weights): float64, shape (sides, points). Weighted sums of polynomials of the
      probabilities, of no higher degree than `degree`, are their means over all positions.
    """
    sides = sides.astype(np.int64)
    starts = start_range(size, sides, border)[1] + np.zeros_like(sides)
    top = np.minimum(sides, starts)
    half = sides // 2
    # How many starts cover the first position, and the last.
    ends = [np.minimum(top, 1)] * 2 if border == "inside" else [half + 1, sides - half]
    hits, weights = [], []
    plateau = np.full(len(sides), size)
    for end in ends:
        slope = np.maximum(top - end, 0)
        points, shares = _gauss_rule(slope, degree)
        hits.append(end[:, None] + points)
        weights.append(slope[:, None] * shares)
        plateau = plateau - slope
    hits.append(top[:, None])
    weights.append(plateau[:, None])
    probabilities = np.clip(np.concatenate(hits, axis=1) / starts[:, None], 0, 1)
    return probabilities, np.concatenate(weights, axis=1) / max(size, 1)


def _gauss_rule(lengths: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns points and weights whose sums are means over the integers from 0 to below a length.

    Golub and Welsch, 1969, "Calculation of Gauss quadrature rules", with the recurrence of the
    polynomials that are orthogonal on these integers (the discrete Chebyshev polynomials).

    Args:
      lengths: int64, shape (lengths,). Of a length of 0 nothing is promised.
      degree: of the polynomials that are summed exactly.

    Returns:
      (points, weights): float64, shape (lengths, degree // 2 + 1).
    """
    unique, places = np.unique(lengths, return_inverse=True)
    length, order = unique[:, None].astype(np.float64), np.arange(1, degree // 2 + 1)
    # Shorter runs need no more points than they have integers: from there on all is 0.
    squares = np.maximum(order**2 * (length**2 - order**2), 0) / (4 * (4 * order**2 - 1))
    matrix = np.zeros((len(unique), len(order) + 1, len(order) + 1))
    diagonal = np.arange(len(order) + 1)
    matrix[:, diagonal, diagonal] = (length - 1) / 2
    matrix[:, diagonal[1:], diagonal[:-1]] = np.sqrt(squares)
    points, vectors = np.linalg.eigh(matrix)
    return points[places], vectors[places, 0] ** 2


def _powers(base: np.ndarray, highest: int) -> np.ndarray:
    """Returns powers from 0 to the highest, along a new second axis."""
    factors = np.repeat(base[:, None], highest + 1, axis=1)
    factors[:, 0] = 1
    return np.cumprod(factors, axis=1)
