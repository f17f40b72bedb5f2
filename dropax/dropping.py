"""What random params do to the fields of one record.

The image has its dropped values replaced, its kept ones rescaled, and all of them clipped; the
auxiliary fields drop by the same mask.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dropax.config import DropoutOperatorConfig
from dropax.fills import (
    FromField,
    clip_to_range,
    exact_fill,
    fill_dropped,
    in_dtype,
    mean_fill,
    noise_fill,
    widened,
)
from dropax.kit.errors import must
from dropax.kit.trees import broadcast_rank
from dropax.layout import Layout
from dropax.modes import expected_fraction


class Fields(NamedTuple):
    """The fields of a record, or of a batch of them, that dropout reads or writes.

    Attributes:
      image: what is dropped from.
      auxiliary: the fields that drop with it, in the order of the config's `auxiliary_fields`.
      keep_mask: bool, of the image's shape; None if the config has no `mask_key`, and before.
      where: the field of the config's `where_key`; None if it has none, and after.
      fill: the field of a `FromField` fill; None if the fill is another, and after.
    """

    image: Any
    auxiliary: tuple[Any, ...] = ()
    keep_mask: Any = None
    where: Any = None
    fill: Any = None


def drop_record(
    config: DropoutOperatorConfig,
    fields: Fields,
    params: dict[str, Any],
    stats: dict[str, Any] | None = None,
) -> Fields:
    """Returns the fields of one record with random params applied, as `dropax.apply` says.

    Args:
      config: what is dropped, and what takes its place.
      fields: arrays of numbers or bools.
      params: as `sample_record` returns them.
      stats: `{"mean": ...}` if the fill is "stats_mean".

    Returns:
      The new fields.
    """
    image, mask = jnp.asarray(fields.image), params["keep_mask"]
    layout = Layout.of(image.shape, config.channel_axis)
    may_change, cure = None, ""  # where values may change; None for everywhere
    if "applied" in params:
        may_change = jnp.asarray(params["applied"], jnp.bool_)
    if fields.where is not None:
        where = layout.fit_where(jnp.asarray(fields.where), f"field {config.where_key!r}")
        may_change = where if may_change is None else where & may_change
        if layout.channel_axis is not None and mask.shape[layout.channel_axis] == 1:
            # Should auxiliary fields not follow, it is for the channels of this field.
            cure = f"Pass field {config.where_key!r}, the where_key, without channels."
    if may_change is not None:
        mask = mask | ~may_change
    dropped = image
    if config.rescale:
        dropped = _rescaled(config, image, layout, params.get("rate", config.dropout_rate))
    dropped = fill_dropped(dropped, mask, _fill_of(config, fields, layout, params, stats))
    if config.clip_range is not None:
        owner = config.owner("clip_range")
        dropped = clip_to_range(dropped, config.clip_range, owner)
    auxiliary = tuple(
        _drop_auxiliary(config, number, jnp.asarray(field), layout, mask, cure)
        for number, field in enumerate(fields.auxiliary)
    )
    if may_change is not None and (config.rescale or config.clip_range is not None):
        # Elsewhere values are kept, but have been rescaled and clipped.
        dropped = fill_dropped(dropped, may_change, image)
    shown = None if config.mask_key is None else jnp.broadcast_to(mask, image.shape)
    return Fields(dropped, auxiliary, shown)


def _drop_auxiliary(
    config: DropoutOperatorConfig,
    number: int,
    field: jax.Array,
    layout: Layout,
    mask: jax.Array,
    cure: str,
) -> jax.Array:
    """Returns an auxiliary field with its dropped values replaced; `cure` is as for `follow`."""
    owner, fill = f"field {config.auxiliary_fields[number]!r}", config.auxiliary_fill  # type: ignore[index]
    field_mask = layout.follow(mask, field.shape, f"auxiliary {owner}", cure)
    value = fill[number] if isinstance(fill, tuple) else fill
    owner = f"{config.owner('auxiliary_fill')} of {owner}"
    in_range = config.validate_domain_constraints
    filling = exact_fill(value, field.dtype, owner, in_range=in_range)
    return fill_dropped(field, field_mask, filling)


def _fill_of(
    config: DropoutOperatorConfig,
    fields: Fields,
    layout: Layout,
    params: dict[str, Any],
    stats: dict[str, Any] | None,
) -> Any:
    """Returns what dropped values become, in the image's dtype and broadcasting to it."""
    fill, owner, image = config.fill, config.owner("fill"), jnp.asarray(fields.image)
    if isinstance(fill, FromField):
        other, owner = jnp.asarray(fields.fill), f"field {fill.field!r}, a fill,"
        if other.dtype != image.dtype:
            constraint = f"have the dtype {image.dtype} of field {config.field_key!r}"
            raise TypeError(must(owner, constraint, other, "Convert it with astype."))
        return broadcast_rank(other, image.shape, owner)
    if fill == "mean":
        return mean_fill(image, layout.spatial_axes)
    if fill == "noise":
        return noise_fill(params["fill_key"], image, layout.spatial_axes, owner)
    if fill == "stats_mean":
        owner, mean = "apply.stats['mean']", jnp.asarray(stats["mean"])  # type: ignore[index]
        mean = layout.spread(mean, owner) if mean.ndim == 1 else mean
        return in_dtype(widened(broadcast_rank(mean, image.shape, owner)), image.dtype)
    value = exact_fill(fill, image.dtype, owner, in_range=config.validate_domain_constraints)
    return layout.spread(value, owner) if isinstance(fill, tuple) else value


def _rescaled(
    config: DropoutOperatorConfig, image: jax.Array, layout: Layout, rate: Any
) -> jax.Array:
    """Returns an image divided by the fraction of it that is kept in expectation."""
    if not jnp.issubdtype(image.dtype, jnp.inexact):
        owner = config.owner("rescale")
        cure = "Convert the image to a floating-point dtype first."
        raise TypeError(must(owner, f"be False for dtype {image.dtype}", True, cure))
    kept = 1 - expected_fraction(config.mode_object, layout.channel_last_shape, rate)
    # If nothing is kept nothing is divided, and no gradient is 0 / 0.
    kept = jnp.where(kept > 0, kept, 1)
    wide = widened(image)
    return (wide / kept.astype(wide.dtype)).astype(image.dtype)
