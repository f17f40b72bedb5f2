"""What random params do to the fields of one record.

The image has its dropped values replaced, its kept ones rescaled, and all of them clipped; the
auxiliary fields drop by the same mask. Dropping is a select, never a product: NaN and infinity
under a dropped value vanish, in values and in gradients. The dtype never changes.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dropax.config import DropoutOperatorConfig
from dropax.fills import (
    Fill,
    exact_fill,
    fit_values,
    needs_of,
    spread_channels,
)
from dropax.kit.errors import must
from dropax.layout import Layout
from dropax.modes import expected_fraction
from dropax.moments import integer_range, widened
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


def fill_dropped(array: jax.Array, keep_mask: jax.Array, fill: Any) -> jax.Array:
    """Replaces dropped values; the mask and the fill, of its dtype, broadcast to the array."""
    array, fill = jnp.asarray(array), jnp.asarray(fill)
    select: Any = jnp.where
    if _word_of(array.dtype):
        is_float = jnp.issubdtype(array.dtype, jnp.floating)
        select = _select_floats if is_float else _select_words
    return select(jnp.asarray(keep_mask).astype(jnp.bool_), array, fill)


def clip_to_range(array: jax.Array, bounds: tuple[float, float], name: str) -> jax.Array:
    """Clips values to a range, as on the real numbers; integers to the integers within it.

    Values within the range are left untouched, bit for bit, and pass gradients on, even if they are
    equal to a bound; but XLA on CPU flushes subnormal numbers to 0. NaN stays NaN.
    """
    dtype = array.dtype
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(must(name, f"be None for dtype {dtype}, which has no order", bounds))
    low: Any
    high: Any
    if jnp.issubdtype(dtype, jnp.floating):
        least, most = (float(bound) for bound in (jnp.finfo(dtype).min, jnp.finfo(dtype).max))
        if bounds[0] > most or bounds[1] < least:
            raise ValueError(must(name, f"hold a value of dtype {dtype}", bounds))
        # A bound past the dtype's range is no bound.
        low = np.asarray(-np.inf if bounds[0] < least else float(bounds[0])).astype(dtype)
        high = np.asarray(np.inf if bounds[1] > most else float(bounds[1])).astype(dtype)
    else:
        least, most = integer_range(dtype)
        low = least if bounds[0] <= least else math.ceil(bounds[0])
        high = most if bounds[1] >= most else math.floor(bounds[1])
        if low > high:
            raise ValueError(must(name, f"hold a value of dtype {dtype}", bounds))
        low, high = np.asarray(low, dtype), np.asarray(high, dtype)
    return jnp.where(array < low, low, jnp.where(array > high, high, array))


def _word_of(dtype: Any) -> Any:
    """Returns the unsigned dtype of the same bits; None for bools, complex and packed numbers."""
    if jnp.issubdtype(dtype, jnp.floating):
        bits = jnp.finfo(dtype).bits
    elif jnp.issubdtype(dtype, jnp.integer):
        bits = jnp.iinfo(dtype).bits
    else:
        return None
    return {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32, 64: jnp.uint64}.get(bits)


def _select_words(keep_mask: jax.Array, array: jax.Array, fill: jax.Array) -> jax.Array:
    """Selects as `where` does, by logic on bits.

    XLA on CPU compiles a `where` whose mask is shared by a few channels to a branch, and converts
    dtypes that the CPU lacks: up to sixteen copies of time, for which this takes one. A TPU lays
    out the mask as values of four bytes or one, but not of two.
    """
    word = _word_of(array.dtype)

    def by_bits(keep_mask: jax.Array, array: jax.Array, fill: jax.Array) -> jax.Array:
        bits, fill_bits = (jax.lax.bitcast_convert_type(values, word) for values in (array, fill))
        kept = -keep_mask.astype(word)  # all ones, or none
        return jax.lax.bitcast_convert_type(fill_bits ^ ((bits ^ fill_bits) & kept), array.dtype)

    default = by_bits if array.dtype.itemsize != 2 else jnp.where
    return jax.lax.platform_dependent(keep_mask, array, fill, cpu=by_bits, default=default)


_select_floats = jax.custom_jvp(_select_words)


@_select_floats.defjvp
def _select_floats_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # JAX forgets this rule where it differentiates a loop again, so that the results must come from
    # operations whose own derivatives are right; and a TPU would draw the mask for each of two
    # forms. On CPU the mask is stored in full: `where` is slow only if it is shared.
    mask = jnp.broadcast_to(primals[0], primals[1].shape)
    store = jax.lax.optimization_barrier
    mask = jax.lax.platform_dependent(mask, cpu=store, default=lambda mask: mask)
    out, tangent = (jnp.where(mask, array, fill) for _, array, fill in (primals, tangents))
    return out, tangent
