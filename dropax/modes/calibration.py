"""How large a mode must be for the expected dropped fraction to be the rate.

A mode of whole pixels has no size for every rate. So each has a table of levels, made in NumPy
where it is traced, that holds the exact fraction which each level drops in expectation; a record
draws one of the two levels on either side of its rate, as often as makes up the difference. Rates
count in units of 2^-23, and drawing is done in integers, so it is the same on every device.
"""

import functools
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import GRID, drop_units, whole_below

Border = Literal["inside", "clip"]


_RATIOS = 64  # that are told apart


def ratios_between(low: float, high: float, most: int = _RATIOS) -> np.ndarray:
    """Returns aspect ratios, log-uniform and equally likely; one if the bounds are equal."""
    count = min(most, _RATIOS)
    steps = (np.arange(count) + 0.5) / count if low < high else np.zeros(1)
    ratios: np.ndarray = low * (high / low) ** steps
    return ratios


def fraction_units(fractions: np.ndarray) -> np.ndarray:
    """Counts fractions, ascending from 0.0 to 1.0 along the last axis, in units of 2^-23.

    Only 0.0 is 0, and only 1.0 is 2^23.
    """
    # The last bits, which may differ from one machine's linear algebra to the other's, decide
    # nothing.
    rounded = (np.round(fractions * 2**40) / 2**40).astype(np.float32)
    kept = np.ceil((np.float32(1) - rounded) * np.float32(GRID))
    units = np.clip(GRID - kept.astype(np.int64), 1, GRID - 1)
    return np.where(fractions <= 0, 0, np.where(fractions >= 1, GRID, units)).astype(np.uint32)


def pick_level(word: jax.Array, rate: Any, units: jax.Array | np.ndarray) -> jax.Array:
    """Draws an index into levels that drop `units`, such that the expected fraction is the rate."""
    below, _, gap, missing = _bracket(rate, jnp.asarray(units))
    return below + (whole_below(word, gap) < missing).astype(jnp.int32)


