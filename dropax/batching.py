"""From one record to a batch.

Given two functions, one that draws for records and one that works on a record, `batched` returns
the function that works on a batch. It derives a key for each record, runs the records at once or
one after the other, and counts them. It knows nothing of dropout.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dropax.checks import must, require_kind
from dropax.config import OperatorConfig
from dropax.containers import Batch, is_empty, records_of, with_records
from dropax.keys import is_counter_based, record_keys, refuse_shared_key
from dropax.state import OperatorState

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
    ) -> tuple[AnyBatch, OperatorState]:
        """Works on a batch; see `dropax.apply_batch` for the arguments."""
        ...


def batched(
    generate_random_params: Callable[[Any, jax.Array, Any], Drawn],
    apply: Callable[..., tuple[Any, Any, Any]],
    *,
    is_active: Callable[[Any], Any] | None = None,
) -> ApplyBatch:
    """Builds an `apply_batch` out of anybody's two functions.

    The result is pure and goes into any `jit`. In a stochastic config the key of the call is
    `fold_in(op_state.key, op_state.step)`, record i draws from `fold_in(that, i)`, and the step
    then advances by one. What a record draws depends on nothing else: not on the batch size, the
    strategy, or the number of devices.

    Args:
      generate_random_params: `(config, keys, data_shapes) -> params`, with keys of shape (n,) and a
        tree of shapes that start with n. Each leaf of the params has a leading axis of n. Under
        "scan", n is 1. Only called in a stochastic config.
      apply: `(config, data, state, metadata, random_params, stats) -> (data, state, metadata)` on
        one record. Metadata stays on the host, so it is given an empty dict.
      is_active: `(config) -> bool scalar`: whether the config changes anything at all. Records are
        counted as skipped where it is false. None for always.

    Returns:
      The function `(config, op_state, batch, stats=None) -> (batch, op_state)`. `batch` is a
      `Batch` or a dict of arrays of shape (B, ...), and so is what comes back.

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

    def apply_batch(
        config: OperatorConfig,
        op_state: OperatorState,
        batch: Any,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, OperatorState]:
        require_kind("apply_batch.op_state", op_state, OperatorState, "an OperatorState")
        if is_empty(batch):
            return batch, op_state
        data, states = records_of(batch, "apply_batch.batch")
        size = jax.tree.leaves((data, states))[0].shape[0]
        if stats is None:
            stats = op_state.statistics

        sharding = _batch_sharding((data, states), config.batch_strategy)
        keys = None
        if config.stochastic:
            refuse_shared_key(op_state.key, data, "apply_batch.op_state.key")
            keys = record_keys(op_state.next_key(), size, "apply_batch.op_state.key")
            op_state = op_state.advance()
        if config.batch_strategy == "scan":
            generate, run = generate_random_params, _run_scan
        else:
            generate, run = _on_mesh(generate_random_params, sharding), _run_vmap
        data, states = run(generate, apply, config, keys, data, states, stats)

        op_state = count_records(op_state, size, True if is_active is None else is_active(config))
        return with_records(batch, data, states), op_state

    return apply_batch


def count_records(op_state: OperatorState, size: int, active: Any) -> OperatorState:
    """Counts records as applied, or as skipped where `active`, a bool scalar, is false."""
    applied = jnp.where(active, np.uint32(size), np.uint32(0))
    return op_state.count(applied, np.uint32(size) - applied)


def _run_vmap(
    generate: Any, apply: Any, config: Any, keys: Any, data: Any, states: Any, stats: Any
) -> tuple[Any, Any]:
    params = None if keys is None else generate(config, keys, _shapes(data))

    def one(params: Any, data: Any, state: Any) -> tuple[Any, Any]:
        data, state, _ = apply(config, data, state, {}, params, stats)
        return data, state

    return jax.vmap(one)(params, data, states)


def _run_scan(
    generate: Any, apply: Any, config: Any, keys: Any, data: Any, states: Any, stats: Any
) -> tuple[Any, Any]:
    def one(carry: None, record: Any) -> tuple[None, tuple[Any, Any]]:
        key, data, state = record
        params = None
        if key is not None:
            shapes = jax.tree.map(lambda leaf: (1, *leaf.shape), data)
            params = jax.tree.map(lambda leaf: leaf[0], generate(config, key[None], shapes))
        data, state, _ = apply(config, data, state, {}, params, stats)
        return carry, (data, state)

    return jax.lax.scan(one, None, (keys, data, states))[1]


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)


def _batch_sharding(records: Any, strategy: str) -> jax.NamedSharding | None:
    """Returns how the batch axis lies over a mesh with explicit axes; None where it does not."""
    for leaf in jax.tree.leaves(records):
        sharding = jax.typeof(leaf).sharding
        if sharding.spec and sharding.spec[0] is not None:
            if strategy == "scan":
                owner = "OperatorConfig.batch_strategy"
                constraint = "be 'vmap' where the batch axis is sharded over explicit mesh axes"
                raise ValueError(must(owner, constraint, strategy))
            return jax.NamedSharding(sharding.mesh, jax.P(sharding.spec[0]))
    return None


def _on_mesh(generate: Any, sharding: jax.NamedSharding | None) -> Any:
    """Returns a function that draws params which lie over the mesh as the records do."""
    if sharding is None:
        return generate

    def generate_sharded(config: Any, keys: jax.Array, shapes: Any) -> Any:
        if is_counter_based(keys):  # each device draws for its own records
            return generate(config, jax.sharding.reshard(keys, sharding), shapes)
        return jax.sharding.reshard(generate(config, keys, shapes), sharding)

    return generate_sharded
