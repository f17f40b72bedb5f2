"""From one record to a batch.

Given two functions, one that draws for records and one that works on a record, `batched` returns
the function that works on a batch. It derives a key for each record, runs the records at once or
one after the other, and counts them. It knows nothing of dropout.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dropax.kit.batch import Batch, is_empty, records_of, with_records
from dropax.kit.config import OperatorConfig
from dropax.kit.errors import must, require_kind
from dropax.kit.ids import as_epoch, as_record_ids, id_keys
from dropax.kit.keys import as_key, record_keys, refuse_shared_key
from dropax.kit.meshes import call_over_mesh, explicit_axes
from dropax.kit.state import OperatorState
from dropax.kit.trees import refuse_endless

AnyBatch = TypeVar("AnyBatch", Batch, dict[str, Any])
Drawn = dict[str, Any] | None


class ApplyBatch(Protocol):
    """What `batched` returns."""

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
    generate_random_params: Callable[[Any, jax.Array, Any], Drawn],
    apply: Callable[..., tuple[Any, Any, Any]],
    *,
    is_active: Callable[[Any, Drawn], Any] | None = None,
    is_shared: Callable[[Any], bool] | None = None,
) -> ApplyBatch:
    """Builds an `apply_batch` out of anybody's two functions.

    The result is pure and goes into any `jit`. In a stochastic config the key of the call is
    `fold_in(op_state.key, op_state.step)`, record i draws from `fold_in(that, i)`, and the step
    then advances by one. With record ids and an epoch, record keys follow from these and
    `op_state.key` alone. What a record draws depends on nothing else: not on the batch size, the
    strategy, or the number of devices.

    Args:
      generate_random_params: `(config, keys, data_shapes) -> params`, with keys of shape (n,) and a
        tree of shapes that start with n. Each leaf of the params has a leading axis of n. Under
        "scan", n is 1. Only called in a stochastic config.
      apply: `(config, data, state, metadata, random_params, stats) -> (data, state, metadata)` on
        one record. Metadata stays on the host, so it is given an empty dict.
      is_active: `(config, params) -> bools`: whether anything changes at all, for all records that
        the params are of or for each. Those for which it is false are counted as skipped. None for
        always.
      is_shared: `(config) -> bool`: whether all records get what the first one draws. None for
        never.

    Returns:
      The function `(config, op_state, batch, stats=None, *, record_ids=None, epoch=None) ->
      (batch, op_state)`. `batch` is a `Batch` or a dict of arrays of shape (B, ...), and so is what
      comes back.

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

    def work_on(
        records: tuple[Any, Any],
        config: OperatorConfig,
        op_state: OperatorState,
        stats: dict[str, Any] | None,
        identity: tuple[Any, Any] | None,
        valid: Any,
    ) -> tuple[tuple[Any, Any], OperatorState]:
        data, states = records
        size = jax.tree.leaves((data, states))[0].shape[0]
        shared = is_shared is not None and is_shared(config)
        keys = None
        if config.stochastic:
            keys = _keys_of(op_state, size, identity)
            refuse_shared_key(keys, data, "apply_batch.op_state.key", _MANUAL_CURE)
            op_state = op_state.advance()
        draw = functools.partial(generate_random_params, config)
        active_of = functools.partial(_always if is_active is None else is_active, config)

        def work(params: Drawn, data: Any, state: Any) -> tuple[Any, Any]:
            data, state, _ = apply(config, data, state, {}, params, stats)
            return data, state

        run = _run_scan if config.batch_strategy == "scan" else _run_vmap
        if keys is None or shared:
            params = None if keys is None else _draw_one(draw, keys[0], _first(data))
            active = active_of(params)
            data, states = run(functools.partial(work, params), data, states)
        elif run is _run_scan:

            def one(key: jax.Array, data: Any, state: Any) -> tuple[Any, Any]:
                params = _draw_one(draw, key, data)
                return work(params, data, state), active_of(params)

            (data, states), active = run(one, keys, data, states)
        else:
            params = draw(keys, jax.tree.map(jnp.shape, data))
            active = active_of(params)
            data, states = run(work, params, data, states)
        return (data, states), count_records(op_state, size, active, valid)

    # One dispatch where it is called eagerly, and inside another jit nothing of its own. A scan
    # that is called eagerly outside of any jit would be compiled anew in every call.
    compiled = jax.jit(work_on, inline=True)

    def apply_batch(
        config: OperatorConfig,
        op_state: OperatorState,
        batch: Any,
        stats: dict[str, Any] | None = None,
        *,
        record_ids: Any = None,
        epoch: Any = None,
    ) -> tuple[Any, OperatorState]:
        require_kind("apply_batch.op_state", op_state, OperatorState, "an OperatorState")
        if is_empty(batch):
            return batch, op_state
        data, states = records_of(batch, "apply_batch.batch")
        refuse_endless(stats, "apply_batch.stats")
        statistics = op_state.statistics
        identity = None
        if config.stochastic:
            size = jax.tree.leaves((data, states))[0].shape[0]
            shared = is_shared is not None and is_shared(config)
            identity = identify(batch, size, record_ids, epoch, shared=shared)
        valid = batch.valid_mask if isinstance(batch, Batch) else None
        _refuse_sharded_scan((data, states), config.batch_strategy)
        stats = statistics if stats is None else stats
        (data, states), op_state = call_over_mesh(
            compiled if _jax_takes(stats) else work_on,
            (data, states),
            config,
            op_state.replace(statistics=None),
            stats,
            identity,
            valid,
        )
        return with_records(batch, data, states), op_state.replace(statistics=statistics)

    return apply_batch


