"""What a mode is, and how its masks lie on an element.

Given an element's shape and its channel axis, a `Layout` says which shape a region sees (channels
last) and puts the region's mask back onto the element's own axes.
"""

import dataclasses
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from dropax.checks import must

ChannelAxis = int | Literal["auto"] | None


@runtime_checkable
class Region(Protocol):
    """Which values drop together: anything frozen and hashable by value with `sample` is a mode."""

    def sample(self, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Draws the keep mask of one record.

        Args:
          key: one typed key. Consumed; do not reuse.
          element_shape: the element's shape, channels last: `(..., channels)`.
          rate: expected fraction dropped, a float or a scalar array that may be traced.

        Returns:
          Keep mask, bool, True where kept, of a shape that broadcasts to `element_shape`.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Layout:
    """The axes of one element.

    Attributes:
      shape: the element's shape.
      channel_axis: the axis of its channels, from 0, or None where it counts as one channel.
    """

    shape: tuple[int, ...]
    channel_axis: int | None

    @classmethod
    def of(cls, shape: tuple[int, ...], channel_axis: ChannelAxis, owner: str) -> "Layout":
        """Finds the channel axis of an element.

        Args:
          shape: the element's shape.
          channel_axis: an axis; None for none; "auto" for the last of three axes or more.
          owner: the argument's name for the error.

        Returns:
          The layout.

        Raises:
          ValueError: if the element has no such axis.
        """
        rank = len(shape)
        if channel_axis is None or (channel_axis == "auto" and rank < 3):
            return cls(shape, None)
        axis = -1 if channel_axis == "auto" else channel_axis
        if not -rank <= axis < rank:
            raise ValueError(
                must(owner, f"name an axis of an element of shape {shape}", channel_axis)
            )
        return cls(shape, axis % rank)

    @property
    def channel_last_shape(self) -> tuple[int, ...]:
        """The shape that a region sees: the channels last, and always present."""
        if self.channel_axis is None:
            return (*self.shape, 1)
        axis = self.channel_axis
        return (*self.shape[:axis], *self.shape[axis + 1 :], self.shape[axis])

    def place(self, mask: jax.Array) -> jax.Array:
        """Puts a mask that broadcasts to `channel_last_shape` onto the element's own axes.

        Args:
          mask: what a region drew.

        Returns:
          The mask with as many axes as the element, still of size 1 where it was.
        """
        full_rank = len(self.channel_last_shape)
        mask = mask.reshape((1,) * (full_rank - mask.ndim) + mask.shape)
        if self.channel_axis is None:
            return mask.reshape(mask.shape[:-1])
        return jnp.moveaxis(mask, -1, self.channel_axis)
