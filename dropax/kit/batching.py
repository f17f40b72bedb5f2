"""From one record to a batch.

`RecordEngine` runs two functions, one that draws for records and one that works on a record, over
the records of a batch: all at once (`vmap`) or one after the other (`scan`), with a key for each
record. `apply_batch`, `batched` and the operators are edges over it. Its methods take their
arguments in the order config, state, records, ids; `params` are those of one record.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dropax.kit.arrays import as_array, as_numbers, require_taken
from dropax.kit.batch import Batch
from dropax.kit.config import OperatorConfig
from dropax.kit.errors import must
from dropax.kit.fields import by_path, leading_size
from dropax.kit.ids import as_epoch, as_record_ids, id_keys
from dropax.kit.keys import batch_keys, refuse_shared_key, varying_axes
from dropax.kit.meshes import explicit_mesh, over_mesh
from dropax.kit.process import Process
from dropax.kit.state import OperatorState

AnyBatch = TypeVar("AnyBatch", Batch, dict[str, Any])
Params = dict[str, Any] | None
_KEY = "apply_batch.op_state.key"


class ApplyBatch(Protocol):
    """The type of the function that `batched` returns."""

    def __call__(
        self,
        config: Any,
        op_state: OperatorState,
        batch: AnyBatch,
        stats: dict[str, Any] | None = None,
        *,
        record_ids: Any = None,
        epoch: Any = None,
    ) -> tuple[AnyBatch, OperatorState]:
        """Works on a batch; see `dropax.apply_batch` for the arguments."""
        ...


def batched(
    generate_random_params: Callable[[Any, jax.Array, Any], Params],
    apply: Callable[..., tuple[Any, Any, Any]],
    *,
    is_active: Callable[[Any, Params], Any] | None = None,
    is_shared: Callable[[Any], bool] | None = None,
) -> ApplyBatch:
    """Builds an `apply_batch` from user-supplied `generate_random_params` and `apply`.

    The result is pure and goes into any `jit`. If the config is stochastic, the key of the call is
    `fold_in(op_state.key, op_state.step)`, record i draws from `fold_in(that, i)`, and the step
    then advances by one. With record ids and an epoch, record keys follow from these and
    `op_state.key` alone. What a record draws depends on nothing else: not on the batch size, the
    strategy, or the number of devices.

    Args:
      generate_random_params: `(config, keys, data_shapes) -> params`, with keys of shape (n,) and a
        tree of shapes that start with n. Each leaf of the params has a leading axis of n. Under
        "scan", n is 1. Only called if the config is stochastic.
      apply: `(config, data, state, metadata, random_params, stats) -> (data, state, metadata)` on
        one record. Metadata stays on the host, so it is given an empty dict.
      is_active: `(config, params) -> bools`: whether anything changes at all, for all records of
        the params or for each. Records for which it is false are counted as skipped. None for
        always.
      is_shared: `(config) -> bool`: whether all records get what the first one draws. None for
        never.

    Returns:
      The function `(config, op_state, batch, stats=None, *, record_ids=None, epoch=None) ->
      (batch, op_state)`. `batch` is a `Batch` or a dict of arrays of shape (B, ...), and the result
      is of the same type.

    Example:
      >>> from dropax import init_state
      >>> def draw(config, keys, data_shapes):
      ...     return {"gain": jax.vmap(lambda key: jax.random.uniform(key, (), minval=0.5))(keys)}
      >>> def scale(config, data, state, metadata, random_params=None, stats=None):
      ...     return {"image": data["image"] * random_params["gain"]}, state, metadata
      >>> apply_batch = batched(draw, scale)
      >>> config = OperatorConfig(stochastic=True)
      >>> state = init_state(config, jax.random.key(0))
      >>> images = {"image": jnp.ones((4, 8, 8, 3))}
      >>> out, state = apply_batch(config, state, images)
      >>> out["image"].shape, int(state.step)
      ((4, 8, 8, 3), 1)
    """
    engine = engine_of(generate_random_params, apply, is_active, is_shared)

    def apply_batch(
        config: OperatorConfig,
        op_state: OperatorState,
        batch: Any,
        stats: dict[str, Any] | None = None,
        *,
        record_ids: Any = None,
        epoch: Any = None,
    ) -> tuple[Any, OperatorState]:
        out, new_state = engine.apply_batch(config, op_state, batch, record_ids, epoch, stats)
        warn_if_baked(config, op_state, new_state, batch, record_ids)
        return out, new_state

    return apply_batch


def engine_of(
    generate_random_params: Callable[[Any, jax.Array, Any], Params],
    apply: Callable[..., tuple[Any, Any, Any]],
    is_active: Callable[[Any, Params], Any] | None = None,
    is_shared: Callable[[Any], bool] | None = None,
) -> "RecordEngine":
    """Returns the engine of two functions, which `batched` describes."""

    def draw(config: Any, keys: jax.Array, records: Any) -> Params:
        shapes = jax.tree.map(lambda leaf: (*keys.shape, *leaf.shape[1:]), records[0])
        return generate_random_params(config, keys, shapes)

    def work(config: Any, record: Any, params: Params, stats: Any) -> Any:
        data, state, _ = apply(config, *record, {}, params, stats)
        return data, state

    return RecordEngine(
        select=lambda config, parts, stats: (_taken(parts), jax.tree.map(_checked, stats)),
        merge=lambda config, parts, records: records,
        draw=draw,
        work=work,
        constant=lambda config, records: None,
        is_active=is_active or (lambda config, params: True),
        is_shared=is_shared or (lambda config: False),
    )


def _taken(parts: tuple[Any, Any]) -> tuple[Any, Any]:
    """Returns the data and states of a batch; refuses what does not go through `jit`, as text."""
    for path, leaf in by_path({"data": parts[0], "states": parts[1]}):
        require_taken(leaf, f"leaf {path!r}", "Put it into the metadata.")
    return parts


def _checked(leaf: Any) -> Any:
    """Returns a leaf of a user's statistics as it goes through `jit`: a number, or an array."""
    is_number = isinstance(leaf, int | float | complex)
    return leaf if is_number else as_numbers(leaf, "apply_batch.stats")


