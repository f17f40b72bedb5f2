"""What random params do to the fields of one record.

The image has its dropped values replaced, its kept ones rescaled, and all of them clipped; the
auxiliary fields drop by the same mask.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dropax.config import DropoutOperatorConfig
from dropax.fills import (
    Fill,
    clip_to_range,
    exact_fill,
    fill_dropped,
    fit_values,
    needs_of,
    spread_channels,
)
from dropax.kit.errors import must
from dropax.layout import Layout
from dropax.modes import expected_fraction
from dropax.moments import widened
from dropax.sampling import sample_within


class Fields(NamedTuple):
    """The fields of a record, or of a batch of them, that dropout reads or writes.

    Attributes:
      image: what is dropped from.
      auxiliary: the fields that drop with it, in the order of the config's `auxiliary_fields`.
      keep_mask: bool, of the image's shape; None if the config has no `mask_key`, and before.
      where: the field of the config's `where_key`; None if it has none, and after.
      extent: the field of the config's `extent_key`; None if it has none, and after.
      values: for each of the config's `fills`, the field that it reads, or None; () after.
    """

    image: Any
    auxiliary: tuple[Any, ...] = ()
    keep_mask: Any = None
    where: Any = None
    values: tuple[Any, ...] = ()
    extent: Any = None


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
      stats: for fills that need them.

    Returns:
      The new fields.
    """
    image, mask = jnp.asarray(fields.image), params["keep_mask"]
    layout = Layout.of(image.shape, config.channel_axis)
    where, cure = None, ""  # where values may drop; None for everywhere
    extents: tuple[jax.Array, ...] = ()
    if fields.where is not None:
        where = layout.fit_where(jnp.asarray(fields.where), f"field {config.where_key!r}")
        if layout.channel_axis is not None and mask.shape[layout.channel_axis] == 1:
            # Should auxiliary fields not follow, it is for the channels of this field.
            cure = f"Pass field {config.where_key!r}, the where_key, without channels."
    if fields.extent is not None:
        name = f"field {config.extent_key!r}"
        extents = layout.fit_extent(jnp.asarray(fields.extent), name)
        inside = layout.inside(extents)
        where = inside if where is None else where & inside
    if where is not None and "record_key" in params:
        mask = sample_within(config, params, layout, where, extents)
    may_change = where  # which values may change; None for all
    if "applied" in params:
        may_change = params["applied"] if where is None else where & params["applied"]
    if may_change is not None:
        mask = mask | ~may_change

    def fill(
        number: int, array: jax.Array, filled: jax.Array, mask: jax.Array, where: Any
    ) -> jax.Array:
        given = {
            "channel_axis": layout.channel_axis_of(array),
            "where": where,
            "stats": stats,
            "values": fields.values[number] if fields.values else None,
        }
        key = params.get("fill_key")
        return fill_dropped(filled, mask, _values_of(config, number, array, mask, key, given))

    dropped = image
    if config.rescale:
        dropped = _rescaled(config, image, layout, params.get("rate", config.dropout_rate))
    dropped = fill(0, image, dropped, mask, where)
    if config.clip_range is not None:
        name = config.argument("clip_range")
        dropped = clip_to_range(dropped, config.clip_range, name)
    auxiliary, names = [], config.auxiliary_fields or []
    for number, field in enumerate(map(jnp.asarray, fields.auxiliary), 1):
        name = f"auxiliary field {names[number - 1]!r}"
        follow = functools.partial(layout.follow, shape=field.shape, name=name, cure=cure)
        may_drop = None if where is None else ~follow(~where)
        auxiliary.append(fill(number, field, field, follow(mask), may_drop))
    if may_change is not None and (config.rescale or config.clip_range is not None):
        # Elsewhere values are kept, but have been rescaled and clipped.
        dropped = fill_dropped(dropped, may_change, image)
    shown = None if config.mask_key is None else jnp.broadcast_to(mask, image.shape)
    return Fields(dropped, tuple(auxiliary), shown)


def _values_of(
    config: DropoutOperatorConfig,
    number: int,
    array: jax.Array,
    mask: jax.Array,
    key: Any,
    given: dict[str, Any],
) -> Any:
    """Returns what dropped values become, in the array's dtype and broadcasting to it.

    Args:
      config: what takes their place.
      number: 0 for the image, n for the n-th auxiliary field.
      array: the image or the field.
      mask: its keep mask.
      key: the record's key for fills, if any needs one.
      given: what else fills may need.
    """
    fill, name = config.fills[number], config.argument("fill")
    if number:
        names = config.auxiliary_fields or []
        name = f"{config.argument('auxiliary_fill')} of field {names[number - 1]!r}"
    if not isinstance(fill, Fill):
        in_range = config.validate_domain_constraints
        value: Any = exact_fill(fill, array.dtype, name, in_range=in_range)
        if isinstance(fill, tuple):
            value = spread_channels(value, array.shape, given["channel_axis"], name)
        return value
    needs = needs_of(fill)
    if "key" not in needs:
        key = None
    elif number:
        # Noise uses up the first words of the key itself.
        key = jax.random.fold_in(key, np.uint32(2**32 - number))
    options = {name: given[name] for name in needs if name != "key"}
    values = fill.fill(key, array, mask, **options)
    return fit_values(values, array, f"what {type(fill).__name__}.fill returns")


def _rescaled(
    config: DropoutOperatorConfig, image: jax.Array, layout: Layout, rate: Any
) -> jax.Array:
    """Returns an image divided by the fraction of it that is kept in expectation."""
    if not jnp.issubdtype(image.dtype, jnp.inexact):
        name = config.argument("rescale")
        cure = "Convert the image to a floating-point dtype first."
        raise TypeError(must(name, f"be False for dtype {image.dtype}", True, cure))
    kept = 1 - expected_fraction(config.mode_object, layout.channel_last_shape, rate)
    # If nothing is kept nothing is divided, and no gradient is 0 / 0.
    kept = jnp.where(kept > 0, kept, 1)
    wide = widened(image)
    return (wide / kept.astype(wide.dtype)).astype(image.dtype)
