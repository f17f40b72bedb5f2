"""Exact numbers: how many of several units are chosen, and which.

A unit is whatever drops as a whole: a cell, a channel, a group of channels. All is done in
integers, so it is the same on every device, and in static shapes, so that a rate may be traced.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import GRID, drop_units, sample_words, whole_below

_SHIFT = np.uint32(9)  # from multiples of 2^-23, in which rates count, to multiples of 2^-32
# Up to so many units it is fastest to compare all pairs: on CPU than the steps of a bisection, and
# elsewhere than sorting.
_FEW, _SEVERAL = 32, 256


def sample_exactly(
    key: jax.Array, rate: Any, units: int, *, min_kept: int = 0, may_drop: jax.Array | None = None
) -> jax.Array:
    """Draws which units are kept: all but `draw_count` of those that may drop, at random."""
    words = sample_words(key, (1 + units,))
    ranks, number = words[1:], jnp.uint32(units)
    if may_drop is not None:
        # What may not drop is kept first.
        ranks = jnp.where(may_drop, jnp.maximum(ranks, np.uint32(1)), np.uint32(0))
        number = may_drop.sum(dtype=jnp.uint32)
    dropped = draw_count(words[0], rate, number)
    kept = np.uint32(units) - jnp.minimum(dropped, np.uint32(units - min_kept))
    return choose_lowest(ranks, kept)


def draw_count(word: jax.Array, rate: Any, units: Any) -> jax.Array:
    """Draws how many units drop, uint32: `rate * units`, rounded at random if it is not whole.

    Its expectation is `rate * units`. If that is whole, as far as a rate in multiples of 2^-23 can
    tell, it is always that number.
    """
    whole, part = _product(rate, units)
    return whole + (word < part).astype(jnp.uint32)


def expected_count(rate: Any, units: int, most: int) -> jax.Array:
    """Returns the mean of `min(draw_count(word, rate, units), most)`, float32 scalar."""
    whole, part = _product(rate, units)
    share = part.astype(jnp.float32) / np.float32(2**32)
    low, high = (jnp.minimum(count, np.uint32(most)) for count in (whole, whole + np.uint32(1)))
    return low.astype(jnp.float32) * (1 - share) + high.astype(jnp.float32) * share


def _product(rate: Any, units: Any) -> tuple[jax.Array, jax.Array]:
    """Returns `rate * units` as its whole part and what is left in multiples of 2^-32, uint32."""
    steps, units = drop_units(rate), jnp.asarray(units, jnp.uint32)
    # With rate = steps / 2^23 the product is (steps * 2^9) * units / 2^32: the upper word of a
    # product of two words is whole, the lower one is the rest. (At rate 1 the factor is 2^32.)
    scaled = steps << _SHIFT
    whole, part = whole_below(scaled, units), scaled * units
    # A rate such as 0.6 is no multiple of 2^-23: from its rounding to float32, that of `1 - rate`
    # and that to a multiple, it is off by up to 1.5 of them. What is as near to a whole number as
    # that counts as whole. (Of millions of units every product is, and is rounded to the nearest.)
    slack = jnp.minimum(units, np.uint32(2**22)) * np.uint32(3 << 8)
    slack = jnp.clip(slack, np.uint32(1), np.uint32(2**31))
    is_above = part >= np.uint32(0) - slack
    part = jnp.where(is_above | (part <= slack), np.uint32(0), part)
    whole = whole + is_above.astype(jnp.uint32)
    return jnp.where(steps == GRID, units, whole), part


def choose_lowest(words: jax.Array, count: jax.Array) -> jax.Array:
    """Returns True for exactly the `count` units with the lowest words, the first of equal ones."""
    if words.shape[0] <= _FEW:
        return _lowest_of_pairs(words, count)
    off_cpu = _lowest_of_pairs if words.shape[0] <= _SEVERAL else _lowest_by_sorting
    return jax.lax.platform_dependent(words, count, cpu=_lowest_by_bisection, default=off_cpu)


def choose_by_size(
    words: jax.Array, sizes: jax.Array, total: jax.Array, word: jax.Array
) -> jax.Array:
    """Returns True for the units with the lowest words, so many that their sizes make up a total.

    The last of them is chosen as often as makes that exact in expectation; `word` draws it. Sizes
    are uint32; if all are 1, it is `choose_lowest`.
    """
    if words.shape[0] <= _SEVERAL:
        before = jnp.where(_pairs_in_order(words), sizes, np.uint32(0)).sum(
            axis=1, dtype=jnp.uint32
        )
        return before + whole_below(word, sizes) < total
    position = jnp.arange(words.shape[0], dtype=jnp.uint32)
    _, places, ordered = jax.lax.sort((words, position, sizes), num_keys=2)
    before = jnp.cumsum(ordered, dtype=jnp.uint32) - ordered
    chosen = before + whole_below(word, ordered) < total
    return jax.lax.sort((places, chosen), num_keys=1)[1]


# Units are ordered by (word, position), which no two have in common.
def _lowest_of_pairs(words: jax.Array, count: jax.Array) -> jax.Array:
    """`choose_lowest` by counting for each unit the units before it."""
    return _pairs_in_order(words).sum(axis=1, dtype=jnp.uint32) < count


def _pairs_in_order(words: jax.Array) -> jax.Array:
    """Says for each unit which units are before it."""
    position = jnp.arange(words.shape[0], dtype=jnp.uint32)
    is_tie = (words[None] == words[:, None]) & (position[None] < position[:, None])
    return (words[None] < words[:, None]) | is_tie


def _lowest_by_sorting(words: jax.Array, count: jax.Array) -> jax.Array:
    """`choose_lowest` by comparing with the last unit that is chosen, found by sorting."""
    position = jnp.arange(words.shape[0], dtype=jnp.uint32)
    ordered, places = jax.lax.sort((words, position), num_keys=2)
    last = jnp.maximum(count, np.uint32(1)) - np.uint32(1)
    word, place = ordered[last], places[last]
    chosen = (words < word) | ((words == word) & (position <= place))
    return chosen & (count > 0)


def _lowest_by_bisection(words: jax.Array, count: jax.Array) -> jax.Array:
    """Does as `choose_lowest` by finding the bound below which `count` units are, bit by bit.

    Sorting takes ten times as long on CPU; elsewhere each step of this loop launches kernels.
    """
    position = jnp.arange(words.shape[0], dtype=jnp.uint32)
    bits = int(words.shape[0]).bit_length()

    def is_below(bound: tuple[jax.Array, jax.Array]) -> jax.Array:
        word, place = bound
        return (words < word) | ((words == word) & (position < place))

    def set_bit(step: Any, bound: tuple[jax.Array, jax.Array]) -> Any:
        at = np.uint32(31 + bits) - jnp.asarray(step, jnp.uint32)
        is_word = at >= bits
        bit = np.uint32(1) << jnp.where(is_word, at - np.uint32(bits), at)
        word, place = bound
        tried = word | jnp.where(is_word, bit, 0), place | jnp.where(is_word, 0, bit)
        fits = is_below(tried).sum(dtype=jnp.uint32) <= count
        return jnp.where(fits, tried[0], word), jnp.where(fits, tried[1], place)

    # Computed from the words, so that it varies over the manual axes (`shard_map`) that they do.
    zero = words.sum(dtype=jnp.uint32) * np.uint32(0)
    return is_below(jax.lax.fori_loop(0, 32 + bits, set_bit, (zero, zero)))