@dataclasses.dataclass(frozen=True, eq=False)
class RecordEngine:
    """Draws for the records of a batch, works on them, and counts them.

    Its methods share their arguments, in this order: `config`, an `OperatorConfig`, or any pytree
    with the attributes `stochastic` and `batch_strategy`; `state`, an `OperatorState`; `records`, a
    tree of arrays of shape (B, ...); which `ids` they have, or `keys` of shape (B,); `params`, what
    every record gets, None to draw; `stats`, for `work`.

    Attributes:
      select: `(config, (data, states), stats) -> (records, stats)`: what goes through `jit`.
      merge: `(config, (data, states), records) -> (data, states)`: the outputs in place.
      draw: `(config, keys, records) -> params`, with a leading axis of as many records as keys.
        Of `records` only the shapes behind the leading axis matter.
      work: `(config, record, params, stats) -> record`, on one record.
      constant: `(config, records) -> params`: what every record gets if nothing is drawn.
      is_active: `(config, params) -> bools`, as for `batched`.
      is_shared: `(config) -> bool`, as for `batched`.
    """

    select: Callable[[Any, Any, Any], tuple[Any, Any]]
    merge: Callable[[Any, Any, Any], tuple[Any, Any]]
    draw: Callable[[Any, jax.Array, Any], Any]
    work: Callable[[Any, Any, Any, Any], Any]
    constant: Callable[[Any, Any], Any]
    is_active: Callable[[Any, Any], Any]
    is_shared: Callable[[Any], bool]

    def apply_batch(
        self,
        config: Any,
        state: OperatorState,
        batch: Any,
        record_ids: Any,
        epoch: Any,
        stats: Any,
        constant: Callable[[Any], Params] | None = None,
    ) -> tuple[Any, OperatorState]:
        """Works on a batch, in one dispatch if called eagerly; see `dropax.apply_batch`.

        `constant` returns what every record gets, known beforehand, for the records; None to draw.
        """
        Process.require_own()
        if not isinstance(state, OperatorState):
            raise TypeError(must("apply_batch.op_state", "be an OperatorState", state))
        parts = records_of(batch)
        if parts is None:
            return batch, state
        records, stats = self.select(config, parts, state.statistics if stats is None else stats)
        record_ids, ids = ids_of(batch, record_ids), None
        if config.stochastic and (record_ids is not None or epoch is not None):
            size = jax.tree.leaves(records)[0].shape[0]
            ids = identify(record_ids, epoch, size=size, shared=self.is_shared(config))
        valid = getattr(batch, "valid_mask", None)
        params = None if constant is None else constant(records)
        # Statistics may hold anything, and pass by the compiled function.
        bare = dataclasses.replace(state, statistics=None)
        records, new = self.step(config, bare, records, ids, valid, params, stats)
        data, states = self.merge(config, parts, records)
        out = batch.with_parts(data, states) if isinstance(batch, Batch) else data
        return out, dataclasses.replace(new, statistics=state.statistics)

    # One dispatch when called eagerly, inlined under an outer jit.
    @functools.partial(jax.jit, static_argnums=0, inline=True)
    def step(
        self,
        config: Any,
        state: OperatorState,
        records: Any,
        ids: tuple[Any, Any] | None,
        valid: Any,
        params: Params,
        stats: Any,
    ) -> tuple[Any, OperatorState]:
        """Works on records, with keys from the state, which advances and counts them.

        The state is without statistics, `ids` are as `identify` returns them, and rows for which
        `valid` is false are not counted. None stands for positions, and for all rows.
        """
        arguments = (config, state, records, ids, valid, params, stats)
        if explicit_mesh(arguments) is not None:
            specs = [jax.typeof(leaf).sharding.spec for leaf in jax.tree.leaves(records)]
            is_split = any(spec and spec[0] is not None for spec in specs)
            if config.batch_strategy == "scan" and is_split:
                constraint = "be 'vmap' if the batch axis is sharded over explicit mesh axes"
                raise ValueError(must("OperatorConfig.batch_strategy", constraint, "scan"))
            return over_mesh(functools.partial(RecordEngine.step, self), *arguments)
        size, axes, keys = jax.tree.leaves(records)[0].shape[0], varying_axes(records), None
        if config.stochastic and params is None:
            if ids is None:
                keys = batch_keys(state.next_key(), (size,), _KEY)
            else:
                keys = id_keys(state.key, ids[1], ids[0])
            if axes and not self.is_shared(config):
                cure = "Pass each shard's record_ids, and the epoch. Or: "
                refuse_shared_key(keys, records, _KEY, cure)
            state = state.advance()
        records, active = self.run(config, keys, records, params, stats)
        return records, count_records(state, size, active, valid, axes)

    def run(
        self, config: Any, keys: jax.Array | None, records: Any, params: Params, stats: Any
    ) -> tuple[Any, Any]:
        """Draws for records from their keys, and works on them; without keys, all get the same.

        Returns the records, and which of them changed, of shape () or (B,).
        """
        records = jax.tree.map(jnp.asarray, records)
        one_by_one = config.batch_strategy == "scan"
        if keys is None:
            params = self.constant(config, records) if params is None else params
        elif self.is_shared(config) and keys.shape[0]:  # of no record, none is the first
            params, keys = _first(self.draw(config, keys[:1], records)), None
        if keys is None:

            def work(record: Any) -> Any:
                return self.work(config, record, params, stats)

            done = jax.lax.map(work, records) if one_by_one else jax.vmap(work)(records)
            return done, self.is_active(config, params)
        if not one_by_one:
            drawn = self.draw(config, keys, records)
            each = jax.vmap(lambda record, params: self.work(config, record, params, stats))
            return each(records, drawn), self.is_active(config, drawn)

        def draw_and_work(record_and_key: tuple[Any, jax.Array]) -> Any:
            record, key = record_and_key
            own = _first(self.draw(config, key[None], records))
            return self.work(config, record, own, stats), self.is_active(config, own)

        return jax.lax.map(draw_and_work, (records, keys))


