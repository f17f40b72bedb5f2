"""Dropout itself, as pure functions.

Given a config, keys, state and data, returns new data and new state. Nothing here is kept or
changed, so every function goes into the user's own `jit`, `vmap`, `scan` and `grad`.
Draw, then do: all randomness is in the random params.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dropax.config import DropoutOperatorConfig, Mode
from dropax.dropping import (
    drop,
    drop_values,
    merge_fields,
    require_numbers,
    select_fields,
    select_stats,
)
from dropax.fills import Fill
from dropax.kit.batch import is_empty, records_of, with_records
from dropax.kit.batching import AnyBatch, batched
from dropax.kit.errors import must, require_kind, require_whole
from dropax.kit.fields import get_field
from dropax.kit.keys import as_key, fold_in_each, map_keys, record_keys, refuse_shared_key
from dropax.kit.meshes import call_over_mesh
from dropax.kit.state import OperatorState
from dropax.layout import ChannelAxis
from dropax.sampling import (
    fit_mask,
    fixed_params,
    given_params,
    is_active,
    sample_each,
    sample_params,
)


def generate_random_params(
    config: DropoutOperatorConfig, key: Any, data_shapes: dict[str, Any]
) -> dict[str, jax.Array]:
    """Draws the keep masks of a batch, and what other options draw.

    Record i draws from `fold_in(key, i)`. Its mask depends on that key, the mode, the element's
    shape and the rate; never on the batch (but with `share_mask` all records have the mask of the
    first). In pixel mode it is bit for bit
    `jax.random.bernoulli(record_key, float32(1) - float32(rate), element_shape)`, with the channels
    last. Whether the config is stochastic makes no difference here.

    Args:
      config: static fields used: `field_key`, `mode`, `fill`, `channel_axis`, `share_mask`.
        Dynamic: `dropout_rate`, `apply_probability`.
      key: one typed or legacy key for the batch, or `(batch_size,)` of them, one for each record.
        Consumed; do not reuse.
      data_shapes: the shape of each field, (B, ...); nested as the data is, or by dotted path.

    Returns:
      `{"keep_mask": mask}`, bool, True where kept: of shape (B, H, W, C) in pixel mode, (B, C) in
      channel mode, and in other modes one that broadcasts to the batch, with one channel. Also,
      of shape (B,): `rate`, float32, where the config's is a range; `applied`, bool, where
      `apply_probability` is not 1; `fill_key`, keys, where the fill is "noise".

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
    if config.share_mask:
        params = sample_params(config, keys[0], element_shape)
        return jax.tree.map(lambda p: jnp.broadcast_to(p, (batch_size, *p.shape)), params)
    return sample_each(config, keys, element_shape)


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
    whatever `random_params` holds. Kept values are rescaled where `config.rescale` says so, dropped
    values become `config.fill` by a select, then `clip_range` holds; the dtype never changes. A
    record whose `random_params["applied"]` is false is left as it is.

    Args:
      config: static fields used: all but `stream_name`, `batch_strategy`, `cacheable`. Dynamic:
        `dropout_rate`, where the config is deterministic or rescales.
      data: nested dicts of arrays; must hold `field_key`. Left as it is.
      state: passed through.
      metadata: passed through.
      random_params: `{"keep_mask": mask}`, bool or number (kept where not zero), of any shape that
        broadcasts to the element without changing its shape; in channel mode a mask with one axis
        lies along the channel axis. Also, each a scalar: "applied", True where it is left out;
        "rate", by default the config's, which must be there where that is a range and `rescale` is
        on; "fill_key", which must be there where the fill is "noise".
      stats: `{"mean": ...}` where the fill is "stats_mean": a scalar, one number for each channel,
        or an array that broadcasts to the element. Not used otherwise.

    Returns:
      (data, state, metadata): the data with the result under `target_key`, or `field_key`.

    Raises:
      KeyError: if `field_key` or an auxiliary field is not in `data`, something that is needed not
        in `random_params`, or "mean" not in the `stats` of a "stats_mean" fill.
      TypeError: if a field is no array of numbers or bools, `data` or `random_params` is no dict,
        the mask is no array, there is a `clip_range` or noise for complex numbers, or `rescale` for
        integers.
      ValueError: if the config is stochastic and there are no `random_params`, the mask or an
        auxiliary field does not fit the element, `fill` or `clip_range` does not fit the dtype,
        or the element lacks the `channel_axis` or has fewer channels than are to be kept.

    Example:
      >>> config = DropoutOperatorConfig(field_key="image", dropout_rate=0.5)
      >>> data, _, _ = apply(config, {"image": jnp.ones((2, 3, 1))}, {}, {})
      >>> data["image"].dtype, data["image"].shape
      (dtype('float32'), (2, 3, 1))
    """
    _require_config("apply", config)
    require_kind("apply.data", data, dict, "a dict of arrays")
    selected = select_fields(config, data)
    if config.stochastic:
        params = given_params(config, random_params)
    else:
        params = fixed_params(config, get_field(selected, config.field_key).shape)
    dropped = drop(config, selected, params, select_stats(config, stats))
    return merge_fields(config, data, dropped), state, metadata


def apply_batch(
    config: DropoutOperatorConfig,
    op_state: OperatorState,
    batch: AnyBatch,
    stats: dict[str, Any] | None = None,
    *,
    record_ids: Any = None,
    epoch: Any = None,
) -> tuple[AnyBatch, OperatorState]:
    """Drops values of each record of a batch.

    The call's key is `fold_in(op_state.key, op_state.step)`; record i draws from `fold_in(that, i)`
    as `generate_random_params` says, and the step advances by one. With `record_ids` and `epoch` a
    record's mask depends on `op_state.key`, the epoch and its id alone, so that a run can be
    resumed, shuffled or spread over other devices. A deterministic config draws nothing and gives
    every record the same pattern.

    Args:
      config: as for `apply`, and static field `batch_strategy`.
      op_state: from `init_state`, or from the call before.
      batch: a `Batch`, or a dict of arrays of shape (B, ...).
      stats: as for `apply`; None for `op_state.statistics`.
      record_ids: an id for each record, unsigned, of up to 64 bits, as `as_record_ids` takes them;
        None for those of a `Batch`, if it has any. The same id may come more than once.
      epoch: an int in [0, 2^32), or a scalar array, which may be traced. Must come with ids, so
        that no epoch repeats the masks of another.

    Returns:
      (batch, op_state): a batch of the same kind, and the state of the next step, with B records
      counted as applied, or as skipped where `apply_probability` left them alone or their rate is 0
      or below. Rows that only pad a `Batch` (its `valid_mask`) are not counted.

    Raises:
      KeyError, TypeError, ValueError: as `apply`.
      TypeError: if `batch` is neither, `op_state` is no `OperatorState`, or ids or epoch are no
        integers.
      ValueError: if ids come without an epoch or an epoch without ids, there is not one id for each
        record, an id is negative, or ids come with `share_mask`; if leading axes differ, the data
        varies over a manual axis (`shard_map`) that neither the key nor the ids vary over, or the
        strategy is "scan" and the batch axis is sharded over explicit mesh axes.

    Example:
      >>> from dropax import init_state
      >>> config = DropoutOperatorConfig(field_key="image", stochastic=True)
      >>> state = init_state(config, jax.random.key(0))
      >>> step = jax.jit(lambda state, batch: apply_batch(config, state, batch))
      >>> batch, state = step(state, {"image": jnp.ones((8, 32, 32, 3))})
      >>> batch["image"].shape, int(state.step)
      ((8, 32, 32, 3), 1)
    """
    _require_config("apply_batch", config)
    if is_empty(batch):
        return batch, op_state
    data, states = records_of(batch, "apply_batch.batch")
    # Only what is dropped goes through the batch strategy: other fields stay the very objects.
    fields = select_fields(config, data)
    stats = getattr(op_state, "statistics", None) if stats is None else stats
    stats = select_stats(config, stats) or {}
    selected = with_records(batch, fields, {})
    result, op_state = drop_batch(
        config, op_state, selected, stats, record_ids=record_ids, epoch=epoch
    )
    dropped, _ = records_of(result, "apply_batch.batch")
    return with_records(batch, merge_fields(config, data, dropped), states), op_state


def dropout(
    key: jax.Array | np.ndarray,
    images: ArrayLike,
    *,
    rate: float | jax.Array | tuple[float | jax.Array, float | jax.Array] = 0.1,
    mode: Mode = "pixel",
    fill: Fill = 0.0,
    rescale: bool = False,
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
      rate: expected fraction dropped, in [0, 1]. May be traced. A tuple (low, high) lets each
        record draw its own.
      mode: a mode's name, or a region object, as in `DropoutOperatorConfig`.
      fill: what dropped values become, as there; there are no statistics here.
      rescale: whether kept values are divided by the kept fraction that is expected.
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
        rescale=rescale,
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

    def drop_all(
        images: jax.Array, config: DropoutOperatorConfig, key: jax.Array
    ) -> tuple[jax.Array, None]:
        def draw(key: jax.Array) -> dict[str, jax.Array]:
            params = sample_params(config, key, element_shape)
            return {**params, "keep_mask": fit_mask(config, params["keep_mask"], element_shape)}

        def drop_one(image: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
            return drop_values(config, image, params)

        if not batch_shape:
            return drop_one(images, draw(key)), None
        numbers = jnp.arange(math.prod(batch_shape), dtype=jnp.uint32)
        params = map_keys(draw, fold_in_each(key, numbers))
        for _ in batch_shape:
            drop_one = jax.vmap(drop_one)
        params = jax.tree.map(lambda p: p.reshape(batch_shape + p.shape[1:]), params)
        return drop_one(images, params), None

    dropped: jax.Array = call_over_mesh(drop_all, images, config, key)[0]
    return dropped


drop_batch = batched(
    generate_random_params,
    apply,
    is_active=is_active,
    is_shared=lambda config: bool(config.share_mask),
)
"""`apply_batch` for fields that were selected."""


def _require_config(function: str, config: Any) -> None:
    kind = DropoutOperatorConfig
    require_kind(f"{function}.config", config, kind, f"a {kind.__name__}")
