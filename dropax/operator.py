"""`DropoutOperator`: dropout as an object.

Each method is the pure function of the same name with the operator's config and state in front, and
stores the state that comes back.
"""

import dataclasses
import logging
import warnings
from typing import Any

import jax
import numpy as np

from dropax import functional
from dropax.config import DropoutOperatorConfig
from dropax.dropping import Fields
from dropax.kit.errors import is_traced, require_kind
from dropax.kit.operator import ModalityOperator
from dropax.kit.process import atomic
from dropax.kit.state import OperatorState
from dropax.sampling import is_active, sample_constant

logger = logging.getLogger(__name__)  # part of the documented interface, for operators' own use


class DropoutOperator(ModalityOperator):
    """Drops pixels, channels or regions of images.

    Args:
      config: what is dropped, how much of it, and what takes its place.
      rngs: where a stochastic operator gets its key from; see `ModalityOperator`, which also says
        what is raised.
      name: for people to read.

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

    # Of a subclass with methods of its own.
    _engine = dataclasses.replace(
        ModalityOperator._engine,
        is_active=lambda operator, params: is_active(operator.config, params or {}),
        is_shared=lambda operator: operator.config.share_mask,
    )

    def __init__(
        self, config: DropoutOperatorConfig, *, rngs: Any, name: str | None = None
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)

    def generate_random_params(
        self, rng: jax.Array, data_shapes: dict[str, Any]
    ) -> dict[str, jax.Array]:
        """Draws the random params of a batch; see `dropax.generate_random_params`."""
        return functional.generate_random_params(self.config, rng, data_shapes)

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
        those of record 0 of the current step, and the step advances. Without `stats`, those of
        `get_statistics()` are used.

        Raises:
          KeyError, TypeError, ValueError: as `dropax.apply`; ValueError too if it would draw under
            `jit` and was captured in a closure.
        """
        require_kind(f"{type(self).__name__}.apply.data", data, dict, "a dict of arrays")
        engine, statistics = functional.ENGINE, self._state.statistics
        stats = statistics if stats is None else stats
        fields, stats = engine.select(self.config, (data, state), stats)
        shape, params = np.shape(fields.image), None
        if not self.config.stochastic:
            params = self._constant(shape)
        elif random_params is not None:
            params = functional.given_params(self.config, random_params, shape)
        bare = self._state.replace(statistics=None)
        fields, new = _apply(self.config, bare, fields, params, stats)
        drew = self.config.stochastic and params is None
        self._store(new.replace(statistics=statistics), "apply", drew=drew)
        return (*engine.merge(self.config, (data, state), fields), metadata)

    def _run_batch(
        self, batch: Any, record_ids: Any, epoch: Any, stats: dict[str, Any] | None
    ) -> tuple[Any, OperatorState]:
        kind, own = type(self), DropoutOperator
        if (kind.apply, kind.generate_random_params) != (own.apply, own.generate_random_params):
            return super()._run_batch(batch, record_ids, epoch, stats)
        config = self.config
        out, state = functional.ENGINE.apply_batch(
            config,
            self._state,
            batch,
            record_ids,
            epoch,
            stats,
            None if config.stochastic else lambda fields: self._constant(fields.image.shape[1:]),
        )
        if not config.stochastic and self.rngs is not None and not config.share_mask:
            self._warn_of_one_pattern(out)
        return out, state

    def _warn_of_one_pattern(self, batch: Any) -> None:
        """Warns, once, that the `rngs` given draw nothing, if there are several records."""
        leaves = jax.tree.leaves(batch)
        if leaves and leaves[0].shape[0] != 1 and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                "a deterministic operator was given rngs and drops the same pattern from every "
                "record of a batch. Pass stochastic=True to its config to draw for each, or "
                "rngs=None to the operator if one pattern is meant.",
                stacklevel=5,
            )

    def _constant(self, element_shape: tuple[int, ...]) -> dict[str, Any] | None:
        """Returns the fixed pattern, drawn once for each shape if the operator is cacheable."""
        if not self.config.cacheable:
            return None
        config, params = self._cache.get(element_shape, (None, None))
        if config is not self.config:  # it may have been assigned anew
            params = _sample_constant(self.config, element_shape)
            if not is_traced(params):
                self._cache[element_shape] = self.config, params
        known: dict[str, Any] = params
        return known


_sample_constant = jax.jit(sample_constant, static_argnums=1)


@jax.jit
def _apply(
    config: DropoutOperatorConfig,
    state: OperatorState,
    fields: Fields,
    params: dict[str, Any] | None,
    stats: dict[str, Any] | None,
) -> tuple[Fields, OperatorState]:
    """Drops values of one record, as of a batch that holds it alone."""
    batch = jax.tree.map(lambda leaf: leaf[None], fields)
    batch, state = functional.ENGINE.step(config, state, batch, None, None, params, stats)
    return jax.tree.map(lambda leaf: leaf[0], batch), state
