"""Bernoulli masks: JAX's own bits at close to the speed of a copy.

Given a key, a rate and a shape, returns a keep mask. The stream is JAX's partitionable Threefry
stream, whatever the `jax_threefry_partitionable` flag says: a mask is, bit for bit,
`jax.random.bernoulli(key, float32(1) - float32(rate), shape)`.

JAX lowers Threefry on CPU to a loop over rounds with whole arrays in memory. Here the rounds are
written out on the same counters, so that XLA fuses counter, rounds and compare into one loop that
stores nothing but the mask, and off the CPU not even that. Threefry-2x32-20 is due to Salmon,
Moraes, Dror and Shaw, 2011, "Parallel random numbers: as easy as 1, 2, 3",
doi:10.1145/2063384.2063405.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

STREAM_VERSION = 3
"""Masks are the same for the same key as long as this number is. A change of it is breaking."""

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
GRID = 2**23
"""Rates count on multiples of 1 / GRID, as float32 draws in [0, 1) do."""


# Jitted with `inline=True`: one dispatch when called eagerly, without which a conditional would be
# compiled anew in every call; inlined under an outer jit.
@functools.partial(jax.jit, static_argnames="shape", inline=True)
def sample_bernoulli(key: jax.Array, rate: Any, shape: tuple[int, ...]) -> jax.Array:
    """Draws a keep mask from one Threefry key, of at most 2^32 values.

    Bit for bit `jax.random.bernoulli(key, float32(1) - float32(rate), shape)` of the partitionable
    stream. At a rate of 0 and below all is kept, at 1 and above all is dropped.
    """
    return sample_words(key, shape) >> np.uint32(9) < keep_threshold(rate)


def materialize(draw: Callable[[jax.Array], Any], key: jax.Array) -> Any:
    """Returns `draw(key)`, stored on CPU, where a loop would draw it again, and fused elsewhere.

    Left alone, XLA on CPU draws a mask inside the loop that uses it: once for each value that
    shares it, and in a loop that is vectorized for the size of the values, if at all, which leaves
    the long chains of a draw waiting for each other. What a conditional returns is stored, so there
    the draw is put into one whose condition always holds, but not to the compiler's knowledge. On
    GPU a conditional makes the host wait for the device, and neither GPU nor TPU gains from a
    stored mask.
    """
    draw = jax.jit(draw)  # traced once: for its shapes, and for each platform
    drawn = jax.eval_shape(draw, key)

    def stored(key: jax.Array) -> Any:
        return jax.lax.cond(
            jax.lax.optimization_barrier(jnp.bool_(True)),
            draw,
            # Computed from the key too: under `vmap` and on a mesh both branches are of one type.
            lambda key: jax.tree.map(
                lambda leaf: jnp.broadcast_to(
                    jax.random.key_data(key).ravel()[0] < 0, leaf.shape
                ).astype(leaf.dtype),
                drawn,
            ),
            key,
        )

    return jax.lax.platform_dependent(key, cpu=stored, default=draw)


def sample_words(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws `jax.random.bits(key, shape, uint32)` of the partitionable stream, at most 2^32 words.

    Shifted right by 9 they are `2^23 * jax.random.uniform(key, shape)`: kept if below
    `keep_threshold(rate)`.
    """
    coordinates = [jax.lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in range(len(shape))]
    first, second = _threefry(jax.random.key_data(key), _counters(coordinates, shape))
    return jnp.broadcast_to(first ^ second, shape)


