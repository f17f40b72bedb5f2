"""Channels that drop as a whole: `Channel`."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import GRID, drop_units, keep_threshold, materialize, sample_words
from dropax.kit.errors import must, require_whole
from dropax.modes.base import BuiltIn, Shape, Within
from dropax.modes.counts import expected_count, sample_exactly


@dataclasses.dataclass(frozen=True)
class Channel(BuiltIn):
    """Drops whole channels, or groups of them, each on its own or an exact number of them.

    Known elsewhere as SpatialDropout (Tompson et al., 2015, arXiv:1411.4280) and ChannelDropout;
    with groups as modality dropout (Neverova et al., 2015, arXiv:1501.00102). With the defaults the
    mask is bit for bit `jax.random.bernoulli(key, float32(1) - float32(rate), (channels,))`. The
    rate drops in expectation, unless `min_kept` keeps more; of groups of different sizes, over the
    draw of the groups.

    Attributes:
      min_kept: at least so many channels, or groups, are kept in every record. Where the draw
        leaves fewer, those that were nearest to being kept are kept too, so that less than the rate
        drops.
      exact: True drops rate x channels channels, or groups, of every record, each set of so many
        equally likely. If that is not whole, a record drops the next lower or higher number, such
        that the rate drops in expectation. What is whole to within the precision of rates,
        1.5 * 2^-23, is whole.
      groups: channels that drop together, such as ((0, 1, 2), (3,)) for color and depth. Each
        channel is in one of them. None lets each drop by itself.

    Raises:
      TypeError: if an option is of the wrong type.
      ValueError: if `min_kept` is negative, or a channel is in no group or in several; when
        sampling, if `min_kept` exceeds the number of channels or groups, or the groups are of
        another number of channels.

    Example:
      >>> mask = Channel(min_kept=1).sample(jax.random.key(0), (4, 4, 3), 1.0)
      >>> mask.shape, int(mask.sum())
      ((1, 1, 3), 1)
      >>> color_or_depth = Channel(min_kept=1, groups=((0, 1, 2), (3,)))
      >>> int(color_or_depth.sample(jax.random.key(0), (4, 4, 4), 1.0).sum()) in (1, 3)
      True
    """

    min_kept: int = 0
    exact: bool = False
    groups: tuple[tuple[int, ...], ...] | None = None

    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("Channel.min_kept", self.min_kept, 0)
        if self.groups is not None:
            _require_partition(self.groups)

    @property
    def counts(self) -> bool:
        """Whether the number of channels that drop depends on how many may."""
        return self.exact

    def draw(self, key: jax.Array, shape: Shape, rate: Any, within: Within | None) -> jax.Array:
        """Returns a mask of shape `(1, ..., channels)`."""
        channels = shape[-1]
        units = self._units(channels)

        def draw(key: jax.Array) -> jax.Array:
            if self.exact:
                may_drop = None if within is None else self._may_drop(within, channels)
                return sample_exactly(key, rate, units, min_kept=self.min_kept, may_drop=may_drop)
            draws = sample_words(key, (units,)) >> np.uint32(9)
            kept = draws < keep_threshold(rate)
            if self.min_kept == 0:
                return kept
            return kept | (draws <= jnp.sort(draws)[self.min_kept - 1])

        kept = materialize(draw, key)
        if self.groups is not None:
            group_of = {channel: n for n, group in enumerate(self.groups) for channel in group}
            kept = kept[np.array([group_of[channel] for channel in range(channels)])]
        return kept.reshape((1,) * (len(shape) - 1) + (channels,))

    def expected_dropped_fraction(self, element_shape: Shape, rate: Any) -> jax.Array:
        """Returns the rate, or less if `min_kept` keeps more channels than it would.

        Each group is as likely to drop as any other, so that their sizes make no difference.
        """
        units = self._units(element_shape[-1])
        fraction = drop_units(rate).astype(jnp.float32) / GRID
        if self.min_kept == 0:
            return fraction
        if self.exact:
            return expected_count(rate, units, units - self.min_kept) / units
        # The mean of min(dropped, most) is the sum over n <= most of P(dropped >= n).
        most = jnp.arange(1, units - self.min_kept + 1, dtype=jnp.float32)
        return jax.scipy.special.betainc(most, units - most + 1, fraction).sum() / units

    def _may_drop(self, within: Within, channels: int) -> jax.Array:
        """Returns which channels or groups have a value that may drop."""
        each = within.where.any(axis=tuple(range(within.where.ndim - 1)))
        each = jnp.broadcast_to(each, (channels,))
        if self.groups is None:
            return each
        return jnp.stack([each[np.array(group)].any() for group in self.groups])

    def _units(self, channels: int) -> int:
        """Returns how many channels or groups drop apart, of so many channels."""
        if self.groups is None:
            units, noun = channels, "channels"
        else:
            units, noun = len(self.groups), "groups"
            grouped = sum(map(len, self.groups))
            if grouped != channels:
                constraint = f"hold each of the {channels} channels"
                raise ValueError(must("Channel.groups", constraint, self.groups))
        if self.min_kept > units:
            raise ValueError(
                must("Channel.min_kept", f"be at most the {units} {noun}", self.min_kept)
            )
        return units


def _require_partition(groups: Any) -> None:
    cure = "Pass a tuple such as ((0, 1, 2), (3,))."
    if not isinstance(groups, tuple) or not all(isinstance(group, tuple) for group in groups):
        raise TypeError(must("Channel.groups", "be a tuple of tuples of channels", groups, cure))
    for at, group in enumerate(groups):
        if not group:
            raise ValueError(must(f"Channel.groups[{at}]", "hold a channel", group))
        for place, channel in enumerate(group):
            require_whole(f"Channel.groups[{at}][{place}]", channel, 0)
    channels = [channel for group in groups for channel in group]
    if not channels or sorted(channels) != list(range(len(channels))):
        constraint = "hold each channel from 0 on once"
        raise ValueError(must("Channel.groups", constraint, groups, cure))
