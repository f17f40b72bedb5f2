"""What an operator carries from call to call, and how it is saved and restored.

`OperatorState` is a frozen pytree: it goes through `jit`, `scan`, donation and checkpoints like any
other tree of arrays.
"""

import contextlib
import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.kit.config import OperatorConfig
from dropax.kit.errors import is_array, is_traced, must, names, require_kind
from dropax.kit.keys import as_key, seed_key, threefry_key
from dropax.kit.process import Process
from dropax.kit.trees import copy_tree, register_pytree, summarize

CHECKPOINT_VERSION = 1


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class OperatorState:
    """Base key, step, counts and statistics; `init_state` returns one.

    Attributes:
      key: one typed key. With `step` it is all the randomness of an operator.
      step: uint32, how many times randomness was drawn. After 2^32 draws it starts again.
      applied_count: records that dropout ran on, in two uint32 words (high, low).
      skipped_count: records that were left alone, in two uint32 words (high, low).
      statistics: a dict for `apply`'s `stats`, or None.
    """

    key: jax.Array
    step: jax.Array
    applied_count: jax.Array
    skipped_count: jax.Array
    statistics: dict[str, Any] | None = None

    def replace(self, **changes: Any) -> "OperatorState":
        """Returns a new state with some attributes replaced."""
        return dataclasses.replace(self, **changes)

    def next_key(self) -> jax.Array:
        """Returns the key of the current step: `fold_in(key, step)`."""
        return jax.random.fold_in(threefry_key(self.key), self.step)

    def advance(self) -> "OperatorState":
        """Returns the state of the next step."""
        return dataclasses.replace(self, step=self.step + np.uint32(1))

    def __repr__(self) -> str:
        parts = {name: getattr(self, name) for name in _FIELDS}
        with contextlib.suppress(Exception):  # traced, mapped over, donated, or without arrays
            saved = save_state(self.replace(statistics=None))
            saved["key"] = f"{saved['key_impl']}{saved['key_data']}"
            parts |= {name: saved[name] for name in _FIELDS if name in saved}
        shown = ", ".join(f"{name}={summarize(part)}" for name, part in parts.items())
        return f"OperatorState({shown})"


_FIELDS = tuple(field.name for field in dataclasses.fields(OperatorState))
register_pytree(OperatorState, _FIELDS)


def init_state(config: OperatorConfig, key: Any = None) -> OperatorState:
    """Returns the state that `apply_batch` threads through, at step 0.

    Args:
      config: static field used: `stochastic`. Its `precomputed_stats` are the first statistics.
      key: one typed or legacy key; all randomness of the state comes from it. Do not use it
        elsewhere. It is copied: donating the state never invalidates the caller's key. A
        deterministic config needs none; a key given to one is a UserWarning.

    Returns:
      The state, with counts of 0.

    Raises:
      TypeError: if `key` is no key, or is left out though the config is stochastic.
      ValueError: if it is an array of keys.

    Example:
      >>> config = OperatorConfig(stochastic=True)
      >>> init_state(config, jax.random.key(0)).step
      Array(0, dtype=uint32)
    """
    require_kind("init_state.config", config, OperatorConfig, "a config")
    if not config.stochastic:
        if key is None:
            key = seed_key(0)
        else:
            warnings.warn(
                "init_state was given a key for a deterministic config, which draws nothing. Pass "
                "stochastic=True to the config, or no key.",
                stacklevel=2,
            )
    return new_state(as_key(key, "init_state.key"), config.precomputed_stats)


def new_state(key: jax.Array, statistics: dict[str, Any] | None = None) -> OperatorState:
    """Returns a state at step 0 with counts of zero, whose buffers are its own."""
    zero = jnp.zeros((), jnp.uint32)
    words = jnp.zeros((2,), jnp.uint32)
    return OperatorState(copy_tree(key), zero, words, words + words, copy_tree(statistics))


def word_count(words: Any) -> int:
    """Returns the number in two words (high, low) as a Python int."""
    high, low = (int(word) for word in np.asarray(words))
    return (high << 32) + low


