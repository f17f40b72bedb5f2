"""Values that drop one by one: `Pixel`."""

import dataclasses
from typing import Any, ClassVar

import jax

from dropax.bits import materialize, sample_bernoulli
from dropax.modes.base import BuiltIn, Shape, Within


@dataclasses.dataclass(frozen=True)
class Pixel(BuiltIn):
    """Drops each value, or each whole pixel, on its own.

    The mask is bit for bit `jax.random.bernoulli(key, float32(1) - float32(rate), shape)`.

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

    def draw(self, key: jax.Array, shape: Shape, rate: Any, within: Within | None) -> jax.Array:
        """Returns a mask of the element's shape, or with one channel."""
        if self.per_channel:
            return sample_bernoulli(key, rate, shape)
        # Drawn without the axis of one channel, which a TPU would pad to 128.
        return materialize(lambda key: sample_bernoulli(key, rate, shape[:-1]), key)[..., None]
