"""What is drawn for one record: its keep mask, and what other options draw."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import (
    GRID,
    drop_units,
    materialize,
    sample_bernoulli,
    sample_words,
    whole_below,
)
from dropax.config import DropoutOperatorConfig
from dropax.kit.keys import seed_key
from dropax.layout import Layout
from dropax.modes import Pixel, Record
from dropax.modes.base import Within, counts_units, sample_mask

# The mask draws from the record's key itself. Other draws fold in one of these words, which no
# index of a value in an image of common size is equal to.
_RATE, _APPLIED, _FILL = np.uint32(2**32 - 1), np.uint32(2**32 - 2), np.uint32(2**32 - 3)
_SHIFT = np.uint32(2**32 - 4)


def sample_record(
    config: DropoutOperatorConfig,
    key: jax.Array,
    element_shape: tuple[int, ...],
    *,
    stored: bool = False,
) -> dict[str, jax.Array]:
    """Draws the random params of one record.

    Args:
      config: what is dropped.
      key: the record's. Consumed; do not reuse.
      element_shape: the element's own.
      stored: whether other records use the mask too, so that it is drawn outside of their loop.

    Returns:
      `keep_mask`, bool, with the element's axes, of size 1 along those that share a draw; `rate`,
      float32, if the config's is a range; `applied`, bool, if some records are left alone, whose
      masks are True everywhere; `fill_key` if a fill needs a key; `record_key` if the mask depends
      on fields, and is drawn from it by `sample_within`.
    """
    params: dict[str, jax.Array] = {}
    rate: Any = config.dropout_rate
    if isinstance(rate, tuple):
        rate = params["rate"] = _sample_rate(jax.random.fold_in(key, _RATE), *rate)
    probability = config.apply_probability
    if probability is not None:  # some records are left alone
        skip = 1 - jnp.asarray(probability, jnp.float32)
        params["applied"] = sample_bernoulli(jax.random.fold_in(key, _APPLIED), skip, ())
        # A rate of 0 keeps all, and costs nothing when the mask is used.
        rate = jnp.where(params["applied"], jnp.asarray(rate).astype(jnp.float32), 0)
    if "key" in config.needs:
        params["fill_key"] = jax.random.fold_in(key, _FILL)
    layout = Layout.of(element_shape, config.channel_axis)
    if config.channel_axis == "auto" and len(element_shape) == 3 and element_shape[0] in (1, 3):
        _warn_of_channels_first(config, element_shape)

    if depends_on_fields(config):
        params["record_key"] = key
    params["keep_mask"] = _sample_mask(config, key, layout, rate, stored=stored)
    return params


def depends_on_fields(config: DropoutOperatorConfig) -> bool:
    """Says whether masks depend on fields of the record, beside its key."""
    counted = config.where_key is not None and counts_units(config.mode_object)
    return counted or config.extent_key is not None


def sample_within(
    config: DropoutOperatorConfig,
    params: dict[str, Any],
    layout: Layout,
    where: jax.Array,
    extents: tuple[jax.Array, ...],
) -> jax.Array:
    """Draws the mask of a record by what of it may drop.

    Args:
      config: what is dropped.
      params: of `sample_record`.
      layout: of the element.
      where: bools with the element's axes, True where values may drop.
      extents: how many positions of the first spatial axes are real; none for all.
    """
    key, spatial = params["record_key"], layout.channel_last_shape[:-1]
    words = sample_words(jax.random.fold_in(key, _SHIFT), (len(extents),))
    shifts = [whole_below(word, size) for word, size in zip(list(words), spatial, strict=False)]
    pairs = [(one.astype(jnp.uint32), shift) for one, shift in zip(extents, shifts, strict=True)]
    rest = (None,) * (len(spatial) - len(extents))
    within = Within(layout.channels_last(where), (*pairs, *rest))
    return _sample_mask(config, key, layout, params.get("rate", config.dropout_rate), within)


def _sample_mask(
    config: DropoutOperatorConfig,
    key: jax.Array,
    layout: Layout,
    rate: Any,
    within: Within | None = None,
    *,
    stored: bool = False,
) -> jax.Array:
    """Draws the mask of a record, with the element's axes."""

    def draw(key: jax.Array) -> jax.Array:
        shape = layout.channel_last_shape
        return layout.place(sample_mask(config.mode_object, key, shape, rate, within))

    # A mask that repeats a few draws is repeated where it is used, unless other records use it.
    fused = getattr(config.mode_object, "repeats", False) and not stored
    return draw(key) if fused else materialize(draw, key)


def sample_constant(
    config: DropoutOperatorConfig, element_shape: tuple[int, ...]
) -> dict[str, jax.Array]:
    """Draws the one pattern of a deterministic config, as `sample_record` does.

    The key is not `key(seed)` itself: that of seed 0 drops the channel of every image that has only
    one, at any rate above 0.0523.
    """
    key = jax.random.fold_in(seed_key(config.seed), 1)
    return sample_record(config, key, element_shape, stored=True)


def is_active(config: DropoutOperatorConfig, params: dict[str, Any]) -> Any:
    """Says whether anything is dropped: for all records, or for each.

    Args:
      config: what is dropped.
      params: random params of several records, with a leading axis, or of one.

    Returns:
      bool, of shape () or one for each record. A rate that is NaN drops all.
    """
    active = ~(jnp.asarray(params.get("rate", config.dropout_rate)) <= 0)
    return active & params["applied"] if "applied" in params else active


def _warn_of_channels_first(config: DropoutOperatorConfig, element_shape: tuple[int, ...]) -> None:
    """Warns of an image whose channels seem to come first, if the mode treats them apart."""
    if config.mode_object not in (Pixel(), Record()) and min(element_shape[1:]) >= 16:
        warnings.warn(
            f"an element of shape {element_shape} looks as if its channels came first, but "
            "channel_axis='auto' takes the last axis. Pass channel_axis=0, or -1 if the last axis "
            "is right.",
            stacklevel=2,
        )


def _sample_rate(key: jax.Array, low: Any, high: Any) -> jax.Array:
    """Draws a rate, uniform on the multiples of 2^-23 from `low` to `high`."""
    least, most = drop_units(low), drop_units(high)
    span = jnp.maximum(most, least) - least + np.uint32(1)
    units = least + whole_below(sample_words(key, ()), span)
    return units.astype(jnp.float32) / GRID
