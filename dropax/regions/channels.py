"""Channels that drop as a whole: `Channel`."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import GRID, drop_units, keep_threshold, sample_words, store
from dropax.kit.errors import must, require_whole
from dropax.kit.serialization import Plain
from dropax.regions.base import one_dispatch


@dataclasses.dataclass(frozen=True)
class Channel(Plain):
    """Drops whole channels, each on its own.

    Known elsewhere as SpatialDropout (Tompson et al., 2015, arXiv:1411.4280) and ChannelDropout.

    Attributes:
      min_kept: at least so many channels are kept in every record. Where the draw leaves fewer, the
        channels that were nearest to being kept are kept too, so that less than the rate drops.

    Raises:
      TypeError: if `min_kept` is no int.
      ValueError: if it is negative; when sampling, if it exceeds the number of channels.

    Example:
      >>> mask = Channel(min_kept=1).sample(jax.random.key(0), (4, 4, 3), 1.0)
      >>> mask.shape, int(mask.sum())
      ((1, 1, 3), 1)
    """

    min_kept: int = 0

    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_whole("Channel.min_kept", self.min_kept, 0)

    @one_dispatch
    def sample(self, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Draws the keep mask of one record.

        Args:
          key: one typed key. Consumed; do not reuse.
          element_shape: `(..., channels)`.
          rate: the fraction dropped in expectation, exactly where `min_kept` is 0.

        Returns:
          Keep mask, bool, of shape `(1, ..., channels)`: with `min_kept` 0, bit for bit
          `jax.random.bernoulli(key, float32(1) - float32(rate), (channels,))`.

        Raises:
          ValueError: if there are fewer than `min_kept` channels.
        """
        channels = element_shape[-1]
        if self.min_kept > channels:
            raise ValueError(
                must("Channel.min_kept", f"be at most the {channels} channels", self.min_kept)
            )

        def draw(key: jax.Array) -> jax.Array:
            draws = sample_words(key, (channels,)) >> np.uint32(9)
            kept = draws < keep_threshold(rate)
            if self.min_kept == 0:
                return kept
            return kept | (draws <= jnp.sort(draws)[self.min_kept - 1])

        return store(draw, key).reshape((1,) * (len(element_shape) - 1) + (channels,))

    def expected_dropped_fraction(self, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Returns the rate, or less where `min_kept` keeps more channels than it would.

        Args:
          element_shape: `(..., channels)`.
          rate: a float or a scalar array that may be traced.

        Returns:
          float32 scalar.
        """
        channels = element_shape[-1]
        fraction = drop_units(rate).astype(jnp.float32) / GRID
        if self.min_kept == 0:
            return fraction
        # The mean of min(dropped, most) is the sum over n <= most of P(dropped >= n).
        most = jnp.arange(1, channels - self.min_kept + 1, dtype=jnp.float32)
        return jax.scipy.special.betainc(most, channels - most + 1, fraction).sum() / channels
