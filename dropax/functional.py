"""Dropout as pure functions: what users call.

Here arguments are checked, fields selected and results merged, once. What is drawn is in
`sampling`, what it does in `dropping`, and how records become a batch in `kit.batching`. Nothing is
kept or changed, so every function goes into the user's own `jit`, `vmap`, `scan` and `grad`.
"""

import functools
import math
from typing import Any, NoReturn

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dropax.config import DropoutOperatorConfig
from dropax.dropping import Fields, drop_record
from dropax.fills import AnyFill, Number, as_fill, needs_of
from dropax.kit.arrays import as_bools, as_int32, as_numbers
from dropax.kit.batching import AnyBatch, RecordEngine, warn_if_baked
from dropax.kit.errors import is_array, must, names, require_kind, require_whole
from dropax.kit.fields import get_field, remove_field, set_field
from dropax.kit.keys import as_key, as_keys, batch_keys, refuse_shared_key
from dropax.kit.meshes import over_mesh
from dropax.kit.serialization import plain
from dropax.kit.state import OperatorState
from dropax.layout import ChannelAxis, Layout
from dropax.modes import Channel, Inverted, Mode, OneOf, Record, Shared
from dropax.sampling import depends_on_fields, is_active, sample_constant, sample_record


def generate_random_params(
    config: DropoutOperatorConfig, key: Any, data_shapes: dict[str, Any]
) -> dict[str, jax.Array]:
    """Draws the keep masks of a batch, and what other options draw.

    Record i draws from `fold_in(key, i)`. Its mask depends on that key, the mode, the element's
    shape and the rate; never on the batch (but with `share_mask` all records have the mask of the
    first). In pixel mode it is bit for bit
    `jax.random.bernoulli(record_key, float32(1) - float32(rate), element_shape)`, with the channels
    last. Whether the config is stochastic makes no difference here, and neither do `where_key` and
    `extent_key`: `apply`, which knows their fields, keeps what they spare.

    Args:
      config: static fields used: `field_key`, `mode`, `fill`, `channel_axis`, `share_mask`.
        Dynamic: `dropout_rate`, `apply_probability`.
      key: one typed or legacy key for the batch, or `(batch_size,)` of them, one for each record.
        Consumed; do not reuse.
      data_shapes: the shape of each field, (B, ...); nested as the data is, or by dotted path.

    Returns:
      `{"keep_mask": mask}`, bool, True where kept: of shape (B, H, W, C) in pixel mode, (B, C) in
      channel mode, and in other modes one that broadcasts to the batch, of size 1 along axes that
      share a draw. Also, of shape (B,): `rate`, float32, if the config's is a range; `applied`,
      bool, if there is an `apply_probability`; `fill_key`, keys, if a fill needs one ("noise");
      `record_key`, keys, if masks depend on fields: with an `extent_key`, and with a `where_key`
      of whose field an exact number drops (`Patch(exact=True)` and the like).

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
    if not isinstance(config, DropoutOperatorConfig):
        _refuse_config("generate_random_params", config)
    require_kind("generate_random_params.data_shapes", data_shapes, dict, "a dict of shapes")
    shape = get_field(data_shapes, config.field_key)
    name = f"generate_random_params.data_shapes[{config.field_key!r}]"
    sizes = plain(shape)
    is_shape = isinstance(sizes, tuple) and all(
        isinstance(size, int) or jax.export.is_symbolic_dim(size) for size in sizes
    )
    if not is_shape:
        raise TypeError(must(name, "be a shape", shape))
    if not sizes:
        raise ValueError(must(name, "have a leading batch axis", shape))
    if any(isinstance(size, int) and size < 0 for size in sizes):
        raise ValueError(must(name, "have no negative size", shape))
    key = as_keys(key, "generate_random_params.key")
    return _sample_batch(config, key, sizes[0], sizes[1:])


@functools.partial(jax.jit, static_argnums=(2, 3), inline=True)
def _sample_batch(
    config: DropoutOperatorConfig, key: jax.Array, batch_size: int, element_shape: tuple[int, ...]
) -> dict[str, jax.Array]:
    """Draws in the shapes that `generate_random_params` documents."""

    def draw(config: DropoutOperatorConfig, state: None, keys: jax.Array) -> Any:
        one = jax.ShapeDtypeStruct((1, *element_shape), np.bool_)
        params = ENGINE.draw(config, keys[:1] if config.share_mask else keys, Fields(one))
        if _is_channel_mode(config):
            channels = Layout.of(element_shape, config.channel_axis).channel_last_shape[-1]
            params["keep_mask"] = params["keep_mask"].reshape(-1, channels)
        shape = keys.shape
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *x.shape[1:])), params), None

    keys = batch_keys(key, (batch_size,), "generate_random_params.key")
    return over_mesh(draw, config, None, keys)[0]


def apply(
    config: DropoutOperatorConfig,
    data: dict[str, Any],
    state: Any,
    metadata: Any,
    random_params: dict[str, Any] | None = None,
    stats: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], Any, Any]:
    """Drops values of one element.

    Deterministic in its arguments: the mask is `random_params["keep_mask"]` if the config is
    stochastic, and else the one fixed pattern of `config.seed` for the element's shape and mode,
    whatever `random_params` holds. Kept values are rescaled if `config.rescale` is on, dropped
    values become `config.fill` by a select, then `clip_range` holds; the dtype never changes. A
    record whose `random_params["applied"]` is false is left as it is, and so is every value where
    the field of `config.where_key` is zero, or beyond the extents of `config.extent_key`. If there
    is a `random_params["record_key"]`, the mask is drawn from it, by these fields.

    Args:
      config: static fields used: all but `stream_name`, `batch_strategy`, `cacheable`. Dynamic:
        `dropout_rate`, if the config is deterministic or rescales.
      data: nested dicts of arrays; must hold `field_key`. Left as it is.
      state: passed through.
      metadata: passed through.
      random_params: `{"keep_mask": mask}`, bool or number (kept if not zero), of any shape that
        broadcasts to the element without changing its shape; in channel mode a mask with one axis
        is along the channel axis. Also, each a scalar: "applied", True by default;
        "rate", by default the config's, required if that is a range and `rescale` is on;
        "fill_key", required if a fill needs a key, as "noise" does; "record_key", required if
        `generate_random_params` returns one.
      stats: `{"mean": ...}` if the fill is "stats_mean": a scalar, one number for each channel,
        or an array that broadcasts to the element. Not used otherwise.

    Returns:
      (data, state, metadata): the data with the result under `target_key`, or `field_key`.

    Raises:
      KeyError: if a field that the config names is not in `data`, something that is needed not in
        `random_params`, or "mean" not in the `stats` of a "stats_mean" fill.
      TypeError: if a field is no array of numbers or bools, `data` or `random_params` is no dict,
        the mask is no array, there is a `clip_range` or noise for complex numbers, or `rescale` for
        integers; if the field of a `FromField` fill has another dtype, or that of `where_key` is
        complex.
      ValueError: if the config is stochastic and there are no `random_params`, the mask or another
        field does not fit the element, `fill` or `clip_range` does not fit the dtype,
        or the element lacks the `channel_axis` or has fewer channels than are to be kept.

    Example:
      >>> config = DropoutOperatorConfig(field_key="image", dropout_rate=0.5)
      >>> data, _, _ = apply(config, {"image": jnp.ones((2, 3, 1))}, {}, {})
      >>> data["image"].dtype, data["image"].shape
      (dtype('float32'), (2, 3, 1))
    """
    if not isinstance(config, DropoutOperatorConfig):
        _refuse_config("apply", config)
    require_kind("apply.data", data, dict, "a dict of arrays")
    fields, stats = ENGINE.select(config, (data, state), stats)
    params = None
    if config.stochastic:
        params = given_params(config, random_params, np.shape(fields.image))
    fields = _apply(config, params, fields, stats)
    return (*ENGINE.merge(config, (data, state), fields), metadata)


@functools.partial(jax.jit, inline=True)
def _apply(config: DropoutOperatorConfig, params: Any, fields: Fields, stats: Any) -> Fields:
    def drop(config: DropoutOperatorConfig, params: Any, fields: Fields, stats: Any) -> Any:
        params = sample_constant(config, fields.image.shape) if params is None else params
        return drop_record(config, fields, params, stats), None

    return over_mesh(drop, config, params, fields, stats)[0]


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
    resumed, shuffled or spread over other devices. A deterministic config draws nothing: every
    record gets the same pattern.

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
      counted as applied, or as skipped if `apply_probability` left them alone or their rate is 0
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
    if not isinstance(config, DropoutOperatorConfig):
        _refuse_config("apply_batch", config)
    out, new_state = ENGINE.apply_batch(config, op_state, batch, record_ids, epoch, stats)
    warn_if_baked(config, op_state, new_state, batch, record_ids)
    return out, new_state


def dropout(
    key: jax.Array | np.ndarray,
    images: ArrayLike,
    *,
    rate: float | jax.Array | tuple[float | jax.Array, float | jax.Array] = 0.1,
    mode: str | Mode = "pixel",
    fill: AnyFill | tuple[Number, ...] = 0.0,
    rescale: bool = False,
    clip_range: tuple[float, float] | None = None,
    channel_axis: ChannelAxis = "auto",
    element_ndim: int = 3,
) -> jax.Array:
    """Drops values of bare arrays.

    One record draws from the key itself, so in pixel mode it is kept where
    `jax.random.bernoulli(key, float32(1) - float32(rate), images.shape)`. Of several records, the
    one at row-major position i of the leading axes draws from `fold_in(key, i)`, or from a key of
    its own: with those of `record_keys` a layer drops the same in any batch, micro-batch or shard.

    Args:
      key: one typed or legacy key, or an array of keys of the batch axes' shape. Consumed; do not
        reuse.
      images: an array of numbers or bools. The last `element_ndim` axes are the element's, those
        before them are batch axes. With fewer axes, the whole is one element.
      rate: expected fraction dropped, in [0, 1]. May be traced. A tuple (low, high) lets each
        record draw its own.
      mode: a mode's name, a mode object, or its text, as in `DropoutOperatorConfig`.
      fill: what dropped values become, as there; there are no statistics and no other fields here.
      rescale: whether kept values are divided by the kept fraction that is expected.
      clip_range: lowest and highest value of the result, or None.
      channel_axis: as in `DropoutOperatorConfig`, of an element.
      element_ndim: how many axes an element has: 3 for (H, W, C), 4 for (T, H, W, C), 2 for tokens
        (N, C) or spectrograms, 1 for features (C,).

    Returns:
      An array of the same shape and dtype.

    Raises:
      TypeError: if an argument is of the wrong type.
      ValueError: if an argument is out of range or does not fit the dtype or the element, whole
        records are to drop ("record") and there is no batch axis, or the images vary over a manual
        axis (`shard_map`) that the key does not vary over.

    Example:
      >>> images = jnp.ones((8, 32, 32, 3), jnp.uint8)
      >>> dropout(jax.random.key(0), images, rate=0.2).dtype
      dtype('uint8')
    """
    if {"values", "stats"} & set(needs_of(as_fill(fill, "dropout.fill"))):
        cure = "Bare arrays have no other fields and no statistics: call apply_batch on a dict."
        raise TypeError(must("dropout.fill", "be computed from the image", fill, cure))
    element_ndim = plain(element_ndim)
    require_whole("dropout.element_ndim", element_ndim, 0)
    array = as_numbers(images, "dropout.images")
    key = as_keys(key, "dropout.key")
    try:
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
        if _drops_records(config.mode_object) and array.ndim <= element_ndim:
            constraint = f"have a batch axis before the {element_ndim} axes of a record"
            batch = f"element_ndim={array.ndim - 1} if the first axis is the batch, "
            cure = f"Pass {batch if array.ndim else ''}images[None] if this is one record."
            raise ValueError(must("dropout.images", constraint, array, cure))
        dropped: jax.Array = drop_images(config, key, array, element_ndim).image
    except (TypeError, ValueError) as error:
        # The caller wrote no config.
        named = str(error).replace(f"{DropoutOperatorConfig.__name__}.dropout_rate", "dropout.rate")
        named = named.replace(f"{DropoutOperatorConfig.__name__}.", "dropout.")
        if named == str(error):
            raise
        raise type(error)(named) from None
    return dropped


@functools.partial(jax.jit, static_argnames="element_ndim")
def drop_images(
    config: DropoutOperatorConfig, key: jax.Array, images: jax.Array, element_ndim: int
) -> Fields:
    """Drops values of bare arrays, as `dropout` says.

    Returns:
      `Fields`, with the keep mask if the config has a `mask_key`.
    """
    refuse_shared_key(key, images, "dropout.key")
    batch_shape = images.shape[: max(0, images.ndim - element_ndim)]

    def drop_all(config: DropoutOperatorConfig, key: jax.Array, images: jax.Array) -> Any:
        records = images.reshape(math.prod(batch_shape), *images.shape[len(batch_shape) :])
        keys = batch_keys(key, batch_shape, "dropout.key").reshape(records.shape[0])
        fields, _ = ENGINE.run(config, keys, Fields(records), None, None)
        return jax.tree.map(lambda leaf: leaf.reshape(images.shape), fields), None

    return over_mesh(drop_all, config, key, images)[0]


def select_fields(config: DropoutOperatorConfig, data: dict[str, Any]) -> Fields:
    """Returns the fields that dropout reads, each checked to be numbers or bools."""
    paths = (config.field_key, *config.sources, *(config.auxiliary_fields or ()))
    where = extent = None
    if config.where_key is not None:
        name = f"field {config.where_key!r}, the where_key,"
        where = as_bools(get_field(data, config.where_key), name)
    if config.extent_key is not None:
        name = f"field {config.extent_key!r}, the extent_key,"
        extent = as_int32(as_numbers(get_field(data, config.extent_key), name, "integers"))
    image, *others = [
        None if path is None else as_numbers(get_field(data, path), f"field {path!r}")
        for path in paths
    ]
    count = len(config.sources)
    values, auxiliary = tuple(others[:count]), tuple(others[count:])
    auxiliary = auxiliary if config.preserve_auxiliary else ()
    return Fields(image, auxiliary, where=where, values=values, extent=extent)


def merge_fields(
    config: DropoutOperatorConfig, data: dict[str, Any], fields: Fields
) -> dict[str, Any]:
    """Returns a copy of the data with the results of `drop_record` written into it."""
    data = set_field(data, config.target_key or config.field_key, fields.image)
    if config.mask_key is not None:
        data = set_field(data, config.mask_key, fields.keep_mask)
    for number, path in enumerate(config.auxiliary_fields or ()):
        if config.preserve_auxiliary:
            data = set_field(data, path, fields.auxiliary[number])
        else:
            data = remove_field(data, path)
    return data


def select_stats(stats: Any) -> dict[str, Any]:
    """Returns the statistics that a "stats_mean" fill reads, checked."""
    if not isinstance(stats, dict) or "mean" not in stats:
        held = names(stats) if isinstance(stats, dict) else stats
        raise KeyError(
            f"apply.stats must hold 'mean' if a fill needs statistics; got {held}. Pass "
            "stats={'mean': ...}, or set them: precomputed_stats, batch_stats_fn, set_statistics."
        )
    mean, name = stats["mean"], "apply.stats['mean']"
    if not is_array(mean):
        # A list of numbers is one of arrays under `jit`, as a part of the state.
        of_jax = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(mean))
        try:
            mean = jnp.asarray(mean) if of_jax else np.asarray(mean)
        except (TypeError, ValueError):
            raise TypeError(must(name, "be a number or an array of numbers", mean)) from None
    mean = as_numbers(mean, name)
    if isinstance(mean, np.ndarray) and mean.dtype.kind in "iu":  # what JAX would truncate
        mean = mean.astype(np.float64)
    return {"mean": mean}


def given_params(
    config: DropoutOperatorConfig, random_params: Any, element_shape: tuple[int, ...]
) -> dict[str, Any]:
    """Returns random params from the user, checked, as `drop_record` takes them."""
    if random_params is None:
        raise ValueError(
            "apply.random_params must hold 'keep_mask' if the config is stochastic; got None. "
            "Draw them: generate_random_params(config, key, {field_key: (1, *image.shape)}), then "
            "pass {'keep_mask': params['keep_mask'][0]}; or call apply_batch, which draws."
        )
    require_kind("apply.random_params", random_params, dict, "a dict with 'keep_mask'")
    needed = {"keep_mask": ""}
    if config.rescale and isinstance(config.dropout_rate, tuple):
        needed["rate"] = " if rescale is True and dropout_rate is a range"
    if "key" in config.needs:
        needed["fill_key"] = " if a fill needs a key"
    if depends_on_fields(config):
        needed["record_key"] = " if the mask depends on an extent_key or where_key"
    for name, why in needed.items():
        if name not in random_params:
            held = names(random_params)
            raise KeyError(f"apply.random_params must hold {name!r}{why}; got {held}.")
    params = {}
    for name in ("keep_mask", "applied", "rate"):
        if name not in random_params:
            continue
        value, argument = random_params[name], f"apply.random_params[{name!r}]"
        if name != "keep_mask" and isinstance(value, int | float):
            value = np.asarray(value)
        if name == "rate":
            value = as_numbers(value, argument, "real numbers or bools")
        else:
            value = as_bools(value, argument)
        if name != "keep_mask" and np.shape(value) != ():
            raise ValueError(must(argument, "be a scalar", value))
        if name == "rate" and isinstance(value, np.ndarray):  # rates saturate
            value = value.clip(0, 1).astype(np.float32)
        params[name] = value
    for name in ("fill_key", "record_key"):
        if name in needed:
            params[name] = as_key(random_params[name], f"apply.random_params[{name!r}]")
    params["keep_mask"] = fit_mask(config, params["keep_mask"], element_shape)
    return params


def fit_mask(
    config: DropoutOperatorConfig, keep_mask: Any, element_shape: tuple[int, ...]
) -> jax.Array:
    """Returns a user's keep mask as bools with the element's axes."""
    layout = Layout.of(element_shape, config.channel_axis)
    return layout.fit(keep_mask, by_channel=_is_channel_mode(config))


def _refuse_config(function: str, config: Any) -> NoReturn:
    raise TypeError(must(f"{function}.config", "be a DropoutOperatorConfig", config))


def _drops_records(mode: Mode) -> bool:
    """Says whether a mode, or one that it is made of, drops whole records."""
    if isinstance(mode, OneOf):
        return any(map(_drops_records, mode.modes))
    if isinstance(mode, Shared | Inverted):
        return _drops_records(mode.mode)
    return isinstance(mode, Record)


def _is_channel_mode(config: DropoutOperatorConfig) -> bool:
    """Says whether masks are documented as (batch, channels)."""
    return isinstance(config.mode_object, Channel)


ENGINE = RecordEngine(
    # Only what is dropped goes through the batch strategy: other fields stay the very objects.
    select=lambda config, parts, stats: (
        select_fields(config, parts[0]),
        select_stats(stats) if "stats" in config.needs else None,
    ),
    merge=lambda config, parts, fields: (merge_fields(config, parts[0], fields), parts[1]),
    draw=lambda config, keys, fields: jax.vmap(
        # Stored if other records use the mask as well.
        lambda key: sample_record(config, key, fields.image.shape[1:], stored=config.share_mask)
    )(keys),
    work=drop_record,
    constant=lambda config, fields: sample_constant(config, fields.image.shape[1:]),
    is_active=is_active,
    is_shared=lambda config: config.share_mask,
)
"""Runs `sample_record` and `drop_record` over the `Fields` of a batch."""
