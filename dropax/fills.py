"""What takes the place of dropped values.

Given an array, returns it with its dropped values replaced; or what replaces them: a number that a
dtype holds, or one that is computed of the array. Dropping is a select, never a product: NaN and
infinity under a dropped value vanish, in values and in gradients. The dtype never changes.
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import sample_normal
from dropax.kit.errors import must

Number = int | float
Fill = Number | tuple[Number, ...] | Literal["mean", "noise", "stats_mean"]
COMPUTED_FILLS = ("mean", "noise", "stats_mean")


def fill_dropped(array: jax.Array, keep_mask: jax.Array, fill: Any) -> jax.Array:
    """Replaces dropped values.

    Args:
      array: any dtype and shape.
      keep_mask: bool or number, kept where not 0; broadcasts to the array.
      fill: what dropped values become, of the array's dtype; broadcasts to the array.

    Returns:
      An array of the same shape and dtype.
    """
    array, fill = jnp.asarray(array), jnp.asarray(fill)
    select: Any = jnp.where
    if _word_of(array.dtype):
        is_float = jnp.issubdtype(array.dtype, jnp.floating)
        select = _select_floats if is_float else _select_words
    return select(jnp.asarray(keep_mask).astype(jnp.bool_), array, fill)


def exact_fill(fill: Number | tuple[Number, ...], dtype: Any, owner: str) -> np.ndarray:
    """Returns numbers in a dtype, which must hold them.

    Args:
      fill: a finite number, or several.
      dtype: of the array that they go into.
      owner: the argument's name for the error.

    Returns:
      An array of that dtype, of shape () or (numbers,).

    Raises:
      ValueError: if an integer or bool dtype cannot hold a number exactly.
    """
    numbers = np.asarray(fill, object)
    if not jnp.issubdtype(dtype, jnp.inexact):
        least, most = _integer_range(dtype)
        if not all(least <= number <= most and number == int(number) for number in numbers.flat):
            cure = f"Pass a whole number from {least} to {most}, or a floating-point image."
            raise ValueError(must(owner, f"be exact in dtype {dtype}", fill, cure))
        return (
            np.asarray([int(number) for number in numbers.flat])
            .astype(dtype)
            .reshape(numbers.shape)
        )
    with np.errstate(over="ignore"):  # only where the user switched the check of the range off
        return numbers.astype(np.float64).astype(dtype)


def require_in_range(fill: Number | tuple[Number, ...], dtype: Any, owner: str) -> None:
    """Refuses a fill that would overflow a floating-point dtype.

    Args:
      fill: a finite number, or several.
      dtype: of the array that it would go into.
      owner: the argument's name for the error.

    Raises:
      ValueError: if the dtype's largest number is smaller.
    """
    for number in fill if isinstance(fill, tuple) else (fill,):
        if jnp.issubdtype(dtype, jnp.floating) and abs(number) > float(jnp.finfo(dtype).max):
            raise ValueError(must(owner, f"be within the range of dtype {dtype}", fill))


def mean_fill(array: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Returns the mean along some axes, as a constant.

    Args:
      array: any dtype. Its NaN and infinities do not count.
      axes: of size 1 in the result.

    Returns:
      The mean in the array's dtype, rounded in integers; 0 where nothing counts.
    """
    return in_dtype(_moments(array, axes)[0], array.dtype)


def noise_fill(key: jax.Array, array: jax.Array, axes: tuple[int, ...], owner: str) -> jax.Array:
    """Draws normal noise with the mean and the standard deviation along some axes.

    Args:
      key: one typed key. Consumed; do not reuse.
      array: any real dtype. Its NaN and infinities do not count.
      axes: those that the moments are taken along.
      owner: the argument's name for the error.

    Returns:
      An array of the same shape and dtype, rounded in integers.

    Raises:
      TypeError: if the dtype is complex.
    """
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(must(owner, f"be no noise for dtype {array.dtype}", "noise"))
    mean, spread = _moments(array, axes)
    normal = sample_normal(key, array.shape).astype(mean.dtype)
    return in_dtype(mean + spread * normal, array.dtype)


