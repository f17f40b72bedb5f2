"""Operators as objects.

Each method is the pure function of the same name with the operator's config and state in front, and
stores the state that comes back.
"""

import logging
from typing import Any, overload

import jax

from dropax import transform
from dropax.batching import AnyBatch, batched, count_records
from dropax.checks import is_array, is_traced, require_kind
from dropax.config import DropoutOperatorConfig
from dropax.containers import Batch, Element, is_empty, records_of, with_records
from dropax.dropping import drop, merge_fields, select_fields, select_stats
from dropax.fields import get_field
from dropax.ids import as_epoch, as_record_ids
from dropax.masks import fixed_params, given_params, is_active, sample_params
from dropax.shells import Shell, atomic
from dropax.state import OperatorState
from dropax.trees import refuse_endless

logger = logging.getLogger(__name__)  # part of the documented interface, for operators' own use

_MISSING: Any = object()


class ModalityOperator(Shell):
    """An operator on elements: the base to write others on.

    A subclass defines `apply`, and, if it can be stochastic, `generate_random_params`. What it
    needs belongs into its config: config and state are what goes through `jit` as a pytree. A
    stochastic operator draws one key from its stream when it is made; that key and the number of
    draws since are all its randomness. Attributes that a subclass sets in its own `__init__` are
    not part of the pytree. Threads may share an operator: no draw is repeated and no count lost,
    but which thread gets which draw is open.

    Args:
      config: what is fixed.
      rngs: where a stochastic operator gets its key from: a `dropax.Rngs`, an int seed, a key, or
        anything that gives a key when its stream is called. A deterministic one needs none.
      name: for people to read.

    Attributes:
      config: as given.
      rngs: as given; None after the operator went through a pytree.
      name: as given.

    Raises:
      TypeError: if an argument is of another kind.
      ValueError: if the config is stochastic and `rngs` is None.
      KeyError: if `rngs` has neither the config's stream nor a default one.
    """

    # What a subclass defines.

    def generate_random_params(
        self, rng: jax.Array, data_shapes: dict[str, Any]
    ) -> dict[str, jax.Array] | None:
        """Draws what `apply` needs, for a whole batch. None unless a subclass says otherwise.

        Args:
          rng: B keys, one for each record; `jax.vmap` over them. Under "scan", B is 1.
          data_shapes: the shape of each field, (B, ...).

        Returns:
          Arrays of shape (B, ...), or None where the operator is deterministic.

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
        self, op_state: OperatorState, batch: Batch, stats: dict[str, Any] | None, epoch: Any
    ) -> tuple[Batch, OperatorState]:
        run = batched(
            lambda _, keys, shapes: self.generate_random_params(keys, shapes),
            lambda _, *arguments: self.apply(*arguments),
        )
        return run(self.config, op_state, batch, stats, epoch=epoch)

    # Batches.

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
        """Works on each record of a batch, and advances the operator's state.

        `apply_batch(batch, stats=None)` takes a `Batch` or a dict of arrays and returns the same
        kind. With a third argument, as `apply_batch(data, states, metadata)`, it returns the three.

        Args:
          batch: a `Batch`, or a dict of arrays of shape (B, ...).
          stats: for `apply`; None for `get_statistics()`. In the second form, the records' states:
            a dict of arrays of shape (B, ...), which may be empty.
          metadata: in the second form, anything; returned as it is.
          record_ids: an id a record; see `dropax.apply_batch`. None for those of a `Batch`.
          epoch: an int in [0, 2^32), or a scalar array. Must come with ids.

        Returns:
          The batch, with the same structure and metadata; or (data, states, metadata).

        Raises:
          KeyError: if a field is missing.
          TypeError: if the batch is neither, or holds something that is no array; or if ids or
            epoch are no integers.
          ValueError: if leading axes differ; if ids come without an epoch or an epoch without ids,
            or are not one a record; or if the operator is stochastic and was captured in a closure
            under `jit`, which would bake one mask in.
        """
        owner = f"{type(self).__name__}.apply_batch.batch"
        if metadata is not _MISSING:
            require_kind(owner, batch, dict, "a dict of arrays where metadata is given")
            if stats is not None:
                what = f"{type(self).__name__}.apply_batch.stats"
                require_kind(what, stats, dict, "the records' states where metadata is given")
            refuse_endless((batch, stats), owner)
            whole = Batch.unchecked(batch, stats or {})
            out = self.apply_batch(whole, record_ids=record_ids, epoch=epoch)
            return out.data, out.states if stats else stats, metadata
        if is_empty(batch):
            return batch
        data, states = records_of(batch, owner)
        if record_ids is None:
            record_ids = getattr(batch, "record_ids", None)
        if not self.stochastic:  # nothing is drawn
            record_ids = epoch = None
        # Ids of 64 bits are split here: `jit` would cut them off.
        bare = Batch.unchecked(
            data,
            states,
            record_ids=None if record_ids is None else as_record_ids(record_ids),
            valid_mask=getattr(batch, "valid_mask", None),
        )
        stats = self._state.statistics if stats is None else stats
        out, new_state = self._run_batch(
            self._state.replace(statistics=None),
            bare,
            stats,
            None if epoch is None else as_epoch(epoch),
        )
        self._store(new_state, "apply_batch", drew=self.stochastic)
        return with_records(batch, out.data, out.states)

    def __call__(self, batch: AnyBatch, stats: dict[str, Any] | None = None) -> AnyBatch:
        """Works on a batch, as `apply_batch` does."""
        return self.apply_batch(batch, stats)

    def get_output_structure(self, sample_data: Any, sample_state: Any) -> tuple[Any, Any]:
        """Returns the structure of what `apply` returns, with None for leaves.

        Args:
          sample_data: the data of one element, or its shapes (`jax.ShapeDtypeStruct`).
          sample_state: the state of one element; may hold anything.

        Returns:
          (data, state), trees with None leaves.
        """
        data, state = self._trace(sample_data, sample_state)
        return jax.tree.map(lambda _: None, data), state

    def output_spec(self, input_spec: Any) -> Any:
        """Returns what `apply` makes of an element, as shapes and dtypes.

        Args:
          input_spec: the data of an element as `jax.ShapeDtypeStruct`, or an `Element` of these.

        Returns:
          The same kind, with every field that `apply` adds.
        """
        if isinstance(input_spec, Element):
            return input_spec.replace(data=self._trace(input_spec.data, input_spec.state)[0])
        return self._trace(input_spec, {})[0]

    def _trace(self, data: Any, state: Any) -> tuple[Any, Any]:
        """Returns the spec of the data that `apply` returns, and the structure of the state."""
        owner = f"{type(self).__name__}: the structure of an element's data"
        require_kind(owner, data, dict, "a dict of arrays or of their shapes")
        refuse_endless((data, state), owner)
        leaves, structure = jax.tree.flatten(state)
        arrays = [leaf if is_array(leaf) else None for leaf in leaves]

        def run(data: Any, arrays: list[Any], key: jax.Array) -> tuple[Any, Any]:
            pairs = zip(leaves, arrays, strict=True)
            state = jax.tree.unflatten(
                structure, [leaf if array is None else array for leaf, array in pairs]
            )
            params = None
            if self.stochastic:
                shapes = jax.tree.map(lambda leaf: (1, *leaf.shape), data)
                params = self.generate_random_params(key[None], shapes)
                params = jax.tree.map(lambda leaf: leaf[0], params)
            data, state, _ = self.apply(data, state, {}, params, self.get_statistics())
            return data, jax.tree.map(lambda _: None, state)

        spec: tuple[Any, Any] = jax.eval_shape(run, data, arrays, jax.random.key(0))
        return spec


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