def save_state(state: OperatorState) -> dict[str, Any]:
    """Returns a concrete state as a dict of plain arrays, numbers and strings.

    Args:
      state: a concrete state.

    Returns:
      A dict that `numpy.savez`, pickle, msgpack or Orbax (as a PyTree) can store: `version`,
      `key_data`, `key_impl`, `step`, `applied_count`, `skipped_count`, and, if there are any,
      `statistics`, a dict (which `numpy.load` returns only with `allow_pickle=True`).

    Raises:
      ValueError: if the state is traced.

    Example:
      >>> state = init_state(OperatorConfig(stochastic=True), jax.random.key(0))
      >>> save_state(state)["key_data"]
      array([0, 0], dtype=uint32)
    """
    if is_traced(state):
        raise ValueError("save_state must be called outside of jit; the state is traced.")
    saved: dict[str, Any] = {
        "version": CHECKPOINT_VERSION,
        "key_data": np.array(jax.random.key_data(state.key)),
        "key_impl": str(jax.random.key_impl(state.key)),
        "step": int(state.step),
        "applied_count": word_count(state.applied_count),
        "skipped_count": word_count(state.skipped_count),
    }
    if state.statistics is not None:
        saved["statistics"] = jax.tree.map(
            lambda leaf: np.array(leaf) if is_array(leaf) else leaf, state.statistics
        )
    return saved


def load_state(saved: Any) -> OperatorState:
    """Returns the state that `save_state` wrote. Strict: nothing is guessed.

    Args:
      saved: the dict, or one that was stored and read back; numbers and strings may have become
        arrays without axes.

    Returns:
      An equal state.

    Raises:
      TypeError: if `saved` is no dict.
      ValueError: if an entry is missing, unknown, or not what it must be; the message names it.

    Example:
      >>> load_state({})
      Traceback (most recent call last):
      ValueError: state entry 'version' not found: the state has nothing.
    """
    Process.require_own()
    if not isinstance(saved, dict):
        raise TypeError(must("load_state.saved", "be a dict as save_state returns it", saved))
    wanted = ("version", "key_data", "key_impl", "step", "applied_count", "skipped_count")
    for name in wanted:
        if name not in saved:
            raise ValueError(f"state entry {name!r} not found: the state has {names(saved)}.")
    for name in saved:
        if name not in (*wanted, "statistics"):
            raise ValueError(f"state entry {name!r} is unknown: expected {', '.join(wanted)}.")
    version = _saved_int(saved, "version")
    if version != CHECKPOINT_VERSION:
        raise ValueError(must("state entry 'version'", f"be {CHECKPOINT_VERSION}", version))
    statistics = saved.get("statistics")
    if isinstance(statistics, np.ndarray) and statistics.dtype == object and statistics.ndim == 0:
        statistics = statistics.item()  # as `numpy.savez` stores a dict
    if statistics is not None and not isinstance(statistics, dict):
        raise ValueError(must("state entry 'statistics'", "be a dict or None", statistics))
    return OperatorState(
        _saved_key(saved),
        jnp.asarray(_saved_int(saved, "step", 32), jnp.uint32),
        _words(_saved_int(saved, "applied_count", 64)),
        _words(_saved_int(saved, "skipped_count", 64)),
        copy_tree(statistics),
    )


def _words(number: int) -> jax.Array:
    return jnp.asarray([number >> 32, number & 0xFFFFFFFF], jnp.uint32)


def _saved_int(saved: dict[str, Any], name: str, bits: int = 32) -> int:
    value = saved[name]
    whole = isinstance(value, int) and not isinstance(value, bool)
    if is_array(value):
        whole = value.shape == () and jnp.issubdtype(value.dtype, jnp.integer)
    if not whole or not 0 <= int(value) < 2**bits:
        raise ValueError(must(f"state entry {name!r}", f"be an int in [0, 2^{bits})", value))
    return int(value)


def _saved_key(saved: dict[str, Any]) -> jax.Array:
    impl, data = saved["key_impl"], saved["key_data"]
    if getattr(data, "dtype", None) != np.uint32:
        raise ValueError(must("state entry 'key_data'", "be an array of dtype uint32", data))
    try:
        key = jax.random.wrap_key_data(jnp.array(data, copy=True), impl=str(np.asarray(impl)))
        return as_key(key, "state entry 'key_data'")
    except (TypeError, ValueError) as error:
        message = must("state entries 'key_impl' and 'key_data'", "make one key", (impl, data))
        raise ValueError(f"{message} {error}") from None
