"""What should come of a drop, computed slowly in NumPy, and how far a result is from it."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dropax.kit.arrays import as_numbers
from dropax.moments import integer_range

TOLERANCE = 16.0
"""Units in the last place that arithmetic may be off."""


def assert_drops(
    before: Any,
    after: Any,
    keep_mask: Any,
    *,
    fill: Any = 0,
    kept_value: Any = None,
    clip_range: tuple[float, float] | None = None,
    tolerance: float = TOLERANCE,
) -> None:
    """Asserts that values were dropped: `where(keep_mask, kept_value, fill)`, clipped.

    Kept values that stay, and fills, must agree bit for bit: NaN with NaN, and -0.0 is not 0.0.
    Only subnormal numbers may be flushed to 0, as XLA does on CPU.

    Args:
      before: an array, of one record or of many.
      after: what became of it, of the same shape and dtype.
      keep_mask: bool, True where kept; broadcasts to the array.
      fill: what dropped values become, a number or an array that broadcasts; None for anything.
      kept_value: what kept values become, an array or a function of `before`; None if they stay.
      clip_range: (low, high) that the result is clipped to, or None.
      tolerance: how far values that `kept_value` computes may be off, in units in the last place of
        the value.

    Raises:
      AssertionError: if a value is another. It names the position, both values and a likely cause.
      TypeError: if the mask is no array of bools.

    Example:
      >>> image, keep = np.ones((2, 2), np.float32), np.array([[True, False], [True, True]])
      >>> assert_drops(image, np.where(keep, image, np.float32(0)), keep)
      >>> assert_drops(image, image, keep)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      AssertionError: the dropped value at [0, 1] must be 0.0; got 1.0, of an input of 1.0. ...
    """
    keep_mask = as_numbers(keep_mask, "assert_drops.keep_mask", "bools")
    before, after = np.asarray(before), np.asarray(after)
    masks = np.broadcast_to(np.asarray(keep_mask), before.shape)
    kept = kept_value(before) if callable(kept_value) else kept_value
    fault = value_fault(after, reference_of(before, masks, kept, fill, clip_range), tolerance)
    if fault is not None:
        raise AssertionError(fault)


class Reference(NamedTuple):
    """What a result should be: its values, and where they must agree bit for bit, or at all.

    If anything is dropped, the masks say what is kept, and `before` is the input.
    """

    wanted: np.ndarray
    exact: Any = True
    known: Any = True
    masks: np.ndarray | None = None
    before: np.ndarray | None = None


def reference_of(
    before: np.ndarray, masks: np.ndarray, kept: Any, fill: Any, clip: Any, exact_fill: bool = True
) -> Reference:
    """Returns `where(masks, kept, fill)`, clipped as on the real numbers, in the input's dtype.

    Kept values stay if `kept` is None; where dropped, nothing is known if `fill` is None.
    """
    dtype = before.dtype
    with np.errstate(all="ignore"):
        parts = (before if kept is None else kept, 0 if fill is None else fill)
        out = np.where(masks, *(np.asarray(part).astype(dtype) for part in parts))
        if clip is not None:  # NaN and values within the range stay bit for bit
            low, high = clip
            if not jnp.issubdtype(dtype, jnp.floating):
                least, most = integer_range(dtype)
                low, high = math.ceil(max(low, least)), math.floor(min(high, most))
            low, high = (np.asarray(bound).astype(dtype) for bound in (low, high))
            out = np.where(out < low, low, np.where(out > high, high, out))
    exact = np.where(masks, kept is None, exact_fill)
    return Reference(out, exact, masks | (fill is not None), masks, before)


def same_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Says where values are equal bit for bit, 0.0 and -0.0 apart, or both NaN."""
    same = np.asarray(a == b)
    if jnp.issubdtype(a.dtype, jnp.floating):
        same = (same & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))
    return same


def is_near(a: np.ndarray, b: np.ndarray, tolerance: float) -> np.ndarray:
    """Says where results of the same arithmetic agree.

    Floats may be off by some units in the last place of the value, or, as differences lose digits,
    of what is typical of the array; nothing is typical of an array that spans many magnitudes.
    Integers may be off by one at every hundredth value, where the rounding of a half may differ.
    """
    same = same_bits(a, b)
    if same.all() or a.dtype == np.bool_:
        return same
    with np.errstate(all="ignore"):
        if not jnp.issubdtype(a.dtype, jnp.inexact):
            one = np.abs(a.astype(np.float64) - b.astype(np.float64)) <= 1
            return np.asarray(same | (one & (np.mean(~same) <= 0.01)))
        wide = np.complex128 if jnp.issubdtype(a.dtype, jnp.complexfloating) else np.float64
        unit, a, b = float(jnp.finfo(a.dtype).eps), a.astype(wide), b.astype(wide)
        sizes = np.abs(a[np.isfinite(a) & (a != 0)])
        # The largest of few values may be all there is.
        usual = sizes.max() if sizes.size and sizes.max() <= 1e3 * np.median(sizes) else 0.0
        scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), usual)
        return np.asarray(same | (np.abs(a - b) <= tolerance * unit * scale) | (a == b))


def value_fault(got: np.ndarray, reference: Reference, tolerance: float = 0.0) -> str | None:
    """Says which value is not what it should be, and why that may be; or returns None."""
    wanted, exact, known, masks, before = reference
    if show(got) != show(wanted):
        return f"the result must be {show(wanted)}; got {show(got)}"
    near = same_bits(wanted, got)
    if not np.all(exact):
        near = np.where(exact, near, is_near(wanted, got, tolerance))
    if jnp.issubdtype(got.dtype, jnp.floating):
        # XLA on CPU flushes subnormal numbers to 0 in arithmetic and in clips.
        tiny = np.abs(wanted.astype(np.float64)) < float(jnp.finfo(got.dtype).tiny)
        near |= tiny & (wanted != 0) & (got == 0)
    off = np.asarray(known) & ~near
    if not off.any():
        return None
    at = tuple(np.argwhere(off)[0].tolist())
    many = f"{int(off.sum())} of {off.size} values are off."
    if masks is None or before is None:
        return f"the value at {list(at)} must be {wanted[at]}; got {got[at]}. {many}"
    kind = "kept" if masks[at] else "dropped"
    cause = "a wrong formula, or a rounding that the reference does not have"
    if not masks[at] and (got[at] != got[at] or got[at] == wanted[at] == 0):
        cause = "a product with the mask, which keeps NaN and signs: use jnp.where"
    elif before[at] in (got[at], wanted[at]):
        cause = "another mask than the one drawn, a mask along the wrong axis, or arithmetic"
    elif not masks[at]:
        cause = "a fill that is scaled, clipped or read from the image"
    return (
        f"the {kind} value at {list(at)} must be {wanted[at]}; got {got[at]}, of an input of "
        f"{before[at]}. {many} Likely {cause}."
    )


def show(array: Any) -> str:
    """Returns dtype and shape."""
    return f"{array.dtype}{list(array.shape)}"
