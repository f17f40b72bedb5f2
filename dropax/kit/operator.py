"""`ModalityOperator`: an operator as an object, the base to write others on.

It holds a config, a state, and where its key came from. With `Rngs`, operators are the only mutable
objects of the package.
"""

import copy
import functools
import logging
import multiprocessing
import os
import threading
import warnings
from collections.abc import Iterable
from typing import Any, Self, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, keystr, register_pytree_with_keys, tree_flatten_with_path

from dropax.kit.batch import Batch, Element
from dropax.kit.batching import AnyBatch, engine_of, ids_of
from dropax.kit.config import OperatorConfig
from dropax.kit.errors import is_array, is_by_value, is_traced, leaks, must, require_kind
from dropax.kit.keys import seed_key
from dropax.kit.process import atomic
from dropax.kit.rngs import draw_key
from dropax.kit.state import OperatorState, init_state, load_state, save_state, word_count
from dropax.kit.trees import copy_tree

logger = logging.getLogger(__name__)

_MISSING: Any = object()
_COUNTS = ("applied_count", "skipped_count")
_UNSHARED = ("_cache", "_lock", "_layout", "_is_copy", "_has_warned")
_OWN = ("config", "rngs", "name", "_state", "_process", *_UNSHARED)


class ModalityOperator:
    """An operator on elements: the base to write others on.

    A subclass defines `apply`, and, if it can be stochastic, `generate_random_params`. Both run
    compiled, on a copy of the operator whose arrays and floats are traced. A stochastic operator
    draws one key from its stream when it is made; that key and the number of draws since are all
    its randomness. Threads may share an operator: no draw is repeated and no count lost, but which
    thread gets which draw is open.

    An operator is a pytree of its config, its state, and the attributes that a subclass sets. Of
    these, arrays and floats are leaves: a change is seen in the next call, without a compilation.
    Ints, bools, strings and whatever else is hashable by value are static: a change compiles anew.
    Lists, tuples, dicts and other pytrees may hold both. Anything else is a TypeError when the
    operator is called; it belongs into the config or on the class.

    Args:
      config: what is fixed.
      rngs: where a stochastic operator gets its key from: a `dropax.Rngs`, an int seed, a key, or
        any object whose streams return a key when called. A deterministic one needs none. As an
        attribute, None after the operator went through a pytree.
      name: for people to read.

    Raises:
      TypeError: if an argument is of the wrong type.
      ValueError: if the config is stochastic and `rngs` is None.
      KeyError: if `rngs` has neither the config's stream nor a default one.
    """

    config_type: type[OperatorConfig] = OperatorConfig

    # Runs the two methods of an operator, which takes the place of the config.
    _engine = engine_of(
        lambda operator, *given: _lost(operator).generate_random_params(*given),
        lambda operator, *given: _lost(operator).apply(*given),
    )

    config: Any
    rngs: Any
    name: str | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register_pytree_with_keys(cls, _flatten, functools.partial(_unflatten, cls))

    def __init__(self, config: Any, *, rngs: Any = None, name: str | None = None) -> None:
        self._configure(config, rngs, name)
        self._state = init_state(config, self._draw_key() if self.stochastic else None)
        self._process = os.getpid()
        self._reset()

    def _reset(self) -> None:
        """Makes what no other operator shares, and no checkpoint or pytree holds."""
        self._cache: dict[Any, Any] = {}
        self._layout: dict[Any, list[bool]] = {}  # which parts of attributes are leaves
        self._is_copy = False  # in a compiled step, which keeps nothing of it
        self._has_warned = False
        self._lock = threading.RLock()

    def _configure(self, config: Any, rngs: Any, name: str | None) -> None:
        cls, kind = type(self).__name__, self.config_type
        require_kind(f"{cls}.config", config, kind, f"a {kind.__name__}")
        require_kind(f"{cls}.name", name, str | None, "a string or None")
        self.config, self.rngs, self.name = config, rngs, name

    def _draw_key(self) -> jax.Array:
        name = f"{type(self).__name__}.rngs"
        if self.rngs is None:
            cure = "Pass rngs=dropax.Rngs(0)."
            raise ValueError(must(name, "be given if the config is stochastic", None, cure))
        return draw_key(self.rngs, self.stream_name, name)

    @property
    def stochastic(self) -> bool:
        """Whether each record gets its own mask at each call."""
        return bool(self.config.stochastic)

    @property
    def stream_name(self) -> str | None:
        """Which stream of `rngs` the key came from; None for the default one."""
        name: str | None = self.config.stream_name
        return name

    @property
    def batch_strategy(self) -> str:
        """Whether a batch is worked on at once, "vmap", or record by record, "scan"."""
        return str(self.config.batch_strategy)

    @property
    @atomic
    def state(self) -> OperatorState:
        """The operator's state, as the pure functions take it; a copy, which may be donated."""
        return copy_tree(self._state)

    def generate_random_params(
        self, rng: jax.Array, data_shapes: dict[str, Any]
    ) -> dict[str, jax.Array] | None:
        """Draws what `apply` needs, for a whole batch. None unless a subclass says otherwise.

        Args:
          rng: B keys, one for each record; `jax.vmap` over them. Under "scan", B is 1.
          data_shapes: the shape of each field, (B, ...).

        Returns:
          Arrays of shape (B, ...), or None if the operator is deterministic.

        Raises:
          NotImplementedError: if the operator is stochastic and its class does not define this.
        """
        del rng, data_shapes
        if self.stochastic:
            raise NotImplementedError(
                f"{type(self).__name__} is stochastic, so it must define generate_random_params."
            )
        return None

    def apply(
        self,
        data: dict[str, Any],
        state: Any,
        metadata: Any,
        random_params: dict[str, Any] | None = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], Any, Any]:
        """Works on one element. A subclass must define it.

        Raises:
          NotImplementedError: always, here.
        """
        raise NotImplementedError(f"{type(self).__name__} must define apply.")

    def _run_batch(
        self, batch: Any, record_ids: Any, epoch: Any, stats: dict[str, Any] | None
    ) -> tuple[Any, OperatorState]:
        """The pure `apply_batch` of this operator's two methods."""
        return self._engine.apply_batch(self, self._state, batch, record_ids, epoch, stats)

    @overload
    def apply_batch(
        self,
        batch: AnyBatch,
        stats: dict[str, Any] | None = None,
        *,
        record_ids: Any = None,
        epoch: Any = None,
    ) -> AnyBatch: ...

    @overload
    def apply_batch(
        self,
        batch: dict[str, Any],
        stats: dict[str, Any] | None,
        metadata: Any,
        *,
        record_ids: Any = None,
        epoch: Any = None,
    ) -> tuple[dict[str, Any], Any, Any]: ...

    @atomic
    def apply_batch(
        self,
        batch: Any,
        stats: dict[str, Any] | None = None,
        metadata: Any = _MISSING,
        *,
        record_ids: Any = None,
        epoch: Any = None,
    ) -> Any:
        """Works on each record of a batch, and advances the state; see `dropax.apply_batch`.

        `apply_batch(batch, stats=None)` takes a `Batch` or a dict of arrays and returns the same
        kind. With a third argument, as `apply_batch(data, states, metadata)`, it returns the three.

        Args:
          batch: a `Batch`, or a dict of arrays of shape (B, ...).
          stats: for `apply`; None for `get_statistics()`. In the second form, the records' states:
            a dict of arrays of shape (B, ...), which may be empty.
          metadata: in the second form, anything; returned as it is.
          record_ids: as for `dropax.apply_batch`.
          epoch: see there.

        Raises:
          KeyError, TypeError, ValueError: as `dropax.apply_batch`; ValueError too if the operator
            is stochastic and was captured in a closure under `jit`, which would bake one mask in.
        """
        if metadata is not _MISSING:
            states = {} if stats is None else stats
            method = f"{type(self).__name__}.apply_batch"
            noun = "a dict of arrays if metadata is given"
            require_kind(f"{method}.batch", batch, dict, noun)
            require_kind(f"{method}.stats", states, dict, noun)
            whole = Batch.unchecked(batch, states)
            out = self.apply_batch(whole, record_ids=record_ids, epoch=epoch)
            return out.data, out.states if stats else stats, metadata
        stochastic = self.config.stochastic
        in_worker = self._process != os.getpid() and multiprocessing.parent_process() is not None
        if stochastic and in_worker and ids_of(batch, record_ids) is None:
            warnings.warn(
                f"this {type(self).__name__} was made in another process: every worker that has a "
                "copy draws the same. Pass record_ids and an epoch, or make the operator in the "
                "worker, with a seed of its own.",
                stacklevel=3,
            )
        out, state = self._run_batch(batch, record_ids, epoch, stats)
        self._store(state, "apply_batch", drew=stochastic)
        return out

    def __call__(
        self,
        batch: AnyBatch,
        stats: dict[str, Any] | None = None,
        *,
        record_ids: Any = None,
        epoch: Any = None,
    ) -> AnyBatch:
        """Works on a batch, as `apply_batch(batch, stats)` does."""
        return self.apply_batch(batch, stats, record_ids=record_ids, epoch=epoch)

    def get_output_structure(self, sample_data: Any, sample_state: Any) -> tuple[Any, Any]:
        """Returns (data, state) as `apply` returns them, with None for leaves.

        The data of an element, or its shapes (`jax.ShapeDtypeStruct`). Its state may hold anything.
        """
        data, state = self._trace(sample_data, sample_state)
        return jax.tree.map(lambda _: None, data), state

    def output_spec(self, input_spec: Any) -> Any:
        """Returns the shapes and dtypes of the data that `apply` returns, with every field it adds.

        Given and returned are `jax.ShapeDtypeStruct` for arrays, as data or as an `Element`.
        """
        if isinstance(input_spec, Element):
            return input_spec.replace(data=self._trace(input_spec.data, input_spec.state)[0])
        return self._trace(input_spec, {})[0]

    def _trace(self, data: Any, state: Any) -> tuple[Any, Any]:
        """Returns the spec of the data that `apply` returns, and the structure of the state."""
        name = f"{type(self).__name__}: the structure of an element's data"
        require_kind(name, data, dict, "a dict of arrays or of their shapes")
        leaves, structure = jax.tree.flatten(state)
        arrays = {place: leaf for place, leaf in enumerate(leaves) if is_array(leaf)}

        def run(operator: Any, data: Any, arrays: dict[int, Any], key: jax.Array) -> Any:
            whole = [arrays.get(place, leaf) for place, leaf in enumerate(leaves)]
            operator, state, params = _lost(operator), jax.tree.unflatten(structure, whole), None
            if self.stochastic:
                shapes = jax.tree.map(lambda leaf: (1, *leaf.shape), data)
                params = operator.generate_random_params(key[None], shapes)
                params = jax.tree.map(lambda leaf: leaf[0], params)
            data, state, _ = operator.apply(data, state, {}, params, self.get_statistics())
            return data, jax.tree.map(lambda _: None, state)

        # On a copy, which keeps what is traced.
        return jax.eval_shape(run, self, data, arrays, seed_key(0))

    def _store(self, new_state: OperatorState, method: str, *, drew: bool) -> None:
        """Keeps a new state, unless that would leave a tracer in a concrete operator."""
        if self._is_copy or leaks(new_state, self._state):
            if drew:
                raise ValueError(
                    f"{type(self).__name__}.{method} was called under jit, scan or the like on a "
                    "stochastic operator from outside: it would draw the same mask in every run. "
                    "Pass the operator as an argument and return it, "
                    "jax.jit(lambda op, batch: (op.apply_batch(batch), op)), or use "
                    "dropax.apply_batch(op.config, op.state, batch), which returns the new state."
                )
            return
        self._state = new_state

    def get_operation_stats(self) -> dict[str, int]:
        """Returns how many records were worked on, and how many left alone, outside of jit."""
        if is_traced(self._state):
            raise ValueError("get_operation_stats must be called outside of jit.")
        return {name: word_count(getattr(self._state, name)) for name in _COUNTS}

    @atomic
    def reset_operation_stats(self) -> None:
        """Sets both counts to zero."""
        zeros = {name: jnp.zeros_like(getattr(self._state, name)) for name in _COUNTS}
        self._state = self._state.replace(**zeros)

    def compute_statistics(self, data: Any) -> dict[str, Any] | None:
        """Returns what the config's `batch_stats_fn` computes of data, if there is one; keeps it.

        Raises:
          TypeError: if the function returns no dict.
          ValueError: if the statistics are traced and the operator is not.
        """
        if self.config.batch_stats_fn is None:
            return None
        self._keep_statistics(self.config.batch_stats_fn(data), "what batch_stats_fn returns")
        return self.get_statistics()

    @atomic
    def get_statistics(self) -> dict[str, Any] | None:
        """Returns a copy of the statistics that were set or computed last, or the precomputed ones.

        None if there are none, or if they were reset since.
        """
        return copy_tree(self._state.statistics)

    def set_statistics(self, stats: dict[str, Any]) -> None:
        """Sets the statistics, also after a reset: a dict, which is copied.

        Raises:
          TypeError: if it is no dict.
          ValueError: if it is traced and the operator is not.
        """
        self._keep_statistics(stats, "set_statistics.stats")

    @atomic
    def reset_statistics(self) -> None:
        """Forgets the statistics, precomputed ones included, until some are set or computed."""
        self._state = self._state.replace(statistics=None)

    @atomic
    def _keep_statistics(self, stats: Any, source: str) -> None:
        name = f"{type(self).__name__}: {source}"
        require_kind(name, stats, dict, "a dict")
        if leaks(stats, self._state):
            cure = "Compute them outside of jit, or pass the operator to it as an argument."
            raise ValueError(must(name, "not be traced", "tracers", cure))
        self._state = self._state.replace(statistics=copy_tree(stats))

    def reset_cache(self) -> None:
        """Forgets the masks that a cacheable operator kept."""
        self._cache.clear()

    @atomic
    def copy(self, *, config: Any = None, rngs: Any = None, name: str | None = None) -> Self:
        """Makes a copy, with some parts changed.

        Args:
          config: another config, or None for this one. If it brings other precomputed statistics,
            the copy starts with them.
          rngs: where to draw a new key from; None keeps the key, the step and the counts.
          name: another name, or None for this one.

        Raises:
          TypeError: if an argument is of the wrong type.
          ValueError: if a key is needed and there are no `rngs` to draw it from.
        """
        twin = copy.copy(self)
        vars(twin).update(copy.deepcopy(_own(self)))
        twin._configure(
            self.config if config is None else config,
            self.rngs if rngs is None else rngs,
            self.name if name is None else name,
        )
        if twin.stochastic and (rngs is not None or not self.stochastic):
            twin._state = init_state(twin.config, twin._draw_key())
        statistics = twin.config.precomputed_stats
        if twin.config.same_statistics(self.config):
            statistics = self._state.statistics
        twin._state = copy_tree(twin._state.replace(statistics=statistics))
        return twin

    def clone(self) -> Self:
        """Makes a copy with the same state, that draws the same masks from here on."""
        twin = self.copy()
        twin.rngs = copy.deepcopy(self.rngs)
        return twin

    def get_state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint, as `dropax.save_state` does; see `set_state`."""
        if is_traced(self._state):
            raise ValueError("get_state must be called outside of jit; the state is traced.")
        return save_state(self._state)

    @atomic
    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned, also of an operator made with another seed.

        Strict: if anything does not fit, the operator stays as it was.

        Raises:
          TypeError: if `state` is no dict.
          ValueError: if an entry is missing, unknown or not what it must be; the message names it.
        """
        require_kind("set_state.state", state, dict, "a dict as get_state returns it")
        self._state = load_state(state)
        logger.debug("%r: state restored", self)

    def requires_rng_streams(self) -> list[str] | None:
        """Returns the streams that the operator draws from; None for a deterministic one."""
        return [self.stream_name or "default"] if self.stochastic else None

    def ensure_rng_streams(self, stream_names: Iterable[str]) -> None:
        """Checks that the streams it draws from are among these; "default" stands in for any.

        Raises:
          TypeError: if it is no list of strings.
          ValueError: if a required stream is missing.
        """
        if isinstance(stream_names, str) or not isinstance(stream_names, Iterable):
            name = f"{type(self).__name__}.ensure_rng_streams.stream_names"
            raise TypeError(must(name, "be a list of strings", stream_names))
        there = list(stream_names)
        for stream in self.requires_rng_streams() or ():
            if stream not in there and "default" not in there:
                raise ValueError(f"RNG stream {stream!r} is required; got {there}.")

    def __getstate__(self) -> dict[str, Any]:
        return {name: part for name, part in vars(self).items() if name not in _UNSHARED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    def __repr__(self) -> str:
        name = "" if self.name is None else f", name={self.name!r}"
        kind = "" if self.stochastic else ", deterministic"
        return f"{type(self).__name__}({self.config!r}{name}{kind}, state={self._state!r})"


def _lost(part: Any) -> Any:
    """Says of an operator in a compiled step, and of those in it, that what they keep is lost."""
    if isinstance(part, ModalityOperator):
        part._is_copy = True
        jax.tree.map(_lost, _own(part), is_leaf=lambda own: isinstance(own, ModalityOperator))
    return part


def _own(operator: ModalityOperator) -> dict[str, Any]:
    """Returns the attributes that a subclass has set."""
    return {name: part for name, part in vars(operator).items() if name not in _OWN}


def _is_dynamic(part: Any) -> bool:
    """Says whether a part of an attribute is a leaf of the operator's pytree."""
    if isinstance(part, np.ndarray):
        return part.dtype.kind not in "OSUMm"  # such as text, which JAX does not take
    return isinstance(part, float | complex | np.inexact | jax.Array | jax.ShapeDtypeStruct)


def _flatten(operator: ModalityOperator) -> Any:
    """Returns the children of an operator by key, and its static part."""
    # None counts as a part: it may be the axis of an array in a tree of axes.
    found, structure = tree_flatten_with_path(_own(operator), is_leaf=lambda part: part is None)
    # A tree of axes or shapes has other leaves in the places that are dynamic.
    known = operator._layout.get(structure) or [_is_dynamic(part) for _, part in found]
    # Donating an operator must not delete an array that the caller, or another one, holds, and what
    # a dispatched call reads must not be changed in place.
    children = [
        (GetAttrKey("config"), copy_tree(operator.config)),
        (GetAttrKey("state"), operator._state),
    ]
    static: list[Any] = []
    for is_leaf, (path, part) in zip(known, found, strict=True):
        name = keystr(path, simple=True, separator=".")
        if is_leaf:
            children.append((GetAttrKey(name), copy_tree(part)))
        elif not is_by_value(part):
            constraint = "be an array, a number, or hashable by value"
            cure = "Put it into the config or on the class, or make its class a frozen dataclass."
            raise TypeError(must(f"{type(operator).__name__}.{name}", constraint, part, cure))
        static.append(None if is_leaf else (type(part), part))  # 1 and True are equal
    return children, (operator.name, structure, tuple(static))


def _unflatten(cls: type[ModalityOperator], rest: Any, children: Any) -> ModalityOperator:
    operator = object.__new__(cls)
    operator.config, operator._state, *leaves = children
    operator.name, structure, static = rest
    rest = iter(leaves)
    parts = [next(rest) if part is None else part[1] for part in static]
    vars(operator).update(jax.tree.unflatten(structure, parts))
    operator.rngs, operator._process = None, os.getpid()
    operator._reset()
    operator._layout[structure] = [part is None for part in static]
    return operator
