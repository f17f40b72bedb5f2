"""Random keys of every implementation, legacy `uint32` ones included, and one for each record."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

from dropax.kit.errors import must

Out = TypeVar("Out")

COUNTER_BASED = ("threefry2x32", "threefry4x32", "philox2x32", "philox4x32")
"""Implementations for which `vmap` over keys equals a loop."""


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
    """Returns `fold_in(key, n)` for each number, uint32 of shape (n,); the key may be reused."""
    return jax.vmap(functools.partial(fold_in, key))(numbers)


def fold_in(key: jax.Array, number: Any) -> jax.Array:
    """Returns `jax.random.fold_in(key, number)`, under any `vmap` too."""
    return draw_alone(jax.random.fold_in, key, number)


def draw_alone(draw: Callable[..., Out], key: jax.Array, *arguments: Any) -> Out:
    """Calls `draw(key, *arguments)` so that under any `vmap` each key draws as it does alone.

    Keys of counter-based implementations do so by themselves. JAX maps `rbg` and `unsafe_rbg` keys
    in another way, which draws something else for all keys but the first, so there it is a loop.

    Args:
      draw: a function of one typed key. Gradients to its arguments are cut.
      key: one typed key.
      *arguments: arrays or numbers that may be batched too.
    """
    if str(jax.random.key_impl(key)) in COUNTER_BASED:
        return draw(key, *arguments)
    return sequential_vmap(draw)(key, *jax.lax.stop_gradient(arguments))


def varying_axes(tree: Any) -> frozenset[str]:
    """Returns the manual mesh axes that the arrays of a tree vary over, as their types say."""
    types = [jax.typeof(leaf) for leaf in jax.tree.leaves(tree)]
    axes = [getattr(getattr(one, "manual_axis_type", None), "varying", ()) for one in types]
    return frozenset().union(*axes)


def refuse_shared_key(key: jax.Array, data: Any, owner: str, cure: str = "") -> None:
    """Raises a ValueError if JAX shows that every shard of a manual axis would draw the same.

    Args:
      key: what is drawn from.
      data: what it is drawn for.
      owner: the argument's name for the error.
      cure: what else would do.
    """
    shared = sorted(varying_axes(data) - varying_axes(jax.random.key_data(key)))
    if shared:
        axis = shared[0]
        message = must(owner, f"vary over the manual axis {axis!r} as the data does", key)
        fold = f"jax.random.fold_in(key, jax.lax.axis_index({axis!r}))"
        raise ValueError(
            f"{message} Every shard would draw the same masks. {cure}Fold its place in: {fold}."
        )
