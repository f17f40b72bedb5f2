"""Random keys: where they come from, and one for each record.

Given a seed, a key or a stream, returns typed keys. Keys of every implementation are taken, legacy
`uint32` ones included. `threefry2x32` is counter-based: `vmap` over its keys is the same as a loop.
Other implementations promise no such thing, so they are always mapped over one by one.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dropax.checks import is_array, leaks, must, require_kind

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


class Rngs:
    """Named streams of random keys, each a seed key and a count.

    With operators the only mutable object of the package. Each call of a stream gives a fresh key,
    `fold_in(stream key, count)`, and adds one to its count. A stream that was not named falls back
    to the default one, which `rngs()` draws from. Threads may share it: no key comes twice.

    Args:
      default: an int seed or a key for the default stream, or None for no such stream.
      **streams: an int seed or a key for each named stream.

    Raises:
      TypeError: if a seed is neither an int nor a key.
      ValueError: if no stream is given, or a seed is not in [0, 2^32); when drawing, if that
        happens under a `jit`, `scan` or the like that the streams were not made in.

    Example:
      >>> rngs = Rngs(0, augment=1)
      >>> first, second = rngs.augment(), rngs["augment"]()
      >>> bool((first == second).any())
      False
      >>> rngs
      Rngs(default: 0 drawn, augment: 2 drawn)
    """

    def __init__(self, default: Any = None, **streams: Any) -> None:
        if default is not None:
            streams = {"default": default, **streams}
        if not streams:
            raise ValueError("Rngs must have a stream; got none. Pass a seed: Rngs(0).")
        self._keys = {name: _seed_key(seed, f"Rngs.{name}") for name, seed in streams.items()}
        self._counts = dict.fromkeys(streams, 0)
        self._lock = threading.RLock()

    def __call__(self) -> jax.Array:
        """Draws a fresh key from the default stream."""
        return self["default"]()

    def __getitem__(self, stream: str) -> Callable[[], jax.Array]:
        name = stream if stream in self._keys else "default"
        if name not in self._keys:
            listed = ", ".join(map(repr, self._keys))
            raise KeyError(
                f"RNG stream {stream!r} not found, nor a default one: Rngs has {listed}."
            )
        return lambda: self._draw(name)

    def __getattr__(self, stream: str) -> Callable[[], jax.Array]:
        # Only reached for what is no attribute. Names with underscores are Python's own look-ups.
        if stream.startswith("_"):
            raise AttributeError(stream)
        try:
            return self[stream]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __contains__(self, stream: str) -> bool:
        return stream in self._keys or "default" in self._keys

    def _draw(self, name: str) -> jax.Array:
        with self._lock:
            key = jax.random.fold_in(self._keys[name], self._counts[name])
            if leaks(key, self._keys[name]):
                raise ValueError(
                    "Rngs must be drawn from outside of jit, scan and the like: the key would be "
                    "drawn once and be the same in every run. Draw it outside and pass it as an "
                    "argument."
                )
            self._counts[name] += 1
        return key

    def __getstate__(self) -> dict[str, Any]:
        return {"_keys": self._keys, "_counts": self._counts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())

    def __repr__(self) -> str:
        return f"Rngs({', '.join(f'{name}: {n} drawn' for name, n in self._counts.items())})"


def draw_key(rngs: Any, stream: str | None, owner: str) -> jax.Array:
    """Draws one fresh key.

    Args:
      rngs: an `Rngs`, an int seed, a key, or anything that gives a key when its stream is called:
        `rngs.<stream>()`, or `rngs()` where it has no such stream.
      stream: the stream's name, or None for the default one.
      owner: the argument's name for the error.

    Returns:
      One typed key. A seed or a key given as such counts as a stream never drawn from.

    Raises:
      TypeError: if `rngs` is none of these, or gives something that is not a key.
      KeyError: if it is an `Rngs` with neither that stream nor a default one.
      ValueError: if a seed is not in [0, 2^32), or several keys are given.
    """
    if isinstance(rngs, Rngs):
        return rngs[stream or "default"]()
    if isinstance(rngs, int) or is_array(rngs):
        return jax.random.fold_in(_seed_key(rngs, owner), 0)
    draw = getattr(rngs, stream or "", rngs)
    if callable(draw):
        return as_key(draw(), f"{owner} when called")
    raise TypeError(must(owner, "be a dropax.Rngs, an int seed or a key", rngs))


def _seed_key(seed: Any, owner: str) -> jax.Array:
    seed = int(seed) if isinstance(seed, np.integer) else seed
    if is_array(seed):
        return as_key(seed, owner)
    require_kind(owner, seed, int, "an int seed or a key")
    if not 0 <= seed < 2**32:
        raise ValueError(must(owner, "be in [0, 2^32)", seed))
    return jax.random.key(seed)
