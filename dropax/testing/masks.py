"""Whether keep masks are drawn as they should be, with one stated probability of a false alarm.

The bounds hold for every number of records, and are shared out over all that is tested
(Bonferroni).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.kit.arrays import as_numbers
from dropax.kit.errors import is_array, must, require_kind, require_number, require_whole
from dropax.kit.fields import by_path

FLIPS = 96
"""How many ways two keys of a pair differ: in one bit of 64, or in one bit of both words."""
_POSITIONS = 999  # of a mask, of which any two are compared


def assert_dropped_fraction(
    keep_mask: Any,
    expected: Any,
    *,
    independent_values: bool = False,
    false_alarm: float = 1e-6,
) -> None:
    """Asserts that keep masks drop a fraction in expectation.

    The records must be independent; of the values in a record nothing is assumed by default.

    Args:
      keep_mask: bool, True where kept, of shape (n, ...): one record a row.
      expected: the fraction that should be dropped, in [0, 1]; 0 and 1 leave no room.
      independent_values: whether each value of the mask, as it is given, drops on its own and with
        the same probability, as in pixel mode: a tighter bound.
      false_alarm: the probability that right masks fail, over the choice of their keys.

    Raises:
      AssertionError: if the masks drop more or less than the bound allows.
      TypeError: if an argument is of the wrong type.
      ValueError: if an argument is out of range, or there are too few records for any to fail.

    Example:
      >>> masks = np.random.default_rng(0).random((512, 8, 8, 3)) >= 0.2
      >>> assert_dropped_fraction(masks, 0.2, independent_values=True)
      >>> assert_dropped_fraction(masks, 0.25, independent_values=True)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      AssertionError: the dropped fraction must be 0.25 up to 0.00...; got 0.2... ...
    """
    owner = "assert_dropped_fraction"
    keep_mask = as_numbers(keep_mask, f"{owner}.keep_mask", "bools")
    require_kind(f"{owner}.independent_values", independent_values, bool, "a bool")
    if not keep_mask.shape or not keep_mask.size:
        constraint = "have records along its leading axis, and values in them"
        raise ValueError(must(f"{owner}.keep_mask", constraint, keep_mask))
    expected = expected.item() if is_array(expected) and expected.shape == () else expected
    require_number(f"{owner}.expected", expected)
    if not 0 <= expected <= 1:
        raise ValueError(must(f"{owner}.expected", "be in [0, 1]", expected))
    require_probability(f"{owner}.false_alarm", false_alarm)
    draws = draws_of(~np.asarray(keep_mask), independent_values)
    bound, most = mean_bound(draws, false_alarm), max(expected, 1 - expected)
    if bound >= most and expected not in (0, 1):
        constraint = f"hold enough records for a bound below {most:.4g}"
        raise ValueError(must(f"{owner}.keep_mask", constraint, f"a bound of {bound:.4g}"))
    fault = fraction_fault(draws, expected, false_alarm)
    if fault is not None:
        raise AssertionError(f"{fault}.")


def assert_masks(
    draw: Callable[[jax.Array], Any],
    rate: float | None,
    *,
    independent: bool = False,
    records: int = 4096,
    seed: int = 0,
    false_alarm: float = 1e-6,
) -> None:
    """Asserts that drawn keep masks are random, in the way they should be.

    Of any masks: the dropped fraction; that each border drops and is kept at times; that where
    masks drop along one axis does not follow from another axis. If `independent`, also each
    position's own share, how often any two drop together, and that no two masks are equal.

    Args:
      draw: `keys -> masks`, from `(n,)` typed keys to bools of shape (n, ...), True where kept.
      rate: the dropped fraction that is expected, in [0, 1]; None if it is unknown.
      independent: whether each value of a mask, as it is drawn, drops on its own and with the same
        probability.
      records: how many masks are drawn, at least 256.
      seed: of the keys.
      false_alarm: the probability that right masks fail, over the choice of the seed.

    Raises:
      AssertionError: if the masks are not as they should be.
      TypeError, ValueError: if an argument is of the wrong type or out of range.

    Example:
      >>> def draw(keys):
      ...     return jax.vmap(lambda key: jax.random.bernoulli(key, 0.7, (6, 6, 3)))(keys)
      >>> assert_masks(draw, 0.3, independent=True)
      >>> assert_masks(draw, 0.7)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      AssertionError: the dropped fraction must be 0.7 up to 0.01...; got 0.3...
    """
    require_whole("assert_masks.records", records, 256)
    require_kind("assert_masks.independent", independent, bool, "a bool")
    require_probability("assert_masks.false_alarm", false_alarm)
    masks, count = draw(flipped_keys(records // 2, seed)), records // 2 * 2
    if not is_array(masks) or masks.dtype != np.bool_ or masks.shape[:1] != (count,):
        raise TypeError(must("assert_masks.draw", f"return bools of shape ({count}, ...)", masks))
    fault = mask_fault(np.asarray(masks), rate, independent, false_alarm)
    if fault is not None:
        raise AssertionError(f"{fault}.")


def require_probability(name: str, value: Any) -> None:
    """Raises a TypeError or a ValueError if a value is no number in (0, 1)."""
    require_number(name, value)
    if not 0 < value < 1:
        raise ValueError(must(name, "be in (0, 1)", value))


def mean_bound(draws: np.ndarray, false_alarm: float) -> float:
    """Returns how far the mean of independent draws may be off, by their own variance.

    The empirical Bernstein bound, Maurer and Pontil, 2009, arXiv:0907.3740, theorem 4, once for
    each side. The draws are within an interval of length 1. Infinite for less than two draws.
    """
    count, share = len(draws), math.log(4 / false_alarm)
    if count < 2:
        return math.inf
    variance = float(np.var(draws, ddof=1, dtype=np.float64))
    return math.sqrt(2 * share * variance / count) + 7 * share / (3 * (count - 1))


def count_bound(draws: int, probability: Any, false_alarm: float) -> np.ndarray:
    """Returns how far counts of independent events may be off, by Bernstein's inequality.

    Sums of `draws` numbers in [0, 1] of the mean `probability` vary no more.
    """
    share, probability = math.log(2 / false_alarm), np.asarray(probability, np.float64)
    variance = draws * probability * (1 - probability)
    return np.asarray(share / 3 + np.sqrt(share**2 / 9 + 2 * share * variance))


def draws_of(drops: np.ndarray, independent: bool) -> np.ndarray:
    """Returns the draws that are independent: the values of masks, or the fractions of records."""
    return drops.ravel() if independent else drops.reshape(len(drops), -1).mean(axis=1)


def fraction_fault(draws: np.ndarray, expected: float, false_alarm: float) -> str | None:
    """Says how the mean of independent draws in [0, 1] is off; 0 and 1 leave no room."""
    bound = 0.0 if expected in (0, 1) else mean_bound(draws, false_alarm)
    mean = float(np.mean(draws, dtype=np.float64))
    if abs(mean - expected) <= bound + 1e-7:  # what float32 rounds away
        return None
    return (
        f"the dropped fraction must be {expected:.6g} up to {bound:.3g}; got {mean:.4g}. Masks "
        f"drawn right are further off with a probability of {false_alarm:g} at most "
        f"({len(draws)} draws)"
    )


def flipped_keys(pairs: int, seed: int) -> jax.Array:
    """Returns pairs of Threefry keys: those of pair i differ in the way i % `FLIPS`."""
    words = np.random.default_rng(seed).integers(0, 2**32, (pairs, 2), np.uint32)
    way = np.arange(pairs) % FLIPS
    bit = (np.uint32(1) << (way % 32).astype(np.uint32))[:, None]
    in_words = np.stack([(way < 32) | (way >= 64), way >= 32], axis=1)
    both = np.stack([words, words ^ np.where(in_words, bit, np.uint32(0))], axis=1).reshape(-1, 2)
    return jax.random.wrap_key_data(jnp.asarray(both), impl="threefry2x32")


def mask_fault(
    masks: np.ndarray, expected: float | None, independent: bool, false_alarm: float
) -> str | None:
    """Returns what is wrong with masks of independent records, as for `assert_masks`, or None."""
    drops, each = ~masks, false_alarm / 3  # fractions, positions, equal masks
    draws = draws_of(drops, independent)
    fault = None if expected is None else fraction_fault(draws, expected, each)
    share = float(draws.mean()) if expected is None else float(expected)
    if fault is not None or not 0 < share < 1 or not 0 < draws.mean() < 1:
        return fault
    fault = _position_fault(drops, share, each) if independent else None
    return fault or _axis_fault(drops, share)


def _position_fault(drops: np.ndarray, share: float, false_alarm: float) -> str | None:
    """Says which position has another share, which two are not independent, or if masks repeat."""
    count, size, third = len(drops), drops[0].size, _POSITIONS // 3
    places = np.arange(size)
    if size > _POSITIONS:  # the first, the middle and the last
        places = places[np.r_[:third, (size - third) // 2 : (size + third) // 2, -third:0]]
    flat = drops.reshape(count, -1)[:, places].astype(np.float32)
    # How often two positions drop together; on the diagonal, how often one does.
    together = flat.T @ flat
    wanted = np.where(np.eye(len(places), dtype=bool), share, share**2)
    bound = count_bound(count, wanted, false_alarm / together.size)
    over = np.abs(together - count * wanted) - bound
    if over.max() > 0:
        pair = np.unravel_index(over.argmax(), over.shape)
        one, two = ([int(n) for n in np.unravel_index(places[at], drops.shape[1:])] for at in pair)
        what = f"position {one} drops"
        if one != two:
            what = f"positions {one} and {two} are not independent: both drop"
        return f"{what} {together[pair] / count:.4g} of the time, not {wanted[pair]:.4g}"
    chance = size * math.log(share**2 + (1 - share) ** 2) + 2 * math.log(count)
    if chance < math.log(false_alarm) and (different := count_different(drops)) < count:
        return f"{count} keys drew only {different} different masks"
    return None


def _axis_fault(drops: np.ndarray, share: float) -> str | None:
    """Says which border never drops or is never kept, or which two axes share a draw.

    A rectangle inside the image reaches a border less often than the middle, but not by more than
    its side. So if a border should drop 30 times in the worst case, none is missed by chance.
    """
    centers: dict[int, np.ndarray] = {}
    fractions = draws_of(drops, independent=False)
    some = (fractions > 0) & (fractions < 1)
    for axis, size in enumerate(drops.shape[1:]):
        others = tuple(other for other in range(1, drops.ndim) if other != axis + 1)
        along = drops.mean(axis=others)
        for at in (0, size - 1) if size > 1 else ():
            if len(drops) * share / size >= 30 and not along[:, at].any():
                return f"index {at} of axis {axis} of the mask never drops"
            if len(drops) * (1 - share) / size >= 30 and (along[:, at] == 1).all():
                return f"index {at} of axis {axis} of the mask is never kept"
        center = along[some] @ np.arange(size) / along[some].sum(axis=1)
        if some.sum() < 256 or center.std() < 1e-6:
            continue
        for other, before in centers.items():
            if abs(np.corrcoef(before, center)[0, 1]) > 0.5:
                return f"where masks drop along axis {other} follows from where along axis {axis}"
        centers[axis] = center
    return None


def count_different(rows: np.ndarray) -> int:
    """Returns how many rows of an array are different."""
    flat = np.ascontiguousarray(rows.reshape(len(rows), -1))
    packed = np.packbits(flat, axis=1) if flat.dtype == np.bool_ else flat
    return len({row.tobytes() for row in packed})


def entries_fault(params: Any) -> str | None:
    """Says which two entries of the params of many records come from one draw, or None.

    The first numbers of each record are compared. Numbers of one order are one draw, and bools that
    follow from a threshold; integers, of which one may be the opposite corner, only if equal.
    """
    columns: dict[str, np.ndarray] = {}
    for name, leaf in by_path(params):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or not leaf.size:
            continue
        column = np.asarray(leaf).reshape(len(leaf), -1)[:, 0]
        counts = np.unique(column, return_counts=True)[1]
        if len(counts) < 2 or (counts.min() < 30 if column.dtype == np.bool_ else len(counts) < 4):
            continue  # equal by chance
        for other, before in columns.items():
            if _is_one_draw(before, column):
                return f"{other!r} and {name!r} of random_params come from one draw"
        columns[name] = column
    return None


def _is_one_draw(one: np.ndarray, other: np.ndarray) -> bool:
    one, other = (one, other) if len(np.unique(one)) > len(np.unique(other)) else (other, one)
    if np.issubdtype(other.dtype, np.integer) or one.dtype == np.bool_:
        return one.dtype == other.dtype and bool((one == other).all())
    one, other = one.astype(np.float64), other.astype(np.float64)
    if len(np.unique(one)) < 64 or np.ptp(one + other) <= 1e-5 * np.ptp(one):
        return False  # a choice of a few numbers, or weights that add up to 1
    steps = np.diff(other[np.argsort(one, kind="stable")])
    slack = 1e-6 * np.ptp(other)
    return bool((steps >= -slack).all() or (steps <= slack).all())
