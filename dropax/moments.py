"""Means and noise of an image: what computed fills are, in every dtype.

Means are exact if all values are equal, whatever the dtype and the order that values are summed in,
and noise is that of `jax.random.normal`. On CPU both work on parts of the image in turn, which
takes less memory.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import normal_from, sample_words, sample_words_from


# Jitted with `inline=True`: one dispatch when called eagerly, without which
# loops would be compiled anew in each call; inlined under an outer jit.
@functools.partial(jax.jit, static_argnames="axes", inline=True)
def mean_fill(array: jax.Array, axes: tuple[int, ...], where: Any = None) -> jax.Array:
    """Returns the mean along axes of what is finite and in `where`, as a constant to gradients.

    Exact if all values are equal, in every dtype; rounded in integers; 0 if nothing counts.
    """
    pivot, offset, _ = _moments(array, axes, where)
    return _moved(pivot, offset)


@functools.partial(jax.jit, static_argnames="axes", inline=True)
def noise_fill(
    key: jax.Array, array: jax.Array, axes: tuple[int, ...], where: Any = None
) -> jax.Array:
    """Draws normal noise with the mean and the standard deviation along some axes, as `mean_fill`.

    Before rounding it is `mean + deviation * jax.random.normal(key, shape, float32)`.
    """
    shape, dtype = array.shape, array.dtype
    pivot, offset, deviation = _moments(array, axes, where)

    def noise_of(words: jax.Array) -> jax.Array:
        return _moved(pivot, offset + deviation * normal_from(words).astype(offset.dtype))

    def at_once(key: jax.Array) -> jax.Array:
        return noise_of(sample_words(key, shape))

    def in_parts(key: jax.Array) -> jax.Array:
        axis, length = _parts(shape, axes)
        key_words = jax.random.key_data(key)

        def start_of(part: Any) -> Any:
            # The last part overlaps the one before if it would be shorter, and repeats its numbers.
            return jnp.clip(part * length, 0, shape[axis] - length)

        def words_of(part: Any) -> jax.Array:
            return sample_words_from(key_words, shape, axis, start_of(part), length)

        def add(part: Any, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            noise, words = state
            rows = _as_bits(noise_of(words))
            noise = jax.lax.dynamic_update_slice_in_dim(noise, rows, start_of(part - 1), axis)
            return noise, words_of(part)

        # The words of a part are drawn one step ahead and stored between the steps: one loop that
        # draws and computes the noise as well is not vectorized, and takes ten times as long. The
        # first step has no words yet, and what it writes is written over by the second. It starts
        # from a word, not from zeros, so that on a mesh the state is of one type throughout.
        word = sample_words_from(key_words, (1,) * len(shape), 0, 0, 1)
        words = jnp.broadcast_to(word, (*shape[:axis], length, *shape[axis + 1 :]))
        noise = jnp.broadcast_to(_as_bits(noise_of(word)), shape)
        noise, _ = jax.lax.fori_loop(0, 1 - shape[axis] // -length, add, (noise, words))
        return _from_bits(noise, dtype)

    if not array.size or not axes:
        return at_once(key)
    return jax.lax.platform_dependent(key, cpu=in_parts, default=at_once)


def in_dtype(values: jax.Array, dtype: Any) -> jax.Array:
    """Returns computed values in a dtype: rounded for integer dtypes, and clipped to its range."""
    if dtype == jnp.bool_:
        return values >= 0.5
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return values.astype(dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        info = jnp.finfo(dtype)
        least, most = (np.asarray(bound).astype(values.dtype) for bound in (info.min, info.max))
        return jnp.clip(values, least, most).astype(dtype)
    bounds = []
    for bound in integer_range(dtype):
        near = np.asarray(bound).astype(values.dtype)
        # The nearest float may lie outside the range; converting it is undefined.
        bounds.append(near if abs(int(near)) <= abs(bound) else np.nextafter(near, 0 * near))
    return jnp.clip(jnp.round(values), *bounds).astype(dtype)


def widened(array: jax.Array) -> jax.Array:
    """Returns an array in the dtype that is computed in: float32, or float64 for 64-bit dtypes."""
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        return array
    return array.astype(jnp.float64 if array.dtype.itemsize == 8 else jnp.float32)


def _moments(
    array: jax.Array, axes: tuple[int, ...], where: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (pivot, offset, deviation) of the finite values, as constants.

    The mean is pivot + 2 * offset, the standard deviation 2 * deviation: halves, as the distance
    between two finite numbers may overflow. The pivot has the array's dtype, the others are at
    least float32.
    """
    array = jax.lax.stop_gradient(array)
    count: Any = math.prod(array.shape[axis] for axis in axes)
    if not count:
        shape = [1 if axis in axes else size for axis, size in enumerate(array.shape)]
        pivot = jnp.zeros(shape, array.dtype)
        return pivot, widened(pivot), widened(pivot).real
    # Distances from one of the values are 0 if all are equal, and so is their mean, in whatever
    # order and precision they are summed up.
    pivot = array[tuple(slice(1 if axis in axes else None) for axis in range(array.ndim))]
    # A power of two, by which it is exact to multiply, so that no sum overflows.
    scale = 2.0 ** -math.ceil(math.log2(count))
    if jnp.issubdtype(array.dtype, jnp.inexact):
        pivot = in_dtype(jnp.where(_is_finite(pivot), widened(pivot), 0), array.dtype)
    if where is not None or jnp.issubdtype(array.dtype, jnp.inexact):
        counted = _sum(lambda part: jnp.ones(part.shape, jnp.float32), array, axes, where)
        count = jnp.maximum(counted, 1)

    def average(values: Callable[[jax.Array], jax.Array]) -> jax.Array:
        def scaled(part: jax.Array) -> jax.Array:
            return values(widened(part) / 2 - widened(pivot) / 2) * scale

        total = _sum(scaled, array, axes, where)
        return total / jnp.asarray(count * scale, total.dtype)

    offset = average(lambda apart: apart)
    # Squares of distances in units of the mean distance neither overflow nor all vanish: their mean
    # is between 1 and the count.
    unit = average(lambda apart: jnp.abs(apart - offset))
    unit = jnp.maximum(unit, jnp.finfo(unit.dtype).tiny)
    squares = average(lambda apart: (jnp.abs(apart - offset) / unit) ** 2)
    return pivot, offset, unit * jnp.sqrt(squares)


