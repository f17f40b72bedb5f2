"""Random keys, and one for each record.

Given a key, returns typed keys. Keys of every implementation are taken, legacy
`uint32` ones included. `threefry2x32` is counter-based: `vmap` over its keys is the same as a loop.
Other implementations promise no such thing, so they are always mapped over one by one.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from dropax.kit.errors import must

Out = TypeVar("Out")


def as_keys(key: Any, owner: str) -> jax.Array:
    """Returns typed keys for typed or legacy ones.

    Args:
      key: a typed key array of any shape, or a legacy `uint32` array of shape
        `(..., words of a key)` for JAX's default implementation.
      owner: the argument's name for the error.

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
    """Returns one typed key, as `as_keys` does; raises a ValueError for an array of keys."""
    typed = as_keys(key, owner)
    if typed.shape != ():
        raise ValueError(must(owner, "be one key, of shape ()", typed))
    return typed


def record_keys(key: Any, batch_size: int, owner: str) -> jax.Array:
    """Returns one key for each record of a batch, shape `(batch_size,)`.

    Args:
      key: one key for the batch, of which record i gets `fold_in(key, i)`; or `(batch_size,)` keys,
        which are returned as they are.
      batch_size: how many records there are.
      owner: the argument's name for the error.

    Raises:
      TypeError: if `key` is no key.
      ValueError: if there are several keys, but not one for each record.
    """
    keys = as_keys(key, owner)
    if keys.shape == ():
        return fold_in_each(keys, jnp.arange(batch_size, dtype=jnp.uint32))
    if keys.shape != (batch_size,):
        raise ValueError(must(owner, f"have shape () or ({batch_size},), one per record", keys))
    return keys


def fold_in_each(key: jax.Array, numbers: jax.Array) -> jax.Array:
    """Returns `jax.random.fold_in(key, n)` for each number: typed keys, one a number.

    Args:
      key: one typed key. It may be reused with other `numbers`.
      numbers: uint32, shape (n,).
    """
    return map_over_keys(lambda n: jax.random.fold_in(key, n), numbers, key)


def map_over_keys(function: Callable[[Any], Out], records: Any, key: jax.Array) -> Out:
    """Calls a function on each record and stacks the results, which do not depend on their number.

    Args:
      function: of one record; draws from keys of the implementation of `key`.
      records: a tree of arrays with a leading axis.
      key: a typed key, or several. With a counter-based implementation the records are mapped at
        once (`vmap`), else one after the other (`lax.map`).
    """
    return jax.vmap(function)(records) if is_counter_based(key) else jax.lax.map(function, records)


def is_counter_based(key: jax.Array) -> bool:
    """Says whether `vmap` over keys of this implementation equals a loop."""
    return str(jax.random.key_impl(key)) == "threefry2x32"


def refuse_shared_key(key: jax.Array, data: Any, owner: str, cure: str = "") -> None:
    """Raises a ValueError if every shard of a manual axis would draw the same, where JAX shows it.

    Args:
      key: what is drawn from.
      data: what it is drawn for.
      owner: the argument's name for the error.
      cure: what else would do.
    """
    # A manual axis that an array is known to vary over stands in its type.
    varying = [
        frozenset(getattr(getattr(jax.typeof(leaf), "manual_axis_type", None), "varying", ()))
        for leaf in (jax.random.key_data(key), *jax.tree.leaves(data))
    ]
    shared = sorted(frozenset().union(*varying[1:]) - varying[0])
    if shared:
        axis = shared[0]
        message = must(owner, f"vary over the manual axis {axis!r} as the data does", key)
        fold = f"jax.random.fold_in(key, jax.lax.axis_index({axis!r}))"
        raise ValueError(
            f"{message} Every shard would draw the same masks. {cure}Fold its place in: {fold}."
        )
