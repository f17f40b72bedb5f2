"""Operators as objects.

Each method is the pure function of the same name with the operator's config and state in front, and
stores the state that comes back.
"""

import logging
from typing import Any

import jax

from dropax import functional as transform
from dropax.config import DropoutOperatorConfig
from dropax.dropping import drop, merge_fields, select_fields, select_stats
from dropax.kit.batch import Batch
from dropax.kit.batching import batched, count_records
from dropax.kit.errors import is_traced, require_kind
from dropax.kit.fields import get_field
from dropax.kit.operator import ModalityOperator, atomic
from dropax.kit.state import OperatorState
from dropax.sampling import fixed_params, given_params, is_active, sample_params

logger = logging.getLogger(__name__)  # part of the documented interface, for operators' own use


class DropoutOperator(ModalityOperator):
    """Drops pixels, channels or regions of images.

    Args:
      config: what is dropped, how much of it, and what takes its place.
      rngs: where a stochastic operator gets its key from; see `ModalityOperator`.
      name: for people to read.

    Raises:
      TypeError: if an argument is of another kind.
      ValueError: if the config is stochastic and `rngs` is None.
      KeyError: if `rngs` has neither the config's stream nor a default one.

    Example:
      >>> import jax.numpy as jnp
      >>> from dropax import Rngs
      >>> config = DropoutOperatorConfig(field_key="image", dropout_rate=0.2, stochastic=True)
      >>> operator = DropoutOperator(config, rngs=Rngs(0))
      >>> batch = operator.apply_batch({"image": jnp.ones((8, 32, 32, 3))})
      >>> batch["image"].shape, operator.get_operation_stats()
      ((8, 32, 32, 3), {'applied_count': 8, 'skipped_count': 0})
    """

    config_type = DropoutOperatorConfig
    config: DropoutOperatorConfig

    def __init__(
        self, config: DropoutOperatorConfig, *, rngs: Any, name: str | None = None
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)

    def generate_random_params(
        self, rng: jax.Array, data_shapes: dict[str, Any]
    ) -> dict[str, jax.Array]:
        """Draws the random params of a batch; see `dropax.generate_random_params`."""
        return transform.generate_random_params(self.config, rng, data_shapes)

    @atomic
    def apply(
        self,
        data: dict[str, Any],
        state: Any,
        metadata: Any,
        random_params: dict[str, Any] | None = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], Any, Any]:
        """Drops values of one element; see `dropax.apply`.

        A stochastic operator without `random_params` draws them from its own state: they are
        those of record 0 of the current step, and the step advances.

        Args:
          data: nested dicts of arrays; must hold the config's `field_key`.
          state: passed through.
          metadata: passed through.
          random_params: `{"keep_mask": mask}` and what other options need, or None.
          stats: used where the fill is "stats_mean"; None for `get_statistics()`.

        Returns:
          (data, state, metadata).

        Raises:
          KeyError, TypeError, ValueError: as `dropax.apply`; ValueError too if it would draw under
            `jit` and was captured in a closure.
        """
        require_kind(f"{type(self).__name__}.apply.data", data, dict, "a dict of arrays")
        fields = select_fields(self.config, data)
        params = self._kept_params(fields, batch_axes=0)
        if self.stochastic and random_params is not None:
            params = given_params(self.config, random_params)
        bare = self._state.replace(statistics=None)
        stats = select_stats(self.config, self._state.statistics if stats is None else stats)
        dropped, new_state = _apply(self.config, bare, fields, params, stats)
        self._store(new_state, "apply", drew=self.stochastic and params is None)
        return merge_fields(self.config, data, dropped), state, metadata

    def _run_batch(
        self, op_state: OperatorState, batch: Batch, stats: dict[str, Any] | None, epoch: Any
    ) -> tuple[Batch, OperatorState]:
        if any(getattr(type(self), name) is not method for name, method in _COMPILED.items()):
            return super()._run_batch(op_state, batch, stats, epoch)
        fields = select_fields(self.config, batch.data)
        params = self._kept_params(fields, batch_axes=1)
        stats = select_stats(self.config, stats)
        selected = batch.with_parts(fields, {})
        out, op_state = _apply_batch(self.config, op_state, selected, params, stats, epoch)
        merged = merge_fields(self.config, batch.data, out.data)
        return batch.with_parts(merged, batch.states), op_state

    def _kept_params(self, fields: dict[str, Any], *, batch_axes: int) -> dict[str, Any] | None:
        """Returns the fixed pattern of a cacheable operator, drawn once for each shape."""
        if self.stochastic or not self.config.cacheable:
            return None
        element_shape = get_field(fields, self.config.field_key).shape[batch_axes:]
        params: dict[str, Any] | None = self._cache.get(element_shape)
        if params is None:
            params = fixed_params(self.config, element_shape)
            if not is_traced(params):
                self._cache[element_shape] = params
        return params


# The methods that the compiled functions stand for. A subclass that has its own is run by these.
_COMPILED = {
    "apply": DropoutOperator.apply,
    "generate_random_params": DropoutOperator.generate_random_params,
}

# One compiled function for all operators: the config is an argument, and only its static part and
# the shapes select what is compiled.


@jax.jit
def _apply_batch(
    config: DropoutOperatorConfig,
    op_state: OperatorState,
    batch: Batch,
    kept_params: dict[str, Any] | None,
    stats: dict[str, Any] | None,
    epoch: Any,
) -> tuple[Batch, OperatorState]:
    def apply_kept(
        config: Any, data: Any, state: Any, metadata: Any, params: Any, stats: Any
    ) -> tuple[Any, Any, Any]:
        return drop(config, data, kept_params, stats), state, metadata  # type: ignore[arg-type]

    run = transform.apply_batch
    if kept_params is not None:
        run = batched(transform.generate_random_params, apply_kept, is_active=is_active)
    return run(config, op_state, batch, stats, epoch=epoch)


@jax.jit
def _apply(
    config: DropoutOperatorConfig,
    op_state: OperatorState,
    fields: dict[str, Any],
    params: dict[str, Any] | None,
    stats: dict[str, Any] | None,
) -> tuple[dict[str, Any], OperatorState]:
    if params is None:
        element_shape = get_field(fields, config.field_key).shape
        if config.stochastic:
            key = jax.random.fold_in(op_state.next_key(), 0)
            params = sample_params(config, key, element_shape)
            op_state = op_state.advance()
        else:
            params = fixed_params(config, element_shape)
    dropped = drop(config, fields, params, stats)
    return dropped, count_records(op_state, 1, is_active(config, params))
