"""What takes the place of dropped values.

Given an array and a keep mask, returns the array with its dropped values replaced. Dropping is a
select, never a product: NaN and infinity under a dropped value vanish, in values and in gradients.
The dtype never changes.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.checks import must

Number = int | float


def fill_dropped(array: jax.Array, keep_mask: jax.Array, fill: Number, owner: str) -> jax.Array:
    """Replaces dropped values by a number.

    Args:
      array: any dtype and shape.
      keep_mask: bool, True where kept; broadcasts to the array.
      fill: what dropped values become.
      owner: the argument's name for the error.

    Returns:
      An array of the same shape and dtype.

    Raises:
      ValueError: if an integer or bool dtype cannot hold `fill` exactly.
    """
    value = jnp.asarray(_exactly(fill, array.dtype, owner))
    if array.dtype.itemsize == 2 and jnp.issubdtype(array.dtype, jnp.floating):
        return _select_bits(keep_mask, array, value)
    return jnp.where(keep_mask, array, value)


def clip_to_range(array: jax.Array, bounds: tuple[float, float], owner: str) -> jax.Array:
    """Clips values to a range, as on the real numbers.

    Values within the range are left untouched, bit for bit, and pass gradients on, also where they
    are equal to a bound. NaN stays NaN.

    Args:
      array: any real dtype and any shape.
      bounds: the lowest and the highest value. Integers are clipped to the integers between them.
      owner: the argument's name for the error.

    Returns:
      An array of the same shape and dtype.

    Raises:
      TypeError: if the dtype is complex, which has no order.
      ValueError: if the dtype has no finite value within the range.
    """
    dtype = array.dtype
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(must(owner, f"be None for dtype {dtype}, which has no order", bounds))
    low: Any
    high: Any
    if jnp.issubdtype(dtype, jnp.floating):
        largest = float(jnp.finfo(dtype).max)
        if bounds[0] > largest or bounds[1] < -largest:
            raise ValueError(must(owner, f"hold a value of dtype {dtype}", bounds))
        # A bound past the dtype's range is no bound.
        low = np.asarray(-np.inf if bounds[0] < -largest else float(bounds[0])).astype(dtype)
        high = np.asarray(np.inf if bounds[1] > largest else float(bounds[1])).astype(dtype)
    else:
        least, most = _integer_range(dtype)
        low = least if bounds[0] <= least else math.ceil(bounds[0])
        high = most if bounds[1] >= most else math.floor(bounds[1])
        if low > high:
            raise ValueError(must(owner, f"hold a value of dtype {dtype}", bounds))
        low, high = np.asarray(low, dtype), np.asarray(high, dtype)
    return jnp.where(array < low, low, jnp.where(array > high, high, array))


def require_in_range(fill: Number, dtype: Any, owner: str) -> None:
    """Refuses a fill that would overflow a floating-point dtype.

    Args:
      fill: a finite number.
      dtype: of the array that it would go into.
      owner: the argument's name for the error.

    Raises:
      ValueError: if the dtype's largest number is smaller.
    """
    if jnp.issubdtype(dtype, jnp.floating) and abs(fill) > float(jnp.finfo(dtype).max):
        raise ValueError(must(owner, f"be within the range of dtype {dtype}", fill))


@jax.custom_jvp
def _select_bits(keep_mask: jax.Array, array: jax.Array, value: jax.Array) -> jax.Array:
    """Selects as `where` does, by bits: where a backend lacks a dtype, XLA converts all around."""
    bits, fill = (jax.lax.bitcast_convert_type(x, jnp.uint16) for x in (array, value))
    return jax.lax.bitcast_convert_type(jnp.where(keep_mask, bits, fill), array.dtype)


@_select_bits.defjvp
def _select_bits_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    keep_mask, array, value = primals
    tangent = tangents[1]
    return _select_bits(keep_mask, array, value), jnp.where(
        keep_mask, tangent, jnp.zeros_like(value)
    )


def _exactly(fill: Number, dtype: Any, owner: str) -> np.ndarray:
    if not jnp.issubdtype(dtype, jnp.inexact):
        least, most = _integer_range(dtype)
        if not least <= fill <= most or fill != math.floor(fill):
            cure = f"Pass a whole number from {least} to {most}, or a floating-point image."
            raise ValueError(must(owner, f"be exact in dtype {dtype}", fill, cure))
        return np.asarray(int(fill)).astype(dtype)
    with np.errstate(over="ignore"):  # only where the user switched the check of the range off
        return np.asarray(float(fill)).astype(dtype)


def _integer_range(dtype: Any) -> tuple[int, int]:
    if dtype == jnp.bool_:
        return 0, 1
    return int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)