def split_in_two(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns two independent keys, those of `jax.random.split(key)` of the partitionable stream.

    `jax.random.split` itself follows the `jax_threefry_partitionable` flag. `fold_in` does not, and
    returns what `split` does with the flag on.
    """
    return jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)


def sample_words_from(
    key_words: jax.Array, shape: tuple[int, ...], axis: int, start: Any, length: int
) -> jax.Array:
    """Returns `length` positions of `sample_words(key, shape)` from a start along an axis.

    No other words are drawn. `key_words` are the key's `jax.random.key_data`, which a loop may use
    in every step; `start` may be traced.
    """
    part = (*shape[:axis], length, *shape[axis + 1 :])
    coordinates = [jax.lax.broadcasted_iota(jnp.uint32, part, at) for at in range(len(shape))]
    coordinates[axis] = coordinates[axis] + jnp.asarray(start, jnp.uint32)
    first, second = _threefry(key_words, _counters(coordinates, shape))
    return first ^ second


def normal_from(words: jax.Array) -> jax.Array:
    """Turns random words into normal numbers, as `jax.random.normal` does."""
    # The upper 23 bits as the digits of a float32 in [1, 2), then shifted to [0, 1).
    exponent_of_one = np.uint32(0x3F800000)
    unit = jax.lax.bitcast_convert_type(words >> np.uint32(9) | exponent_of_one, jnp.float32) - 1
    # Uniform in (-1, 1): at -1 the inverse of the error function is infinite.
    least = np.nextafter(np.float32(-1), np.float32(0))
    uniform = jnp.maximum(least, unit * (np.float32(1) - least) + least)
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)


def whole_below(words: jax.Array, bound: Any) -> jax.Array:
    """Returns `floor(words * bound / 2^32)`: random integers in [0, bound), or 0 if the bound is 0.

    Each has its equal share of the 2^32 words, to within one. `bound` is uint32 and may be traced.
    """
    return _multiply_high(words, jnp.asarray(bound, jnp.uint32))


def drop_units(rate: Any) -> jax.Array:
    """Returns how many of the 2^23 equally likely draws drop a value."""
    return np.uint32(GRID) - keep_threshold(rate)


def keep_threshold(rate: Any) -> jax.Array:
    """Returns how many of the 2^23 equally likely draws mean "kept".

    It is `ceil((float32(1) - float32(rate)) * 2^23)` within [0, 2^23], uint32, so that comparing
    integers is comparing `uniform(key) < 1 - rate` exactly. 0 for NaN.
    """
    keep = jnp.float32(1) - jnp.asarray(rate).astype(jnp.float32)
    scaled = jnp.ceil(keep * np.float32(GRID))
    # NaN compares as false, so that it drops all, as JAX's own `uniform < nan` does.
    saturated = jnp.where(scaled > 0, jnp.minimum(scaled, np.float32(GRID)), np.float32(0))
    return saturated.astype(jnp.uint32)


def _counters(coordinates: Sequence[jax.Array], shape: tuple[int, ...]) -> Any:
    """Returns the row-major index, uint32, of elements at coordinates, one array for each axis."""
    index: Any = np.uint32(0)
    for axis, coordinate in enumerate(coordinates):
        index = index + coordinate * np.uint32(math.prod(shape[axis + 1 :]) % 2**32)
    return index


def _multiply_high(left: Any, right: Any) -> Any:
    """Returns the upper word of the product of two words, by 16-bit halves."""
    half, mask = np.uint32(16), np.uint32(0xFFFF)
    left_high, left_low, right_high, right_low = (
        left >> half,
        left & mask,
        right >> half,
        right & mask,
    )
    cross_a, cross_b = left_low * right_high, left_high * right_low
    middle = ((left_low * right_low) >> half) + (cross_a & mask) + (cross_b & mask)
    return left_high * right_high + (cross_a >> half) + (cross_b >> half) + (middle >> half)


# Jitted: its rounds are traced once, and not again at each level of `vmap`, `cond` and platform.
@jax.jit
def _threefry(key_words: jax.Array, counters: Any) -> tuple[jax.Array, jax.Array]:
    """Encrypts counters, of which the upper word is 0, by Threefry-2x32 with 20 rounds."""
    schedule = (key_words[0], key_words[1], key_words[0] ^ key_words[1] ^ _PARITY)
    first, second = schedule[0], schedule[1] + counters
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            first = first + second
            left, right = np.uint32(rotation), np.uint32(32 - rotation)
            second = first ^ ((second << left) | (second >> right))
        first = first + schedule[(group + 1) % 3]
        # The round's constant is added to the key's word first: once a record, not once a value.
        second = second + (schedule[(group + 2) % 3] + np.uint32(group + 1))
    return first, second
