"""From one record to a batch.

`RecordEngine` runs two functions, one that draws for records and one that works on a record, over
the records of a batch: all at once (`vmap`) or one after the other (`scan`), with a key for each
record. `batched` wraps it for user-supplied functions.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dropax.kit.batch import Batch
from dropax.kit.config import OperatorConfig
from dropax.kit.errors import must, require_kind
from dropax.kit.fields import leading_size
from dropax.kit.ids import as_epoch, as_record_ids, id_keys
from dropax.kit.keys import fold_in_each, refuse_shared_key, varying_axes
from dropax.kit.meshes import call_over_mesh, explicit_axes
from dropax.kit.state import OperatorState, Process
from dropax.kit.trees import as_array

AnyBatch = TypeVar("AnyBatch", Batch, dict[str, Any])
Params = dict[str, Any] | None


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
    run = apply_batch_of(generate_random_params, apply, is_active, is_shared)

    def apply_batch(
        config: OperatorConfig,
        op_state: OperatorState,
        batch: Any,
        stats: dict[str, Any] | None = None,
        *,
        record_ids: Any = None,
        epoch: Any = None,
    ) -> tuple[Any, OperatorState]:
        out, new_state = run(config, op_state, batch, stats, record_ids, epoch)
        randomness = (op_state.key, op_state.step)
        if config.stochastic and not any(isinstance(one, jax.core.Tracer) for one in randomness):
            warn_if_baked(new_state, batch, record_ids)
        return out, new_state

    return apply_batch


def apply_batch_of(
    generate_random_params: Callable[[Any, jax.Array, Any], Params],
    apply: Callable[..., tuple[Any, Any, Any]],
    is_active: Callable[[Any, Params], Any] | None = None,
    is_shared: Callable[[Any], bool] | None = None,
) -> Callable[..., tuple[Any, OperatorState]]:
    """`batched`, for an operator, which refuses what a pure function can only warn of."""

    def draw(config: Any, keys: jax.Array, records: Any) -> Params:
        shapes = jax.tree.map(lambda leaf: (*keys.shape, *leaf.shape[1:]), records[0])
        return generate_random_params(config, keys, shapes)

    def work(config: Any, record: Any, params: Params, stats: Any) -> Any:
        data, state, _ = apply(config, *record, {}, params, stats)
        return data, state

    engine = RecordEngine(
        draw,
        work,
        is_active=is_active or (lambda config, params: True),
        is_shared=is_shared or (lambda config: False),
        constant=lambda config, records: None,
    )

    def apply_batch(
        config: OperatorConfig,
        op_state: OperatorState,
        batch: Any,
        stats: dict[str, Any] | None,
        record_ids: Any,
        epoch: Any,
    ) -> tuple[Any, OperatorState]:
        records = records_of(batch)
        if records is None:
            return batch, op_state
        identity = (batch, record_ids, epoch)
        (data, states), op_state = engine(config, op_state, records, stats, identity)
        is_batch = isinstance(batch, Batch)
        return batch.with_parts(data, states) if is_batch else data, op_state

    return apply_batch


@dataclasses.dataclass(frozen=True, eq=False)
class RecordEngine:
    """Draws for the records of a batch, works on them, and counts them.

    Attributes:
      draw: `(config, keys, records) -> params`, with a leading axis of as many records as keys.
        Of `records` only the shapes behind the leading axis matter.
      work: `(config, record, params, stats) -> record`, on one record.
      is_active: `(config, params) -> bools`, as for `batched`.
      is_shared: `(config) -> bool`, as for `batched`.
      constant: `(config, records) -> params`: what every record gets if the config is not
        stochastic, without a leading axis.
    """

    draw: Callable[[Any, jax.Array, Any], Params]
    work: Callable[..., Any]
    is_active: Callable[..., Any]
    is_shared: Callable[[Any], bool]
    constant: Callable[[Any, Any], Params]

    def __call__(
        self,
        config: Any,
        op_state: OperatorState,
        records: Any,
        stats: Any,
        identity: tuple[Any, Any, Any],
        params: Params = None,
    ) -> tuple[Any, OperatorState]:
        """Works on the records of a batch, in one dispatch if called eagerly.

        Args:
          config: an `OperatorConfig`.
          op_state: the state before the call.
          records: a tree of arrays of shape (B, ...).
          stats: passed to `work`; None for `op_state.statistics`.
          identity: (batch, record_ids, epoch): the batch that the records come from, and the
            arguments of `apply_batch` of these names.
          params: what every record gets, without a leading axis; None to draw.

        Returns:
          (records, op_state).
        """
        if not isinstance(op_state, OperatorState):
            raise TypeError(must("apply_batch.op_state", "be an OperatorState", op_state))
        if Process.forked:
            Process.require_own()
        statistics = op_state.statistics
        stats = statistics if stats is None else stats
        batch, record_ids, epoch = identity
        record_ids = getattr(batch, "record_ids", None) if record_ids is None else record_ids
        valid, ids = getattr(batch, "valid_mask", None), None
        if config.stochastic and (record_ids is not None or epoch is not None):
            size = jax.tree.leaves(records)[0].shape[0]
            ids = identify(record_ids, epoch, size=size, shared=self.is_shared(config))
        # Statistics may hold anything, and pass by the compiled function.
        state = dataclasses.replace(op_state, statistics=None)
        arguments = (records, config, state, params, stats, ids, valid)
        if any(
            isinstance(leaf, jax.Array) and jax.typeof(leaf).sharding.mesh.explicit_axes
            for leaf in jax.tree.leaves(arguments)
        ):
            if config.batch_strategy == "scan":
                _refuse_sharded_scan(records)
            records, state = call_over_mesh(self.step, *arguments)
        else:
            records, state = self.step(*arguments)
        return records, dataclasses.replace(state, statistics=statistics)

    # One dispatch when called eagerly, inlined under an outer jit.
    @functools.partial(jax.jit, static_argnums=0, inline=True)
    def step(
        self,
        records: Any,
        config: Any,
        op_state: OperatorState,
        params: Params,
        stats: Any,
        ids: tuple[Any, Any] | None,
        valid: Any,
    ) -> tuple[Any, OperatorState]:
        """`run`, with keys from the state, which advances and counts the records."""
        size, keys, given = jax.tree.leaves(records)[0].shape[0], None, records
        if config.stochastic and params is None:
            if ids is None:
                keys = fold_in_each(op_state.next_key(), jnp.arange(size, dtype=jnp.uint32))
            else:
                keys = id_keys(op_state.key, ids[1], ids[0])
            if not self.is_shared(config):
                refuse_shared_key(keys, records, "apply_batch.op_state.key", _MANUAL_CURE)
            op_state = op_state.advance()
        records, active = self.run(config, keys, records, stats, params)
        return records, count_records(op_state, size, active, valid, varying_axes(given))

    def run(
        self, config: Any, keys: jax.Array | None, records: Any, stats: Any, params: Params = None
    ) -> tuple[Any, Any]:
        """Draws for records with these keys, and works on them.

        Args:
          config: an `OperatorConfig`.
          keys: shape (B,), or None if every record gets `params`.
          records: a tree of arrays of shape (B, ...).
          stats: passed to `work`.
          params: without a leading axis; None with no keys for the constant ones.

        Returns:
          (records, active): the records, and which of them changed, of shape () or (B,).
        """
        records = jax.tree.map(jnp.asarray, records)
        one_by_one = config.batch_strategy == "scan"

        work = functools.partial(self.work, config, stats=stats)

        def draw_and_work(record_and_key: tuple[Any, jax.Array]) -> Any:
            record, key = record_and_key
            params = _first(self.draw(config, key[None], records))
            return work(record, params=params), self.is_active(config, params)

        # Of no record, none is the first.
        if keys is not None and not (self.is_shared(config) and keys.shape[0]):
            if one_by_one:
                return jax.lax.map(draw_and_work, (records, keys))
            params = self.draw(config, keys, records)
            done = jax.vmap(lambda record, own: work(record, params=own))(records, params)
            return done, self.is_active(config, params)
        # Every record gets the same.
        if keys is not None:
            params = _first(self.draw(config, keys[:1], records))
        elif params is None:
            params = self.constant(config, records)
        each = functools.partial(work, params=params)
        done = jax.lax.map(each, records) if one_by_one else jax.vmap(each)(records)
        return done, self.is_active(config, params)


def warn_if_baked(new_state: OperatorState, batch: Any, record_ids: Any) -> None:
    """Warns if records without ids drew from a concrete state under `jit`, where it is a constant.

    There, and not under `grad` or an eager `vmap`, the next step of a concrete state is traced.
    """
    has_ids = record_ids is not None or getattr(batch, "record_ids", None) is not None
    if isinstance(new_state.step, jax.core.Tracer) and not has_ids:
        warnings.warn(
            "a concrete op_state was captured under jit, scan or the like: every run will draw the "
            "same. Pass the state as an argument and return the new one, or pass record_ids and "
            "an epoch.",
            stacklevel=3,
        )


def records_of(batch: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Takes the `batch` of `apply_batch` apart.

    Args:
      batch: a `Batch`, or a dict of arrays of shape (B, ...), which has no states.

    Returns:
      (data, states), checked to be arrays of one leading length; None for a `Batch` of nothing.

    Raises:
      TypeError: if it is neither, or a leaf is no array.
      ValueError: if there is no array, one without axes, or two that differ in length.
    """
    owner = "apply_batch.batch"
    if isinstance(batch, Batch):
        records = batch.data, batch.states
        if not jax.tree.leaves(records):
            return None
    else:
        if not isinstance(batch, dict):
            cure = "Pass a dict of its arrays, such as dict(batch)."
            require_kind(owner, batch, dict, "a dropax.Batch or a dict of arrays", cure)
        records = batch, {}
    leading_size({"data": records[0], "states": records[1]}, owner)
    if not all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(records)):
        return jax.tree.map(as_array, records)
    return records


