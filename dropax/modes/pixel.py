"""Values that drop one by one: `Pixel`."""

import dataclasses
from typing import Any, ClassVar

import jax

from dropax.bits import materialize, sample_bernoulli
from dropax.kit.errors import require_kind
from dropax.kit.serialization import take_plain
from dropax.modes.base import one_dispatch


@dataclasses.dataclass(frozen=True)
class Pixel:
    """Drops each value, or each whole pixel, on its own.

    Attributes:
      per_channel: True drops every value of every channel independently, False drops a pixel's
        channels together. Known elsewhere as PixelDropout.

    Raises:
      TypeError: if `per_channel` is no bool.

    Example:
      >>> Pixel().sample(jax.random.key(0), (4, 4, 3), 0.1).shape
      (4, 4, 3)
      >>> Pixel(per_channel=False).sample(jax.random.key(0), (4, 4, 3), 0.1).shape
      (4, 4, 1)
    """

    per_channel: bool = True

    is_even: ClassVar[bool] = True

    def __post_init__(self) -> None:
        take_plain(self)
        require_kind("Pixel.per_channel", self.per_channel, bool, "a bool")

    @one_dispatch
    def sample(self, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Draws the keep mask of one record; see `Mode.sample`.

        Returns:
          Keep mask, bool, of `element_shape`, or of size 1 along the channels. Bit for bit
          `jax.random.bernoulli(key, float32(1) - float32(rate), shape)`.
        """
        if self.per_channel:
            return sample_bernoulli(key, rate, element_shape)
        # Drawn without the axis of one channel, which a TPU would pad to 128.
        shape = element_shape[:-1]
        return materialize(lambda key: sample_bernoulli(key, rate, shape), key)[..., None]
