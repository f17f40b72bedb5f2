"""Random keys: where keys of every kind become Threefry keys, and one for each record."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from dropax.kit.errors import must
from dropax.kit.process import Process


def as_keys(key: Any, name: str) -> jax.Array:
    """Returns Threefry keys for typed keys of any shape, or legacy keys; else a TypeError."""
    Process.require_own()
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return threefry_key(key)
    if getattr(key, "dtype", None) == jnp.uint32 and getattr(key, "ndim", 0) >= 1:
        try:
            return threefry_key(jax.random.wrap_key_data(key))
        except TypeError:
            pass  # the wrong number of words: the error below says what is wanted
    raise TypeError(
        must(name, "be a PRNG key", key, "Make one with jax.random.key(0), or pass legacy keys.")
    )


def as_key(key: Any, name: str) -> jax.Array:
    """Returns one Threefry key, as `as_keys` does; raises a ValueError for an array of keys."""
    typed = as_keys(key, name)
    if typed.shape != ():
        raise ValueError(must(name, "be one key, of shape ()", typed))
    return typed


def batch_keys(key: Any, batch_shape: tuple[int, ...], name: str) -> jax.Array:
    """Returns a key for each record: the keys that were given, or `fold_in(key, i)` by position."""
    keys = as_keys(key, name)
    if keys.shape == () and batch_shape:
        numbers = jnp.arange(math.prod(batch_shape), dtype=jnp.uint32)
        return jax.vmap(jax.random.fold_in, (None, 0))(keys, numbers).reshape(batch_shape)
    if keys.shape != batch_shape:
        constraint = f"have shape {' or '.join(dict.fromkeys(('()', str(batch_shape))))}"
        raise ValueError(must(name, f"{constraint}, one per record", keys))
    return keys


def threefry_key(key: jax.Array) -> jax.Array:
    """Returns Threefry keys for keys of any implementation, so that there is one stream.

    `vmap` over keys of `rbg` draws something else than each key alone, so that masks would depend
    on the batch; and drawing from them one by one takes a loop over records. So the words of any
    other key are hashed: folded one after the other into a key of this package.
    """
    if str(jax.random.key_impl(key)) == "threefry2x32":
        return key
    words = jax.random.key_data(key)

    def hashed(words: jax.Array) -> jax.Array:
        salt = jnp.array([0x64726F70, words.shape[0]], jnp.uint32)  # "drop", and how many words
        salted = jax.random.wrap_key_data(salt, impl="threefry2x32")
        for word in words:
            salted = jax.random.fold_in(salted, word)
        return salted

    keys: jax.Array = jax.vmap(hashed)(words.reshape(-1, words.shape[-1])).reshape(key.shape)
    return keys


def seed_key(seed: int) -> jax.Array:
    """Returns the Threefry key of a seed in [0, 2^32), whatever JAX's settings are.

    `jax.random.key(seed)` follows `jax_default_prng_impl` and `jax_random_seed_offset`.
    """
    Process.require_own()
    return jax.random.wrap_key_data(jnp.array([0, seed], jnp.uint32), impl="threefry2x32")


def varying_axes(tree: Any) -> frozenset[str]:
    """Returns the manual mesh axes that the arrays of a tree vary over, as their types say."""
    types = [jax.typeof(leaf) for leaf in jax.tree.leaves(tree)]
    axes = [getattr(getattr(one, "manual_axis_type", None), "varying", ()) for one in types]
    return frozenset().union(*axes)


def refuse_shared_key(key: jax.Array, data: Any, name: str, cure: str = "") -> None:
    """Refuses a key of which JAX shows that all shards of a manual axis would draw the same."""
    shared = sorted(varying_axes(data) - varying_axes(jax.random.key_data(key)))
    if shared:
        axis = shared[0]
        message = must(name, f"vary over the manual axis {axis!r} as the data does", key)
        fold = f"jax.random.fold_in(key, jax.lax.axis_index({axis!r}))"
        raise ValueError(
            f"{message} Every shard would draw the same masks. {cure}Fold its place in: {fold}."
        )
