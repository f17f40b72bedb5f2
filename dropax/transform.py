"""Dropout itself, as pure functions.

Given a config, keys, state and data, returns new data and new state. Nothing here is kept or
changed, so every function goes into the user's own `jit`, `vmap`, `scan` and `grad`.
Draw, then do: all randomness is in the random params.
"""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dropax.batching import AnyBatch, batched
from dropax.checks import must, require_kind, require_whole
from dropax.config import DropoutOperatorConfig, OperatorConfig
from dropax.containers import is_empty, records_of, with_records
from dropax.dropping import drop, drop_values, merge_fields, require_numbers, select_fields
from dropax.fields import get_field
from dropax.keys import as_key, fold_in_each, map_keys, record_keys, refuse_shared_key
from dropax.layouts import ChannelAxis
from dropax.masks import fit_mask, fixed_mask, given_mask, sample_mask
from dropax.regions import Region
from dropax.state import OperatorState, new_state


def init_state(config: OperatorConfig, key: Any = None) -> OperatorState:
    """Makes the state that `apply_batch` threads through.

    Args:
      config: static field used: `stochastic`. Its `precomputed_stats` are the first statistics.
      key: one typed or legacy key; all randomness of the state comes from it. Copied, and not to be
        used elsewhere. A deterministic config needs none.

    Returns:
      The state at step 0, in buffers of its own, so that donating it deletes nobody's key.

    Raises:
      TypeError: if `key` is no key, or is left out where the config is stochastic.
      ValueError: if it is an array of keys.

    Example:
      >>> config = DropoutOperatorConfig(field_key="image", stochastic=True)
      >>> init_state(config, jax.random.key(0)).step
      Array(0, dtype=uint32)
    """
    require_kind("init_state.config", config, OperatorConfig, "a config")
    if key is None and not config.stochastic:
        key = jax.random.key(0, impl="threefry2x32")
    return new_state(as_key(key, "init_state.key"), config.precomputed_stats)


def generate_random_params(
    config: DropoutOperatorConfig, key: Any, data_shapes: dict[str, Any]
) -> dict[str, jax.Array]:
    """Draws the keep masks of a batch.

    Record i draws from `fold_in(key, i)`. Its mask depends on that key, the mode, the element's
    shape and the rate; never on the batch. In pixel mode it is bit for bit
    `jax.random.bernoulli(record_key, float32(1) - float32(rate), element_shape)`, with the channels
    last. Whether the config is stochastic makes no difference here.

    Args:
      config: static fields used: `field_key`, `mode`, `channel_axis`. Dynamic: `dropout_rate`.
      key: one typed or legacy key for the batch, or `(batch_size,)` of them, one for each record.
        Consumed; do not reuse.
      data_shapes: the shape of each field, (B, ...); nested as the data is, or by dotted path.

    Returns:
      `{"keep_mask": mask}`, bool, True where kept: of shape (B, H, W, C) in pixel mode and
      (B, C) in channel mode.

    Raises:
      KeyError: if `field_key` is not in `data_shapes`.
      TypeError: if `key` is no key, or the shape is none.
      ValueError: if there are several keys but not one for each record, or the element lacks an
        axis that the mode needs.

    Example:
      >>> config = DropoutOperatorConfig(field_key="image", mode="channel")
      >>> params = generate_random_params(config, jax.random.key(0), {"image": (8, 32, 32, 3)})
      >>> params["keep_mask"].shape
      (8, 3)
    """
    owner = "generate_random_params"
    _require_config(owner, config)
    require_kind(f"{owner}.data_shapes", data_shapes, dict, "a dict of shapes")
    shape = get_field(data_shapes, config.field_key)
    sizes = shape if isinstance(shape, tuple | list) else [None]
    if not all(isinstance(size, int | np.integer) for size in sizes):
        raise TypeError(must(f"{owner}.data_shapes[{config.field_key!r}]", "be a shape", shape))
    if not shape:
        constraint = "have a leading batch axis"
        raise ValueError(must(f"{owner}.data_shapes[{config.field_key!r}]", constraint, shape))
    batch_size, element_shape = shape[0], tuple(shape[1:])
    keys = record_keys(key, batch_size, f"{owner}.key")
    return {"keep_mask": map_keys(lambda key: sample_mask(config, key, element_shape), keys)}


