"""How masks lie on elements.

Given an element's shape and its channel axis, a `Layout` says which shape a region sees (channels
last), puts the region's mask back onto the element's own axes, and says whether a mask given by the
user, or a field that goes along, fits.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from dropax.kit.errors import is_array, must

ChannelAxis = int | Literal["auto"] | None


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
        shape, rank = tuple(shape), len(shape)
        if channel_axis is None or (channel_axis == "auto" and rank < 3):
            return cls(shape, None)
        axis = -1 if channel_axis == "auto" else channel_axis
        if not -rank <= axis < rank:
            constraint = f"name an axis of an element of shape {shape}"
            raise ValueError(must(owner, constraint, channel_axis))
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

        Raises:
          TypeError: if it is no array.
          ValueError: if it does not broadcast to that shape, or would change it.
        """
        owner = "the mask that a region's sample returns"
        if not is_array(mask):
            raise TypeError(must(owner, "be an array", mask))
        mask = _as_bools(mask, self.channel_last_shape, owner)
        if self.channel_axis is None:
            return mask.reshape(mask.shape[:-1])
        return jnp.moveaxis(mask, -1, self.channel_axis)

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        """The element's axes but that of the channels."""
        return tuple(axis for axis in range(len(self.shape)) if axis != self.channel_axis)

    def spread(self, numbers: Any, owner: str) -> Any:
        """Lays one number for each channel along the channel axis.

        Args:
          numbers: an array with one axis.
          owner: the argument's name for the error.

        Returns:
          The array with as many axes as the element.

        Raises:
          ValueError: if there are not as many numbers as channels.
        """
        channels = self.channel_last_shape[-1]
        if numbers.shape != (channels,):
            constraint = f"have one number for each of {channels} channels"
            raise ValueError(must(owner, constraint, numbers))
        axis = self.channel_axis
        return numbers.reshape([channels if at == axis else 1 for at in range(len(self.shape))])

    def fit(self, mask: Any, owner: str, *, by_channel: bool) -> jax.Array:
        """Returns a mask as bools with the element's axes.

        Args:
          mask: an array, kept where not zero, that broadcasts to the element.
          owner: the argument's name for the error.
          by_channel: whether a mask with one axis lies along the channel axis.

        Returns:
          The mask with as many axes as the element, still of size 1 where it was.

        Raises:
          ValueError: if it does not broadcast to the element, or would change its shape.
        """
        if by_channel and mask.ndim == 1:
            channels = self.channel_last_shape[-1]
            if mask.shape != (channels,):
                raise ValueError(must(owner, f"have shape ({channels},), one per channel", mask))
            return self.place(mask)
        return _as_bools(mask, self.shape, owner)

    def follow(self, mask: jax.Array, shape: tuple[int, ...], owner: str) -> jax.Array:
        """Returns the mask for another field of the same record.

        Args:
          mask: the element's mask, as `fit` returns it.
          shape: the other field's: the element's own; its spatial shape; or its spatial shape with
            other channels along the same axis. Spatial axes may be a whole number of times shorter
            than the element's, the last two by the same number.
          owner: the other field's name for the error.

        Returns:
          A mask that broadcasts to the other field. A cell of a shorter field is kept where every
          pixel under it is.

        Raises:
          ValueError: if the field has none of these shapes, or if it has other channels than the
            element and the mask differs from channel to channel.
        """
        if tuple(shape) == self.shape:
            return mask
        axis, rank = self.channel_axis, len(self.spatial_axes)
        other = tuple(shape)
        at = rank if axis is None else axis
        own = other[:at] + other[at + 1 :] if len(other) == rank + 1 else other
        steps = self._steps(own)
        if steps is None:
            spatial = self.channel_last_shape[:-1]
            constraint = (
                f"have the spatial axes {spatial} of the image it goes along with, or a whole "
                "fraction of them"
            )
            raise ValueError(must(owner, constraint, other))
        if axis is not None and mask.shape[axis] != 1:
            constraint = (
                f"have the image's own shape {self.shape}, as each channel drops on its own"
            )
            cure = "Drop whole pixels instead: mode=Pixel(per_channel=False)."
            raise ValueError(must(owner, constraint, other, cure))
        mask = _coarsened(mask if axis is None else mask.squeeze(axis), steps)
        return mask if len(other) == rank else jnp.expand_dims(mask, at)

    def _steps(self, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
        """Returns how many pixels there are to a cell along each spatial axis; None if none fit.

        The last two axes must agree, or many a list of boxes or points, say of shape (8, 4), would
        pass for a map of a square image.
        """
        spatial = self.channel_last_shape[:-1]
        if len(sizes) != len(spatial):
            return None
        steps = []
        for size, full in zip(sizes, spatial, strict=True):
            if size != full and (size < 1 or full < 1 or full % size):
                return None
            steps.append(full // size if size != full else 1)
        return tuple(steps) if len(set(steps[-2:])) <= 1 else None


def broadcast_rank(array: Any, shape: tuple[int, ...], owner: str) -> jax.Array:
    """Gives an array as many axes as an element, whose shape it must not change.

    Args:
      array: broadcasts to the element.
      shape: the element's.
      owner: the argument's name for the error.

    Returns:
      The array, with axes of size 1 in front.

    Raises:
      ValueError: if it does not broadcast to the shape, or would change it.
    """
    pairs = zip(reversed(array.shape), reversed(shape), strict=False)
    if array.ndim > len(shape) or any(size not in (1, full) for size, full in pairs):
        raise ValueError(must(owner, f"broadcast to the element's shape {shape}", array))
    return jnp.reshape(array, (1,) * (len(shape) - array.ndim) + array.shape)


def _coarsened(mask: jax.Array, steps: tuple[int, ...]) -> jax.Array:
    """Joins so many positions along each axis into one, kept where they all are."""
    for axis, step in enumerate(steps):
        if step > 1 and mask.shape[axis] > 1:
            cells = mask.shape[axis] // step
            shape = (*mask.shape[:axis], cells, step, *mask.shape[axis + 1 :])
            mask = mask.reshape(shape).all(axis=axis + 1)
    return mask


def _as_bools(mask: Any, shape: tuple[int, ...], owner: str) -> jax.Array:
    return broadcast_rank(mask, shape, owner).astype(jnp.bool_)