def in_dtype(values: jax.Array, dtype: Any) -> jax.Array:
    """Returns computed values in a dtype: rounded where it is one of integers, and in its range.

    Args:
      values: floating-point or complex numbers.
      dtype: any numeric dtype, or bool, which is True from 0.5 on.

    Returns:
      An array of that dtype and the same shape.
    """
    if dtype == jnp.bool_:
        return values >= 0.5
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return values.astype(dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        largest = np.asarray(jnp.finfo(dtype).max).astype(values.dtype)
        return jnp.clip(values, -largest, largest).astype(dtype)
    bounds = []
    for bound in _integer_range(dtype):
        near = np.asarray(bound).astype(values.dtype)
        # The nearest float may lie outside, where converting is undefined.
        bounds.append(near if abs(int(near)) <= abs(bound) else np.nextafter(near, 0 * near))
    return jnp.clip(jnp.round(values), *bounds).astype(dtype)


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


def widened(array: jax.Array) -> jax.Array:
    """Returns an array in the dtype that is computed in: float32, or more where it holds more."""
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return array
    return array.astype(jnp.float64 if array.dtype.itemsize == 8 else jnp.float32)


def _word_of(dtype: Any) -> Any:
    """Returns the unsigned dtype of the same bits; None for bools, complex and packed numbers."""
    if jnp.issubdtype(dtype, jnp.floating):
        bits = jnp.finfo(dtype).bits
    elif jnp.issubdtype(dtype, jnp.integer):
        bits = jnp.iinfo(dtype).bits
    else:
        return None
    return {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32, 64: jnp.uint64}.get(bits)


def _select_words(keep_mask: jax.Array, array: jax.Array, fill: jax.Array) -> jax.Array:
    """Selects as `where` does, by logic on bits.

    XLA on CPU makes a branch of a `where` whose mask is shared by a few channels, and of one in a
    dtype that a backend lacks it makes conversions: up to sixteen copies where this takes one.
    """
    word = _word_of(array.dtype)
    bits, fill_bits = (jax.lax.bitcast_convert_type(values, word) for values in (array, fill))
    kept = -keep_mask.astype(word)  # all ones, or none
    return jax.lax.bitcast_convert_type(fill_bits ^ ((bits ^ fill_bits) & kept), array.dtype)


_select_floats = jax.custom_jvp(_select_words)


@_select_floats.defjvp
def _select_floats_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    keep_mask, array, fill = primals
    tangent = jnp.where(keep_mask, tangents[1], tangents[2])
    return _select_floats(keep_mask, array, fill), tangent


def _moments(array: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Returns mean and standard deviation of the finite values, at least in float32."""
    wide = widened(jax.lax.stop_gradient(array))
    finite = jnp.isfinite(wide)
    count = jnp.maximum(finite.sum(axes, keepdims=True), 1).astype(wide.real.dtype)
    # Scaled by a power of two, which is exact, so that no sum overflows.
    scale = 2.0 ** -math.ceil(math.log2(max(2, array.size)))
    total = jnp.where(finite, wide * scale, 0).sum(axes, keepdims=True)
    mean = total / (count * scale).astype(total.dtype)
    apart = jnp.where(finite, jnp.abs(wide / 2 - mean / 2), 0)
    largest = jnp.maximum(apart.max(axes, keepdims=True, initial=0), jnp.finfo(count.dtype).tiny)
    squares = ((apart / largest) ** 2).sum(axes, keepdims=True) / count
    return mean, 2 * jnp.minimum(largest * jnp.sqrt(squares), jnp.finfo(count.dtype).max / 4)


def _integer_range(dtype: Any) -> tuple[int, int]:
    if dtype == jnp.bool_:
        return 0, 1
    return int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)