def _sum(
    values: Callable[[jax.Array], jax.Array], array: jax.Array, axes: tuple[int, ...], where: Any
) -> jax.Array:
    """Returns the sum of `values(array)`, of what is finite, along axes that stay with size 1.

    XLA on CPU stores what it sums up, in the dtype that it sums up in: for 8-bit images several
    times their memory. So there a loop adds up parts of the array first.
    """

    def counted(part: jax.Array, where: Any) -> jax.Array:
        counts = _is_finite(part) if where is None else _is_finite(part) & where
        return jnp.where(counts, values(part), 0)

    def at_once(array: jax.Array, where: Any) -> jax.Array:
        return counted(array, where).sum(axes, keepdims=True)

    def in_parts(array: jax.Array, where: Any) -> jax.Array:
        axis, length = _parts(array.shape, axes)
        count = array.shape[axis] // length
        bits = _as_bits(array)

        def rows(start: Any, length: int) -> jax.Array:
            part = jax.lax.dynamic_slice_in_dim(bits, start, length, axis)
            here = where
            if where is not None and where.shape[axis] > 1:
                here = jax.lax.dynamic_slice_in_dim(where, start, length, axis)
            return counted(_from_bits(part, array.dtype), here)

        def add(part: Any, total: jax.Array) -> jax.Array:
            return total + rows(part * length, length)

        total = jax.lax.fori_loop(1, count, add, rows(0, length)).sum(axes, keepdims=True)
        rest = array.shape[axis] - count * length
        if rest:
            total = total + rows(count * length, rest).sum(axes, keepdims=True)
        return total

    if not axes or not array.size:
        return at_once(array, where)
    return jax.lax.platform_dependent(array, where, cpu=in_parts, default=at_once)


def _parts(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int]:
    """Returns which axis to cut so that 32 parts or fewer take turns, and the length of a part."""
    axis = max(axes, key=lambda axis: shape[axis])
    return axis, -(shape[axis] // -32)


def _as_bits(array: jax.Array) -> jax.Array:
    """Returns 16-bit floats as words: XLA on CPU widens all of them to cut out a part."""
    if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize == 2:
        return jax.lax.bitcast_convert_type(array, jnp.uint16)
    return array


def _from_bits(bits: jax.Array, dtype: Any) -> jax.Array:
    return bits if bits.dtype == dtype else jax.lax.bitcast_convert_type(bits, dtype)


def _is_finite(array: jax.Array) -> Any:
    return not jnp.issubdtype(array.dtype, jnp.inexact) or jnp.isfinite(widened(array))


def _moved(pivot: jax.Array, half: jax.Array) -> jax.Array:
    """Returns pivot + 2 * half in the pivot's dtype: rounded in integers, and in its range."""
    # The pivot and the sum are finite, and the pivot plus one half is between them.
    moved = in_dtype(widened(pivot) + half + half, pivot.dtype)
    # The dtype that is computed in does not hold every integer of 32 bits and more.
    return jnp.where(half == 0, pivot, moved)


def integer_range(dtype: Any) -> tuple[int, int]:
    """Returns the lowest and the highest value of an integer dtype, or of bools."""
    if dtype == jnp.bool_:
        return 0, 1
    return int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)
