"""Named streams of random keys: `Rngs`, and anything that may stand in for one."""

import threading
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dropax.kit.errors import is_array, leaks, must, require_kind
from dropax.kit.keys import as_key, seed_key
from dropax.kit.process import atomic


class Rngs:
    """Named streams of random keys, each a seed key and a count.

    `Rngs` and operators are the only mutable objects of the package. Each call of a stream returns
    a fresh key, `fold_in(stream key, count)`, and adds one to its count. The stream key of the
    default stream is that of its seed; a named stream folds its name in, so that streams of one
    seed differ. A stream that was not named falls back to the default one, which `rngs()` draws
    from. Threads may share it: no key is returned twice.

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
        self._keys = {name: _stream_key(name, seed) for name, seed in streams.items()}
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

    @atomic
    def _draw(self, name: str) -> jax.Array:
        key = jax.random.fold_in(self._keys[name], self._counts[name])
        if leaks(key, self._keys[name]):
            raise ValueError(
                "Rngs must be drawn from outside of jit, scan and the like: the key would be drawn "
                "once and be the same in every run. Draw it outside and pass it as an argument."
            )
        self._counts[name] += 1
        return key

    def __getstate__(self) -> dict[str, Any]:
        return {"_keys": self._keys, "_counts": self._counts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())

    def __repr__(self) -> str:
        return f"Rngs({', '.join(f'{name}: {n} drawn' for name, n in self._counts.items())})"


def draw_key(rngs: Any, stream: str | None, name: str) -> jax.Array:
    """Draws one fresh typed key from a named stream, or from the default one if that is None.

    `rngs` is an `Rngs`, an int seed, a key, or anything that returns a key when its stream is
    called: `rngs.<stream>()`, or `rngs()` if it has no such stream. A seed or a key counts as a
    stream never drawn from.
    """
    if isinstance(rngs, Rngs):
        return rngs[stream or "default"]()
    if isinstance(rngs, int) or is_array(rngs):
        return jax.random.fold_in(_seed_key(rngs, name), 0)
    draw = getattr(rngs, stream or "", rngs)
    if callable(draw):
        return as_key(draw(), f"{name} when called")
    raise TypeError(must(name, "be a dropax.Rngs, an int seed or a key", rngs))


def _stream_key(name: str, seed: Any) -> jax.Array:
    key = _seed_key(seed, f"Rngs.{name}")
    if name == "default":
        return key
    return jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))


def _seed_key(seed: Any, name: str) -> jax.Array:
    seed = int(seed) if isinstance(seed, np.integer) else seed
    if is_array(seed):
        return as_key(seed, name)
    require_kind(name, seed, int, "an int seed or a key")
    if not 0 <= seed < 2**32:
        raise ValueError(must(name, "be in [0, 2^32)", seed))
    return seed_key(seed)
