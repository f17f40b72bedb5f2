"""Random keys, and one for each record.

Given a key, returns typed keys. Keys of every implementation are taken, legacy
`uint32` ones included. `threefry2x32` is counter-based: `vmap` over its keys is the same as a loop.
Other implementations promise no such thing, so they are always mapped over one by one.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from dropax.kit.errors import is_array, must

Out = TypeVar("Out")


def as_keys(key: Any, owner: str) -> jax.Array:
    """Returns typed keys for typed or legacy ones.

    Args:
      key: a typed key array of any shape, or a legacy `uint32` array of shape
        `(..., words of a key)` for JAX's default implementation.
      owner: the argument's name for the error.

    Returns:
      A typed key array.

    Raises:
      TypeError: if `key` is neither.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if getattr(key, "dtype", None) == jnp.uint32 and getattr(key, "ndim", 0) >= 1:
        try:
            return jax.random.wrap_key_data(key)
        except TypeError:
            pass  # the wrong number of words: the error below says what is wanted
    raise TypeError(
        must(owner, "be a PRNG key", key, "Make one with jax.random.key(0), or pass legacy keys.")
    )


def as_key(key: Any, owner: str) -> jax.Array:
    """Returns one typed key, as `as_keys` does, and refuses several.

    Args:
      key: a typed or legacy key.
      owner: the argument's name for the error.

    Returns:
      A typed key of shape ().

    Raises:
      TypeError: if `key` is no key.
      ValueError: if it is an array of keys.
    """
    typed = as_keys(key, owner)
    if typed.shape != ():
        raise ValueError(must(owner, "be one key, of shape ()", typed))
    return typed


def record_keys(key: Any, batch_size: int, owner: str) -> jax.Array:
    """Returns one key for each record of a batch.

    Args:
      key: one key for the batch, of which record i gets `fold_in(key, i)`; or `(batch_size,)` keys,
        which are returned as they are.
      batch_size: how many records there are.
      owner: the argument's name for the error.

    Returns:
      Typed keys, shape `(batch_size,)`.

    Raises:
      TypeError: if `key` is no key.
      ValueError: if there are several keys, but not one for each record; or more records than 2^32.
    """
    keys = as_keys(key, owner)
    if batch_size > 2**32:  # their numbers would start again
        raise ValueError(must("a batch", "have at most 2^32 records", batch_size))
    if keys.shape == ():
        return fold_in_each(keys, jnp.arange(batch_size, dtype=jnp.uint32))
    if keys.shape != (batch_size,):
        raise ValueError(must(owner, f"have shape () or ({batch_size},), one per record", keys))
    return keys


# Jitted, as a loop (`map_records`) that is called eagerly would be compiled anew in every call.
@functools.partial(jax.jit, inline=True)
def fold_in_each(key: jax.Array, numbers: jax.Array) -> jax.Array:
    """Returns `jax.random.fold_in(key, n)` for each number, in the numbers' shape.

    Args:
      key: one typed key. Deriving from it does not use it up for other numbers.
      numbers: uint32, any shape.

    Returns:
      Typed keys in that shape.
    """
    flat = map_records(
        lambda n: jax.random.fold_in(key, n), numbers.reshape(-1), is_counter_based(key)
    )
    return flat.reshape(numbers.shape)


def map_keys(draw: Callable[[jax.Array], Out], keys: jax.Array) -> Out:
    """Calls a function on each key and stacks what it returns.

    Args:
      draw: a function of one typed key.
      keys: typed keys, shape (n,).

    Returns:
      What `draw` returns, with a leading axis of n: the same whatever n is.
    """
    return map_records(draw, keys, is_counter_based(keys))


def map_records(function: Callable[[Any], Out], records: Any, at_once: bool) -> Out:
    """Calls a function on each record, at once (`vmap`) or one after the other (`lax.map`)."""
    return jax.vmap(function)(records) if at_once else jax.lax.map(function, records)


def is_counter_based(key: jax.Array) -> bool:
    """Says whether `vmap` over keys of this implementation equals a loop."""
    return str(jax.random.key_impl(key)) == "threefry2x32"


def refuse_shared_key(key: jax.Array, data: Any, owner: str, cure: str = "") -> None:
    """Refuses to give every shard of manual axes the same masks, where JAX lets us see it.

    Args:
      key: what masks are drawn from.
      data: what they are drawn for.
      owner: the argument's name for the error.
      cure: what else would do.

    Raises:
      ValueError: if the data varies over a manual axis that the key does not vary over.
    """
    manual: frozenset[str] = frozenset().union(
        *(_manual_axes(leaf) for leaf in jax.tree.leaves(data))
    )
    shared = sorted(manual - _manual_axes(jax.random.key_data(key)))
    if shared:
        axis = shared[0]
        message = must(owner, f"vary over the manual axis {axis!r} as the data does", key)
        fold = f"jax.random.fold_in(key, jax.lax.axis_index({axis!r}))"
        raise ValueError(
            f"{message} Every shard would draw the same masks. {cure}Fold its place in: {fold}."
        )


def _manual_axes(leaf: Any) -> frozenset[str]:
    """Returns the manual axes that an array is known to vary over, as its type says."""
    if not is_array(leaf):
        return frozenset()
    axes = getattr(jax.typeof(leaf), "manual_axis_type", None)
    return frozenset(getattr(axes, "varying", ()))