def pick_sides(word: jax.Array, rate: Any, units: jax.Array, sides: jax.Array) -> jax.Array:
    """Draws the sides of one record, int32 of shape (axes,), as `pick_level` draws a level.

    `sides` are of each level, shape (levels, axes). Where a level is more than a pixel larger than
    the one before, sides in between are drawn too, for which fractions are interpolated.
    """
    below, above, gap, missing = _bracket(rate, units)
    draw = whole_below(word, gap)
    lower, upper = sides[below], sides[above]
    # Each side grows by missing / gap of its step, rounded down or up, by the same draw for all:
    # a step of one pixel is taken as often as `pick_level` takes one.
    gap = jnp.maximum(gap, 1)
    part = missing * (upper - lower).astype(jnp.uint32) + (gap - 1 - draw)
    between = lower + (part // gap).astype(jnp.int32)
    # There is nothing between no box and the least one.
    return jnp.where(below > 0, between, jnp.where(draw < missing, upper, lower))


def _bracket(rate: Any, units: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns the levels on either side of a rate, their distance, and that of lower and rate."""
    target = drop_units(rate)
    above = jnp.sum(units <= target, dtype=jnp.int32)
    below, above = above - 1, jnp.minimum(above, units.shape[0] - 1)
    return below, above, units[above] - units[below], target - units[below]


def start_range(size: int, side: Any, border: Border) -> tuple[Any, Any]:
    """Returns where an interval may start: (first position, how many), all of them equally likely.

    The border "inside" keeps the interval on the axis, "clip" centres it on any position.
    """
    if border == "inside":
        return 0, size - side + 1
    return -(side // 2), size


def largest_side(size: int, border: Border) -> int:
    """Returns the least length of an interval that always covers an axis."""
    return size if border == "inside" else max(2 * size - 1, 0)


def box_fractions(
    sides: np.ndarray, spatial: tuple[int, ...], count: int | tuple[int, int], border: Border
) -> np.ndarray:
    """Returns the fraction that `count` boxes of the same size cover in expectation, for each size.

    Overlaps count once. `sides` are ints of shape (levels, axes), the result is of shape (levels,);
    for each number of boxes from one to another, of shape (levels, numbers).
    """
    fewest, most = count if isinstance(count, tuple) else (count, count)
    every, last = np.arange(most + 1), len(spatial) - 1
    # spared[level, m]: how likely a position is spared by m boxes that cover it along the axes
    # before. With no axis left, 0 boxes spare it and others do not; so the last axis comes first.
    spared = np.ones((len(sides), 1))
    for axis in range(last, -1, -1):
        total = every if axis else every[fewest:]
        chosen = every if axis < last else every[:1]
        lengths, places = np.unique(sides[:, axis], return_inverse=True)
        table = coverage(lengths, spatial[axis], border, total[:, None], chosen)
        parts = _parts(np.arange(len(sides)), table[:1].size)
        spared = np.concatenate([(table[places[p]] * spared[p, None]).sum(axis=2) for p in parts])
    return 1 - (spared if isinstance(count, tuple) else spared[:, 0])


def coverage(
    sides: np.ndarray, size: int, border: Border, total: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """Returns how likely `chosen` of `total` intervals cover a position, on average over positions.

    For each length of an interval, `sides`, an array of the shape that the two numbers broadcast
    to.
    """
    total, chosen = np.broadcast_arrays(total, chosen)
    highest = int(total.max())
    missed = np.maximum(total - chosen, 0)
    # Pascal's triangle, 0 if more are chosen than there are.
    ways = np.zeros((highest + 1, highest + 1))
    ways[:, 0] = 1
    for n in range(1, highest + 1):
        ways[n, 1:] = ways[n - 1, 1:] + ways[n - 1, :-1]
    table = np.empty((len(sides), *total.shape))
    for group, hits, weights in _hits(sides.astype(np.int64), size, border, highest, total.size):
        # All terms are positive, so nothing cancels.
        terms = _powers(hits, chosen)
        terms *= _powers(1 - hits, missed)
        table[group] = np.einsum("s...p,sp->s...", terms, weights)
    return table * ways[total, chosen]


def _hits(
    sides: np.ndarray, size: int, border: Border, degree: int, terms: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Says how likely an interval covers a position, for a few positions that stand for all.

    From either end of the axis the starts that cover a position grow one by one, up to a plateau.
    So means along each slope are those along a run of integers.

    Yields:
      (group, probabilities, weights): indices of some of the sides, and float64 of shape
      (group, points). Weighted sums of polynomials of the probabilities, of no higher degree than
      `degree`, are their means over all positions. Groups are such that `terms` arrays of that
      shape take a few megabytes.
    """
    starts = start_range(size, sides, border)[1] + np.zeros_like(sides)
    top = np.minimum(sides, starts)
    # How many starts cover the first position, and the last; and how many slopes begin so.
    if border == "inside":
        ends, times = [np.minimum(top, 1)], 2
    else:
        ends, times = [sides // 2 + 1, sides - sides // 2], 1
    slopes = [np.maximum(top - end, 0) for end in ends]
    plateau = size - times * sum(slopes)
    shorter = functools.reduce(np.minimum, slopes)
    is_long = shorter > longest_sum(degree)
    by_length = np.argsort(shorter, kind="stable")
    for rule, chosen in (run_itself, ~is_long), (gauss_rule, is_long):
        points = 2 * longest_sum(degree)
        for group in _parts(by_length[chosen[by_length]], max(terms, degree // 4) * points):
            hits, weights = [top[group, None]], [plateau[group, None]]
            for end, slope in zip(ends, slopes, strict=True):
                lengths, which = np.unique(slope[group], return_inverse=True)
                places, shares = rule(lengths, degree)
                hits.append(end[group, None] + places[which])
                weights.append(times * slope[group, None] * shares[which])
            probabilities = np.concatenate(hits, axis=1) / np.maximum(starts[group, None], 1)
            yield (
                group,
                np.clip(probabilities, 0, 1),
                np.concatenate(weights, axis=1) / max(size, 1),
            )


def longest_sum(degree: int) -> int:
    """Returns up to which length a run is summed itself: there `gauss_rule` may fail."""
    return 4 * (degree // 2 + 1)


def run_itself(lengths: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `gauss_rule` does, of whatever length: all integers, each with its share."""
    points = np.arange(max(lengths.max(initial=0), 1)) + np.zeros((len(lengths), 1))
    return points, (points < lengths[:, None]) / np.maximum(lengths[:, None], 1)


def gauss_rule(lengths: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns points and weights whose sums are means over the integers from 0 to below a length.

    Exact for polynomials up to the degree; lengths are above `longest_sum(degree)`, and the results
    of shape (lengths, degree // 2 + 1). Everything is elementwise: linear algebra starts threads,
    which take seconds to find a core on a machine that is busy.
    """
    # The polynomials that are orthonormal on the run, moved to [-1, 1] (the discrete Chebyshev
    # polynomials), follow z p[k] = a[k] p[k-1] + a[k+1] p[k+1]. The points are the zeros of
    # p[count], and the weight of a point is 1 / (p[0]^2 + ... + p[count-1]^2) there (Golub and
    # Welsch, 1969, "Calculation of Gauss quadrature rules").
    length, count = lengths[:, None].astype(np.float64), degree // 2 + 1
    order = np.arange(count + 1)
    a = np.sqrt(order**2 * (1 - (order / length) ** 2) / (4 * order**2 - 1))[:, :, None]
    # All zeros at once, by the iteration of Aberth, 1973: Newton's step, bent away from the other
    # zeros. It starts near those of Legendre's polynomials and cubes the error in each step. After
    # four steps that is float64's, and the fifth takes the weights there.
    # Zeros lie symmetrically, so that those from 0 on are enough.
    half = np.arange((count + 1) // 2)
    z = np.cos(np.pi * (half + 0.75) / (count + 0.5)) * (1 - 1 / length)
    for _ in range(5):
        p, slope, norm = np.ones_like(z), np.zeros_like(z), np.zeros_like(z)
        p_before, slope_before = np.zeros_like(z), np.zeros_like(z)
        for k in range(count):
            norm += p * p
            p_after = (z * p - a[:, k] * p_before) / a[:, k + 1]
            slope_after = (p + z * slope - a[:, k] * slope_before) / a[:, k + 1]
            p_before, p, slope_before, slope = p, p_after, slope, slope_after
        apart = z[:, :, None] - np.concatenate([z, -z[:, : count // 2]], axis=1)[:, None]
        apart[:, half, half] = np.inf
        newton = p / slope
        z = z - newton / (1 - newton * (1 / apart).sum(axis=2))
    z = np.concatenate([z, -z[:, : count // 2]], axis=1)
    norm = np.concatenate([norm, norm[:, : count // 2]], axis=1)
    return (z * length + length - 1) / 2, 1 / norm


def _parts(indices: np.ndarray, size: int) -> list[np.ndarray]:
    """Cuts indices into parts of which each stands for a few megabytes, of `size` floats each."""
    return np.array_split(indices, 1 + len(indices) * size // 2**20)


def _powers(base: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Returns powers along new axes after the first, in the shape of the exponents."""
    if exponents.size == 1:
        return np.power(base, exponents.item()).reshape(len(base), *exponents.shape, base.shape[1])
    powers = np.ones((len(base), exponents.max() + 1, base.shape[1]))
    for exponent in range(1, powers.shape[1]):
        np.multiply(powers[:, exponent - 1], base, out=powers[:, exponent])
    return powers[:, exponents]