_MANUAL_CURE = "Pass each shard's record_ids, and the epoch. Or: "


def identify(record_ids: Any, epoch: Any, *, size: int, shared: bool) -> tuple[Any, Any]:
    """Returns (ids, epoch) in the form that goes through `jit`.

    Args:
      record_ids: as `as_record_ids` takes them, or None.
      epoch: as `as_epoch` takes it, or None.
      size: how many records there are.
      shared: whether all records get what the first one draws.

    Raises:
      TypeError: if ids or epoch are no integers.
      ValueError: if one comes without the other, there is not one id for each record, one is
        negative, or all records share a draw.
    """
    owner = "apply_batch.record_ids"
    if record_ids is None:
        raise ValueError(must(owner, "be given if epoch is", None))
    if epoch is None:
        cure = "Without it, records would draw the same in every epoch."
        raise ValueError(must("apply_batch.epoch", "be given if record_ids are", None, cure))
    if shared:
        cure = "That draw follows from the state's key and step."
        raise ValueError(must(owner, "be None if all records share a draw", record_ids, cure))
    ids = as_record_ids(record_ids)
    if ids.shape[0] != size:
        raise ValueError(must(owner, f"have {size} ids, one per record", ids))
    return ids, as_epoch(epoch)


def count_records(
    op_state: OperatorState,
    size: int,
    active: Any,
    valid: Any = None,
    manual_axes: frozenset[str] = frozenset(),
) -> OperatorState:
    """Counts records as applied, or as skipped if `active` is false.

    Args:
      op_state: holds the counts so far.
      size: how many records there are.
      active: bool, for all of them or for each.
      valid: bools, for each, False for those that are not counted at all; None to count all.
      manual_axes: mesh axes that the records vary over, whose shards are added up.
    """
    active, total = jnp.asarray(active), jnp.uint32(size)
    if valid is not None:
        valid = jnp.asarray(valid)
        applied, total = (active & valid).sum(dtype=jnp.uint32), valid.sum(dtype=jnp.uint32)
    elif active.ndim:
        applied = active.sum(dtype=jnp.uint32)
    else:
        applied = jnp.where(active, total, np.uint32(0))
    if manual_axes:
        applied, total = jax.lax.psum((applied, total), tuple(sorted(manual_axes)))
    return op_state.count(applied, total - applied)


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], tree)


def _refuse_sharded_scan(records: Any) -> None:
    specs = [jax.typeof(leaf).sharding.spec for leaf in jax.tree.leaves(records)]
    if any(spec and spec[0] is not None for spec in specs) and explicit_axes(records):
        owner = "OperatorConfig.batch_strategy"
        constraint = "be 'vmap' if the batch axis is sharded over explicit mesh axes"
        raise ValueError(must(owner, constraint, "scan"))
