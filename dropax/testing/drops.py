"""What should come of a drop, computed slowly in NumPy, and how far a result is from it."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from dropax.kit.errors import is_array, must

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
    if not is_array(keep_mask) or keep_mask.dtype != np.bool_:
        raise TypeError(must("assert_drops.keep_mask", "be an array of bools", keep_mask))
    before, after = np.asarray(before), np.asarray(after)
    masks = np.broadcast_to(np.asarray(keep_mask), before.shape)
    kept = kept_value(before) if callable(kept_value) else kept_value
    wanted = dropped_reference(before, masks, kept, fill, clip_range)
    exact = np.broadcast_to(kept is None or ~masks, before.shape)
    known = masks | (fill is not None)
    fault = value_fault(
        after, wanted, exact=exact, known=known, tolerance=tolerance, masks=masks, before=before
    )
    if fault is not None:
        raise AssertionError(fault)


def dropped_reference(
    before: np.ndarray, masks: np.ndarray, kept: Any, fill: Any, clip_range: Any
) -> np.ndarray:
    """Returns `where(masks, kept, fill)`, clipped, in the dtype of `before`."""
    dtype = before.dtype
    kept = before if kept is None else in_dtype(kept, dtype)
    with np.errstate(all="ignore"):
        fill = np.asarray(0 if fill is None else fill).astype(dtype)
    out = np.where(masks, kept, fill)
    return out if clip_range is None else clipped(out, *clip_range)


def in_dtype(values: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """Returns computed values in a dtype; float64 is rounded once."""
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(dtype)


def clipped(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Clips as on the real numbers; values within the range and NaN stay bit for bit."""
    dtype = values.dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        info: Any = None if dtype == np.bool_ else jnp.iinfo(dtype)
        least, most = (0, 1) if info is None else (int(info.min), int(info.max))
        low = least if low <= least else math.ceil(low)
        high = most if high >= most else math.floor(high)
    low_value, high_value = in_dtype(low, dtype), in_dtype(high, dtype)
    with np.errstate(invalid="ignore"):
        out = np.where(values < low_value, low_value, values)
        return np.where(out > high_value, high_value, out)


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
    if not jnp.issubdtype(a.dtype, jnp.inexact):
        same = np.asarray(a == b)
        if a.dtype == np.bool_ or same.all():
            return same
        one = np.abs(a.astype(np.float64) - b.astype(np.float64)) <= 1
        return np.asarray(same | (one & (np.mean(~same) <= 0.01)))
    same, complex_ = same_bits(a, b), jnp.issubdtype(a.dtype, jnp.complexfloating)
    with np.errstate(all="ignore"):
        wide = np.complex128 if complex_ else np.float64
        unit, a, b = float(jnp.finfo(a.dtype).eps), a.astype(wide), b.astype(wide)
        sizes = np.abs(a[np.isfinite(a) & (a != 0)])
        typical = float(np.median(sizes)) if sizes.size else 0.0
        # The largest of few values may be all there is.
        usual = float(sizes.max()) if sizes.size and sizes.max() <= 1e3 * typical else 0.0
        scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), usual)
        return np.asarray(same | (np.abs(a - b) <= tolerance * unit * scale) | (a == b))


def value_fault(
    got: np.ndarray,
    wanted: np.ndarray,
    *,
    exact: Any = False,
    known: Any = True,
    tolerance: float = TOLERANCE,
    masks: np.ndarray | None = None,
    before: np.ndarray | None = None,
) -> str | None:
    """Says which value is not what it should be, and why that may be; or returns None.

    Args:
      got: the result.
      wanted: the reference.
      exact: bool, where it must agree bit for bit; else as `is_near`.
      known: bool, where the reference says anything.
      tolerance: in units in the last place.
      masks: bool, True where kept, if anything is dropped.
      before: the input, if it has this shape.
    """
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return f"the result must be {show(wanted)}; got {show(got)}"
    near = is_near(got, wanted, tolerance)
    if jnp.issubdtype(got.dtype, jnp.floating):
        # XLA on CPU flushes subnormal numbers to 0 in arithmetic.
        with np.errstate(all="ignore"):
            tiny = np.abs(wanted.astype(np.float64)) < float(jnp.finfo(got.dtype).tiny)
        near |= tiny & (got == 0)
    off = np.asarray(known) & ~np.where(exact, same_bits(got, wanted), near)
    if not off.any():
        return None
    at = tuple(int(index) for index in np.argwhere(off)[0])
    kind = "" if masks is None else "kept " if masks[at] else "dropped "
    given = "" if before is None else f", of an input of {before[at]}"
    cause = _cause(got[at], wanted[at], kind, None if before is None else before[at])
    return (
        f"the {kind}value at {list(at)} must be {wanted[at]}; got {got[at]}{given}. "
        f"{int(off.sum())} of {off.size} values are off. {cause}"
    )


def _cause(got: Any, wanted: Any, kind: str, given: Any) -> str:
    if kind == "dropped " and (got != got or got == wanted == 0):
        return "Likely a product with the mask, which keeps NaN and signs: use jnp.where."
    if kind == "dropped " and given is not None and got == given:
        return "Likely another mask than the one drawn, or a mask along the wrong axis."
    if kind == "dropped ":
        return "Likely a fill that is scaled, clipped or read from the image."
    if kind and given is not None and wanted == given:
        return "Likely another mask than the one drawn, or arithmetic on kept values."
    return "Likely a wrong formula, or a rounding that the reference does not have."


def show(array: Any) -> str:
    """Returns dtype and shape."""
    return f"{array.dtype}{list(array.shape)}"
