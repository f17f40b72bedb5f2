"""One statistical battery for keep masks, with one stated probability of a false alarm.

Given masks that many keys drew, says what is wrong with them. The bounds are those of `bounds`,
shared out over all that is tested (Bonferroni).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.kit.errors import is_array, must, require_kind, require_whole
from dropax.testing.bounds import count_bound, fraction_fault, mean_bound

_STEPS = 8  # how far apart values are compared


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

    Of any masks: the dropped fraction, that each row, column and channel drops at times and is kept
    at times, that where masks drop along one axis does not follow from another axis, and that not
    all keys draw one mask. If `independent`: also each position's own share, the covariance of
    neighbors, mirrored places, halves of axes and channels, and equal masks.

    Args:
      draw: `keys -> masks`, from `(n,)` typed keys to bools of shape (n, ...), True where kept.
      rate: the dropped fraction that is expected, in [0, 1]; None if it is unknown.
      independent: whether each value of a mask, as it is drawn, drops on its own and with the same
        probability.
      records: how many masks are drawn, an even number of at least 256.
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
    masks = draw(flipped_keys(records // 2, seed))
    if not is_array(masks) or masks.dtype != np.bool_ or masks.shape[:1] != (records // 2 * 2,):
        constraint = f"return bools of shape ({records // 2 * 2}, ...)"
        raise TypeError(must("assert_masks.draw", constraint, masks))
    fault = mask_fault(np.asarray(masks), rate, independent=independent, false_alarm=false_alarm)
    if fault is not None:
        raise AssertionError(f"{fault}.")


FLIPS = 96
"""How many ways two keys of a pair differ: in one bit of 64, or in one bit of both words."""


def flipped_keys(pairs: int, seed: int) -> jax.Array:
    """Returns pairs of Threefry keys: those of pair i differ in the way i % `FLIPS`."""
    words = np.random.default_rng(seed).integers(0, 2**32, (pairs, 2), np.uint32)
    way = np.arange(pairs) % FLIPS
    bit = (np.uint32(1) << (way % 32).astype(np.uint32))[:, None]
    in_words = np.stack([(way < 32) | (way >= 64), way >= 32], axis=1)
    both = np.stack([words, words ^ np.where(in_words, bit, np.uint32(0))], axis=1).reshape(-1, 2)
    return jax.random.wrap_key_data(jnp.asarray(both), impl="threefry2x32")


def mask_fault(
    masks: np.ndarray, expected: float | None, *, independent: bool, false_alarm: float
) -> str | None:
    """Returns what is wrong with masks of independent records, or None.

    Args:
      masks: bool, shape (n, ...), True where kept; n is even.
      expected: the dropped fraction; None if it is unknown.
      independent: as for `assert_masks`.
      false_alarm: the probability that right masks are called wrong.

    Returns:
      A sentence without a full stop, or None.
    """
    drops = ~masks.reshape(len(masks), -1)
    fractions = drops.mean(axis=1)
    each = false_alarm / 4  # fractions, positions, pairs, equal masks
    if expected is not None:
        draws = drops.ravel() if independent else fractions
        fault = fraction_fault(draws, expected, each, variance_known=independent)
        if fault is not None:
            return fault
    share = float(fractions.mean()) if expected is None else float(expected)
    if not 0 < share < 1 or not 0 < fractions.mean() < 1:
        return None
    return (
        (_independence_fault(masks, drops, share, each) if independent else None)
        or _reach_fault(masks, share)
        or _place_fault(masks)
    )


def _independence_fault(
    masks: np.ndarray, drops: np.ndarray, share: float, false_alarm: float
) -> str | None:
    count, shape = len(masks), masks.shape[1:]
    off = np.abs(drops.sum(axis=0) - count * share)
    if off.max() > float(count_bound(count, share, false_alarm / off.size)):
        at = np.unravel_index(int(off.argmax()), shape)
        own = drops[:, int(off.argmax())].mean()
        return f"position {[int(n) for n in at]} drops {own:.4g} of the time, not {share:.4g}"
    # Of two independent records, E[(x - x')(y - y')] / 2 is the covariance of x and y.
    apart = masks[::2].astype(np.int8) - masks[1::2].astype(np.int8)
    pairs = list(_pairs(shape))
    for name, axis, step in pairs:
        one, other = apart, np.roll(apart, step, 1 + axis)
        if not step:  # half of the places, without the middle, and their mirrors
            half = range(shape[axis] // 2)
            one, other = (np.take(x, half, 1 + axis) for x in (apart, np.flip(apart, 1 + axis)))
        draws = (one * other).reshape(len(apart), -1).mean(axis=1) / 2
        covariance, bound = float(draws.mean()), mean_bound(draws, false_alarm / len(pairs))
        if abs(covariance) > bound:
            return (
                f"values {name} along axis {axis} of the mask are not independent: their drops "
                f"have a covariance of {covariance:.3g}; up to {bound:.2g} is allowed"
            )
    chance = drops.shape[1] * math.log(share**2 + (1 - share) ** 2) + 2 * math.log(count)
    different = count_different(masks)
    if chance < math.log(false_alarm) and different < count:
        return f"{count} keys drew only {different} different masks"
    return None


def _pairs(shape: tuple[int, ...]) -> Iterator[tuple[str, int, int]]:
    """Yields what pairs of values are called, their axis, and how far apart; 0 for mirrored."""
    for axis, size in enumerate(shape):
        for step in sorted({*range(1, min(size // 2, _STEPS) + 1), size // 2} - {0}):
            yield f"{step} apart", axis, step
        if size > 1:
            yield "at mirrored places", axis, 0


def count_different(rows: np.ndarray) -> int:
    """Returns how many rows of an array are different."""
    flat = np.ascontiguousarray(rows.reshape(len(rows), -1))
    packed = np.packbits(flat, axis=1) if flat.dtype == np.bool_ else flat
    return len({row.tobytes() for row in packed})


def _reach_fault(masks: np.ndarray, share: float) -> str | None:
    """Says which border never drops, or is never kept.

    A rectangle inside the image reaches a border less often than the middle, but not by more than
    its side. So if a border should drop 30 times in the worst case, none is missed by chance.
    """
    for axis, size in enumerate(masks.shape[1:]):
        for at in (0, size - 1):
            border = np.take(masks, at, axis + 1)
            for what, seen, often in (
                ("drops", not border.all(), share),
                ("is kept", border.any(), 1 - share),
            ):
                if size > 1 and len(masks) * often / size >= 30 and not seen:
                    return f"index {at} of axis {axis} of the mask never {what}"
    return None


def _place_fault(masks: np.ndarray) -> str | None:
    """Says which two axes share a draw, so that masks drop along a diagonal only."""
    drops = ~masks
    totals = drops.reshape(len(drops), -1).sum(axis=1)
    some = (totals > 0) & (totals < drops[0].size)
    if some.sum() < 256:
        return None
    centers = {}
    for axis, size in enumerate(masks.shape[1:]):
        others = tuple(other for other in range(1, masks.ndim) if other != axis + 1)
        center = drops[some].sum(axis=others) @ np.arange(size) / totals[some]
        if size > 1 and center.std() > 1e-6:
            centers[axis] = center
    for one in centers:
        for other in centers:
            if one < other and abs(np.corrcoef(centers[one], centers[other])[0, 1]) > 0.5:
                return f"where masks drop along axis {one} follows from where along axis {other}"
    return None


def words_of(leaf: Any) -> np.ndarray:
    """Returns an array, or the words of an array of keys, as NumPy's."""
    is_key = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def entries_fault(params: Any) -> str | None:
    """Says which two entries of the params of many records share their randomness, or None.

    Two entries are compared as numbers of each record: scalars, and the first and the middle value
    of larger ones. Of independent draws none determines another.
    """
    columns: list[tuple[str, int, np.ndarray]] = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            continue
        name, flat = jax.tree_util.keystr(path), np.asarray(leaf).reshape(len(leaf), -1)
        for place in {0, flat.shape[1] // 2} if flat.shape[1] else ():
            column = flat[:, place]
            if len(np.unique(column)) >= (2 if column.dtype == np.bool_ else 4):
                columns.append((name, place, column))
    for number, (name, place, one) in enumerate(columns):
        for other_name, other_place, other in columns[:number]:
            if name != other_name and place == other_place and _determines(other, one):
                return f"random_params{other_name} and random_params{name} come from one draw"
    return None


def _determines(one: np.ndarray, other: np.ndarray) -> bool:
    """Says whether two columns are one draw: equal, in the same order, or split by a threshold."""
    kinds = "".join(
        sorted("f" if x.dtype.kind not in "biu" else x.dtype.kind for x in (one, other))
    )
    if kinds == "bf":
        flag, number = (one, other) if one.dtype == np.bool_ else (other, one)
        low, high = number[flag], number[~flag]
        enough = min(len(low), len(high)) >= 30
        return enough and bool(low.max() < high.min() or high.max() < low.min())
    if kinds != "ff":
        return one.dtype == other.dtype and bool((one == other).all())
    one, other = one.astype(np.float64), other.astype(np.float64)
    if np.ptp(one + other) <= 1e-5 * np.ptp(one) or len(np.unique(one)) < 64:
        return False  # weights that add up to 1, or a choice of a few numbers
    steps, slack = np.diff(other[np.argsort(one, kind="stable")]), 1e-6 * np.ptp(other)
    return bool((steps >= -slack).all() or (steps <= slack).all())