def apply(
    config: DropoutOperatorConfig,
    data: dict[str, Any],
    state: Any,
    metadata: Any,
    random_params: dict[str, Any] | None = None,
    stats: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], Any, Any]:
    """Drops values of one element.

    Deterministic in its arguments: the mask is `random_params["keep_mask"]` where the config is
    stochastic, and else the one fixed pattern of `config.seed` for the element's shape and mode,
    whatever `random_params` holds. Dropped values become `config.fill` by a select, then
    `clip_range` holds; the dtype never changes.

    Args:
      config: static fields used: all but `stream_name`, `batch_strategy`, `cacheable`. Dynamic:
        `dropout_rate`, where the config is deterministic.
      data: nested dicts of arrays; must hold `field_key`. Left as it is.
      state: passed through.
      metadata: passed through.
      random_params: `{"keep_mask": mask}`, bool or number (kept where not zero), of any shape that
        broadcasts to the element without changing its shape; in channel mode a mask with one axis
        lies along the channel axis.
      stats: not used by dropout.

    Returns:
      (data, state, metadata): the data with the result under `target_key`, or `field_key`.

    Raises:
      KeyError: if `field_key` or an auxiliary field is not in `data`, or "keep_mask" not in
        `random_params`.
      TypeError: if a field is no array of numbers or bools, `data` or `random_params` is no dict,
        the mask is no array, or there is a `clip_range` for complex numbers.
      ValueError: if the config is stochastic and there are no `random_params`, the mask or an
        auxiliary field does not fit the element, `fill` or `clip_range` does not fit the dtype,
        or the element lacks the `channel_axis` or has fewer channels than are to be kept.

    Example:
      >>> config = DropoutOperatorConfig(field_key="image", dropout_rate=0.5)
      >>> data, _, _ = apply(config, {"image": jnp.ones((2, 3, 1))}, {}, {})
      >>> data["image"].dtype, data["image"].shape
      (dtype('float32'), (2, 3, 1))
    """
    del stats
    _require_config("apply", config)
    require_kind("apply.data", data, dict, "a dict of arrays")
    selected = select_fields(config, data)
    if config.stochastic:
        keep_mask = given_mask(random_params)
    else:
        keep_mask = fixed_mask(config, get_field(selected, config.field_key).shape)
    return merge_fields(config, data, drop(config, selected, keep_mask)), state, metadata


def apply_batch(
    config: DropoutOperatorConfig,
    op_state: OperatorState,
    batch: AnyBatch,
    stats: dict[str, Any] | None = None,
) -> tuple[AnyBatch, OperatorState]:
    """Drops values of each record of a batch.

    The call's key is `fold_in(op_state.key, op_state.step)`; record i draws from `fold_in(that, i)`
    as `generate_random_params` says, and the step advances by one. A deterministic config draws
    nothing and gives every record the same pattern.

    Args:
      config: as for `apply`, and static field `batch_strategy`.
      op_state: from `init_state`, or from the call before.
      batch: a `Batch`, or a dict of arrays of shape (B, ...).
      stats: not used by dropout.

    Returns:
      (batch, op_state): a batch of the same kind, and the state of the next step, with B records
      counted as applied, or as skipped where the rate is 0 or below.

    Raises:
      KeyError, TypeError, ValueError: as `apply`.
      TypeError: if `batch` is neither, or `op_state` is no `OperatorState`.
      ValueError: if leading axes differ, the data varies over a manual axis (`shard_map`) that the
        key does not vary over, or the strategy is "scan" and the batch axis is sharded over
        explicit mesh axes.

    Example:
      >>> config = DropoutOperatorConfig(field_key="image", stochastic=True)
      >>> state = init_state(config, jax.random.key(0))
      >>> step = jax.jit(lambda state, batch: apply_batch(config, state, batch))
      >>> batch, state = step(state, {"image": jnp.ones((8, 32, 32, 3))})
      >>> batch["image"].shape, int(state.step)
      ((8, 32, 32, 3), 1)
    """
    del stats
    _require_config("apply_batch", config)
    if is_empty(batch):
        return batch, op_state
    data, states = records_of(batch, "apply_batch.batch")
    # Only what is dropped goes through the batch strategy: other fields stay the very objects.
    fields = select_fields(config, data)
    dropped, op_state = _drop_batch(config, op_state, fields)
    return with_records(batch, merge_fields(config, data, dropped), states), op_state


