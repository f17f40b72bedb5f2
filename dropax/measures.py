"""How much is dropped: what to expect, and what came."""

from typing import Any

import jax
import jax.numpy as jnp

from dropax.checks import is_array, must, require_kind
from dropax.config import DropoutOperatorConfig
from dropax.masks import layout_of
from dropax.regions import expected_fraction


def expected_dropped_fraction(
    config: DropoutOperatorConfig, element_shape: tuple[int, ...]
) -> jax.Array:
    """Returns the fraction of an element that is dropped in expectation.

    That is the rate, with two exceptions: where `Channel(min_kept=...)` keeps more channels than
    the rate would, it is less, and where `apply_probability` leaves records alone, these count. Of
    a range of rates it is the mean.

    Args:
      config: static fields used: `mode`, `channel_axis`. Dynamic: `dropout_rate`,
        `apply_probability`.
      element_shape: the element's own, without a batch axis.

    Returns:
      float32 scalar in [0, 1].

    Raises:
      TypeError: if the config is of another kind.
      ValueError: if the element lacks the `channel_axis`.

    Example:
      >>> from dropax import Channel
      >>> config = DropoutOperatorConfig(
      ...     field_key="image", mode=Channel(min_kept=1), dropout_rate=0.5
      ... )
      >>> expected_dropped_fraction(config, (32, 32, 3)).round(4)
      Array(0.4583, dtype=float32)
    """
    kind = DropoutOperatorConfig
    require_kind("expected_dropped_fraction.config", config, kind, f"a {kind.__name__}")
    shape = layout_of(config, element_shape).channel_last_shape
    rate = config.dropout_rate
    if isinstance(rate, tuple):
        # Along a range the expectation is smooth; these points are its mean to float32.
        low, high = (jnp.asarray(bound, jnp.float32) for bound in rate)
        steps = (jnp.arange(256, dtype=jnp.float32) + 0.5) / 256
        each = jax.vmap(lambda at: expected_fraction(config.region, shape, at))
        fraction = each(low + (high - low) * steps).mean()
    else:
        fraction = expected_fraction(config.region, shape, rate)
    return fraction * jnp.clip(jnp.asarray(config.apply_probability, jnp.float32), 0, 1)


def dropped_fraction(
    keep_mask: Any, *, per_channel: bool = False, channel_axis: int = -1
) -> jax.Array:
    """Returns the fraction that masks drop, for each record, or each channel of it.

    Args:
      keep_mask: bool, True where kept, of shape (B, ...), as `generate_random_params` draws it.
      per_channel: whether each channel is counted on its own.
      channel_axis: which axis of the mask the channels are; a mask in channel mode has no other.

    Returns:
      float32, shape (B,), or (B, C).

    Raises:
      TypeError: if the mask is no array of bools.
      ValueError: if it lacks the batch axis or the channel axis.

    Example:
      >>> dropped_fraction(jnp.array([[True, True], [True, False]]))
      Array([0. , 0.5], dtype=float32)
    """
    owner = "dropped_fraction.keep_mask"
    if not is_array(keep_mask) or keep_mask.dtype != jnp.bool_:
        raise TypeError(must(owner, "be an array of bools", keep_mask))
    rank = len(keep_mask.shape)
    if rank < 1 or (per_channel and not (-rank <= channel_axis < rank and channel_axis % rank)):
        what = f"a channel axis {channel_axis}" if per_channel else "a batch axis"
        raise ValueError(must(owner, f"have {what}", keep_mask))
    kept_axes = {0, channel_axis % rank} if per_channel else {0}
    axes = tuple(axis for axis in range(rank) if axis not in kept_axes)
    return 1 - jnp.mean(jnp.asarray(keep_mask), axis=axes, dtype=jnp.float32)
