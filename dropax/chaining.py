"""Several configs, one after the other: `chain`."""

import dataclasses
from typing import Any

import jax

from dropax.config import DropoutOperatorConfig
from dropax.functional import ENGINE
from dropax.kit.batch import Batch
from dropax.kit.batching import AnyBatch, warn_if_baked
from dropax.kit.errors import must, require_kind
from dropax.kit.fields import get_field, set_field
from dropax.kit.keys import as_key
from dropax.kit.state import OperatorState, init_state
from dropax.kit.trees import register_pytree

States = tuple[OperatorState, ...]


@dataclasses.dataclass(frozen=True)
class Chain:
    """Configs that are applied one after the other; `chain` returns one.

    Frozen, compared by value, and a pytree of its configs, so that their rates may be traced.

    Attributes:
      configs: in the order that they are applied in.
    """

    configs: tuple[DropoutOperatorConfig, ...]

    def init_state(self, key: Any = None) -> States:
        """Returns a state for each config, with a key of its own, for `apply_batch`.

        Args:
          key: one typed or legacy key, of which config n gets `fold_in(key, n)`. Do not use it
            elsewhere. None if no config is stochastic.

        Raises:
          TypeError, ValueError: as `dropax.init_state`.
        """
        if any(config.stochastic for config in self.configs):
            key = as_key(key, "init_state.key")
        return tuple(
            init_state(config, jax.random.fold_in(key, n) if config.stochastic else None)
            for n, config in enumerate(self.configs)
        )

    def apply_batch(
        self,
        states: States,
        batch: AnyBatch,
        stats: dict[str, Any] | None = None,
        *,
        record_ids: Any = None,
        epoch: Any = None,
    ) -> tuple[AnyBatch, States]:
        """Applies each config to what the one before returned; see `dropax.apply_batch`.

        What any of them drops is dropped. Configs with the same `mask_key` write one mask, False
        where any of them dropped.

        Args:
          states: from `init_state`, or from the call before.
          batch: as for `dropax.apply_batch`.
          stats: for every config; None for those of its state.
          record_ids: as for `dropax.apply_batch`.
          epoch: see there.

        Returns:
          (batch, states): a batch of the same kind, and the states of the next step, each of which
          counts the records that its config was applied to.

        Raises:
          KeyError, TypeError, ValueError: as `dropax.apply_batch`.
          ValueError: if there is not one state for each config.
        """
        if not isinstance(states, tuple | list) or len(states) != len(self.configs):
            constraint = f"hold the states of {len(self.configs)} configs"
            cure = "Make them with init_state of the chain."
            raise ValueError(must("apply_batch.states", constraint, states, cure))
        whole: Any = batch
        written, after = set(), []
        for config, state in zip(self.configs, states, strict=True):
            out, new = ENGINE.apply_batch(config, state, whole, record_ids, epoch, stats)
            warn_if_baked(config, state, new, whole, record_ids)
            name = config.mask_key
            if name is not None and name in written and out is not whole:  # not if it is empty
                before, kept = (get_field(_data(each), name) for each in (whole, out))
                if before.shape != kept.shape:
                    constraint = f"name a field of its own: that of another is {before.shape}"
                    raise ValueError(must(config.argument("mask_key"), constraint, kept))
                data = set_field(_data(out), name, before & kept)
                out = out.with_parts(data, out.states) if isinstance(out, Batch) else data
            written.add(name)
            after.append(new)
            whole = out
        return whole, tuple(after)


register_pytree(Chain, ("configs",))


def chain(*configs: DropoutOperatorConfig | Chain) -> Chain:
    """Returns configs as one, as `optax.chain` does: one state, and one call for each step.

    Under one `jit` their masks are drawn and applied in one pass over the image on GPU and TPU.

    Args:
      *configs: in the order that they are applied in. The configs of another chain are taken as if
        they were written here.

    Returns:
      A `Chain`, with the methods `init_state(key)` and `apply_batch(states, batch, stats=None, *,
      record_ids=None, epoch=None)`.

    Raises:
      TypeError: if one of them is neither a config nor a chain.

    Example:
      >>> import jax
      >>> box = DropoutOperatorConfig(field_key="image", mode="box", stochastic=True)
      >>> augment = chain(box, box.replace(mode="channel"))
      >>> states = augment.init_state(jax.random.key(0))
      >>> step = jax.jit(augment.apply_batch)
      >>> batch, states = step(states, {"image": jax.numpy.ones((8, 32, 32, 3))})
      >>> [int(state.step) for state in states]
      [1, 1]
    """
    parts: list[DropoutOperatorConfig] = []
    for n, config in enumerate(configs):
        if isinstance(config, Chain):
            parts += config.configs
            continue
        kind = DropoutOperatorConfig
        require_kind(f"chain.configs[{n}]", config, kind, f"a {kind.__name__} or a chain of them")
        parts.append(config)
    return Chain(tuple(parts))


def _data(batch: Any) -> Any:
    return batch.data if isinstance(batch, Batch) else batch