_MANUAL_CURE = "Pass each shard's record_ids, and the epoch. Or: "


def identify(
    batch: Any, size: int, record_ids: Any, epoch: Any, *, shared: bool
) -> tuple[Any, Any] | None:
    """Returns ids and epoch in the form that goes through `jit`, or None for positions.

    Args:
      batch: its `record_ids` count where none are given.
      size: how many records there are.
      record_ids: as `as_record_ids` takes them, or None.
      epoch: as `as_epoch` takes it, or None.
      shared: whether all records get what the first one draws.

    Returns:
      (ids, epoch), or None where there are no ids.

    Raises:
      TypeError: if ids or epoch are no integers.
      ValueError: if one comes without the other, there is not one id for each record, one is
        negative, or all records share a draw.
    """
    owner = "apply_batch.record_ids"
    if record_ids is None and isinstance(batch, Batch):
        record_ids = batch.record_ids
    if record_ids is None and epoch is None:
        return None
    if record_ids is None:
        raise ValueError(must(owner, "be given where an epoch is", None))
    if epoch is None:
        cure = "Without it, records would have the same masks in every epoch."
        raise ValueError(must("apply_batch.epoch", "be given where record_ids are", None, cure))
    if shared:
        cure = "All records share one mask, which ids have no part in."
        raise ValueError(must(owner, "be None where share_mask is True", record_ids, cure))
    ids = as_record_ids(record_ids)
    if ids.shape[0] != size:
        raise ValueError(must(owner, f"have {size} ids, one per record", ids))
    return ids, as_epoch(epoch)


def count_records(
    op_state: OperatorState, size: int, active: Any, valid: Any = None
) -> OperatorState:
    """Counts records as applied, or as skipped where `active` is false.

    Args:
      op_state: holds the counts so far.
      size: how many records there are.
      active: bool, for all of them or for each.
      valid: bools, for each, False for those that are not counted at all; None to count all.

    Returns:
      The state with the records counted.
    """
    active, total = jnp.asarray(active), np.uint32(size)
    if valid is not None:
        valid = jnp.asarray(valid)
        applied, total = (active & valid).sum(dtype=jnp.uint32), valid.sum(dtype=jnp.uint32)
    elif active.ndim:
        applied = active.sum(dtype=jnp.uint32)
    else:
        applied = jnp.where(active, total, np.uint32(0))
    return op_state.count(applied, total - applied)


def _keys_of(op_state: OperatorState, size: int, identity: tuple[Any, Any] | None) -> jax.Array:
    """Returns a key for each record: of its id and the epoch, or of the step and its position."""
    if identity is None:
        return record_keys(op_state.next_key(), size, "apply_batch.op_state.key")
    ids, epoch = identity
    return id_keys(as_key(op_state.key, "apply_batch.op_state.key"), epoch, ids)


def _jax_takes(stats: Any) -> bool:
    """Says whether statistics, which may hold anything, go through `jit`."""
    try:
        jax.tree.map(jax.typeof, stats)
    except (TypeError, OverflowError):
        return False
    return True


def _always(config: Any, params: Drawn) -> bool:
    del config, params
    return True


def _run_vmap(function: Any, *records: Any) -> Any:
    # Within `vmap`, a function with a derivative of its own does not take NumPy constants of a jit.
    return jax.vmap(function)(*jax.tree.map(jnp.asarray, records))


def _run_scan(function: Any, *records: Any) -> Any:
    return jax.lax.scan(lambda _, record: (None, function(*record)), None, records)[1]


def _draw_one(draw: Any, key: jax.Array, data: Any) -> Drawn:
    params: Drawn = draw(key[None], jax.tree.map(lambda leaf: (1, *leaf.shape), data))
    return _first(params)


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], tree)


def _refuse_sharded_scan(records: Any, strategy: str) -> None:
    specs = [jax.typeof(leaf).sharding.spec for leaf in jax.tree.leaves(records)]
    cut = any(spec and spec[0] is not None for spec in specs)
    if strategy == "scan" and cut and explicit_axes(records):
        owner = "OperatorConfig.batch_strategy"
        constraint = "be 'vmap' where the batch axis is sharded over explicit mesh axes"
        raise ValueError(must(owner, constraint, strategy))