def dropout(
    key: Any,
    images: Any,
    *,
    rate: float | jax.Array = 0.1,
    mode: Literal["pixel", "channel"] | Region = "pixel",
    fill: float = 0.0,
    clip_range: tuple[float, float] | None = None,
    channel_axis: ChannelAxis = "auto",
    element_ndim: int = 3,
) -> jax.Array:
    """Drops values of bare arrays.

    One record draws from the key itself, so in pixel mode it is kept where
    `jax.random.bernoulli(key, float32(1) - float32(rate), images.shape)`. Of several records, the
    one at row-major position i of the leading axes draws from `fold_in(key, i)`.

    Args:
      key: one typed or legacy key. Consumed; do not reuse.
      images: an array of numbers or bools. The last `element_ndim` axes are the element's, those
        before them are batch axes. With fewer axes, the whole is one element.
      rate: expected fraction dropped, in [0, 1]. May be traced.
      mode: "pixel", "channel", or a region object.
      fill: what dropped values become.
      clip_range: lowest and highest value of the result, or None.
      channel_axis: as in `DropoutOperatorConfig`, of an element.
      element_ndim: how many axes an element has: 3 for (H, W, C), 4 for (T, H, W, C).

    Returns:
      An array of the same shape and dtype.

    Raises:
      TypeError: if an argument is of another kind.
      ValueError: if an argument is out of range or does not fit the dtype or the element, or the
        images vary over a manual axis (`shard_map`) that the key does not vary over.

    Example:
      >>> images = jnp.ones((8, 32, 32, 3), jnp.uint8)
      >>> dropout(jax.random.key(0), images, rate=0.2).dtype
      dtype('uint8')
    """
    config = DropoutOperatorConfig(
        stochastic=True,
        field_key="images",
        clip_range=clip_range,
        dropout_rate=rate,
        mode=mode,
        fill=fill,
        channel_axis=channel_axis,
    )
    require_whole("dropout.element_ndim", element_ndim, 0)
    require_numbers(images, "dropout.images")
    return _dropout(config, as_key(key, "dropout.key"), images, element_ndim)


@functools.partial(jax.jit, static_argnames="element_ndim")
def _dropout(
    config: DropoutOperatorConfig, key: jax.Array, images: jax.Array, element_ndim: int
) -> jax.Array:
    refuse_shared_key(key, images, "dropout.key")
    batch_shape = images.shape[: max(0, images.ndim - element_ndim)]
    element_shape = images.shape[len(batch_shape) :]

    def draw(key: jax.Array) -> jax.Array:
        return fit_mask(config, sample_mask(config, key, element_shape), element_shape)

    if not batch_shape:
        return drop_values(config, images, draw(key))
    numbers = jnp.arange(math.prod(batch_shape), dtype=jnp.uint32)
    masks = map_keys(draw, fold_in_each(key, numbers))
    return drop_values(config, images, masks.reshape(batch_shape + masks.shape[1:]))


def is_active(config: DropoutOperatorConfig) -> Any:
    """Says whether a config drops anything at all. A rate that is NaN drops all."""
    return ~(jnp.asarray(config.dropout_rate) <= 0)


_drop_batch = batched(generate_random_params, apply, is_active=is_active)


def _require_config(function: str, config: Any) -> None:
    kind = DropoutOperatorConfig
    require_kind(f"{function}.config", config, kind, f"a {kind.__name__}")