def warn_if_baked(
    config: Any, state: OperatorState, new_state: OperatorState, batch: Any, record_ids: Any
) -> None:
    """Warns if records without ids drew from a concrete state under `jit`, where it is a constant.

    There, and not under `grad` or an eager `vmap`, the next step of a concrete state is traced.
    """
    tracer = jax.core.Tracer
    baked = isinstance(new_state.step, tracer) and not isinstance(state.step, tracer)
    baked = baked and not isinstance(state.key, tracer)
    if config.stochastic and baked and ids_of(batch, record_ids) is None:
        warnings.warn(
            "a concrete op_state was captured under jit, scan or the like: every run will draw the "
            "same. Pass the state as an argument and return the new one, or pass record_ids and "
            "an epoch.",
            stacklevel=3,
        )


def records_of(batch: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Returns (data, states) of the `batch` of `apply_batch`; None for a `Batch` of nothing."""
    parts = (batch.data, batch.states) if isinstance(batch, Batch) else (batch, {})
    leaves = jax.tree.leaves(parts)
    if isinstance(batch, Batch) and not leaves:
        return None
    if not isinstance(batch, Batch | dict):
        cure = "Pass a dict of its arrays, such as dict(batch)."
        constraint = "be a dropax.Batch or a dict of arrays"
        raise TypeError(must("apply_batch.batch", constraint, batch, cure))
    leading_size({"data": parts[0], "states": parts[1]})
    if not all(isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves):
        parts = jax.tree.map(lambda leaf: as_array(leaf, "each field of a batch"), parts)
    return parts


def ids_of(batch: Any, record_ids: Any) -> Any:
    """Returns the record ids that were given, or those of a `Batch`, or None."""
    return getattr(batch, "record_ids", None) if record_ids is None else record_ids


def identify(record_ids: Any, epoch: Any, *, size: int, shared: bool) -> tuple[Any, Any]:
    """Returns (ids, epoch) of `size` records, checked, in the form that goes through `jit`."""
    if record_ids is None:
        raise ValueError(must("apply_batch.record_ids", "be given if epoch is", None))
    if epoch is None:
        cure = "Without it, records would draw the same in every epoch."
        raise ValueError(must("apply_batch.epoch", "be given if record_ids are", None, cure))
    if shared:
        constraint = "be None if all records share a draw"
        cure = "That draw follows from the state's key and step."
        raise ValueError(must("apply_batch.record_ids", constraint, record_ids, cure))
    ids = as_record_ids(record_ids)
    if ids.shape[0] != size:
        raise ValueError(must("apply_batch.record_ids", f"have {size} ids, one per record", ids))
    return ids, as_epoch(epoch)


def count_records(
    state: OperatorState, size: int, active: Any, valid: Any, axes: frozenset[str]
) -> OperatorState:
    """Counts `size` records as applied, or as skipped if `active` (for all, or each) is false.

    Not those for which `valid` is false. Over manual `axes` of a mesh, shards are added up.
    """
    if isinstance(active, bool | np.bool_):
        active = jnp.asarray(active)
    if getattr(active, "dtype", None) != np.bool_ or active.shape not in ((), (size,)):
        constraint = f"be a bool, or bools of shape ({size},), one per record"
        raise ValueError(must("what is_active returns", constraint, active))
    total = jnp.uint32(size)
    if valid is not None:
        valid = jnp.asarray(valid)
        applied, total = (active & valid).sum(dtype=jnp.uint32), valid.sum(dtype=jnp.uint32)
    elif active.ndim:
        applied = active.sum(dtype=jnp.uint32)
    else:
        applied = jnp.where(active, total, np.uint32(0))
    if axes:
        applied, total = jax.lax.psum((applied, total), tuple(sorted(axes)))
    added = jnp.stack([applied, total - applied])
    words = jnp.stack([state.applied_count, state.skipped_count])
    low = words[:, 1] + added
    high = words[:, 0] + (low < added).astype(jnp.uint32)  # a low word that wrapped carries
    counts = jnp.stack([high, low], axis=1)
    return dataclasses.replace(state, applied_count=counts[0], skipped_count=counts[1])


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], tree)
