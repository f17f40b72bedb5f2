"""How a mask lies on an element's axes, and on a field that drops with it."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from dropax.kit.arrays import as_int32
from dropax.kit.errors import must
from dropax.kit.trees import broadcast_rank
from dropax.modes.base import any_in_cells, known_shape

ChannelAxis = int | Literal["auto"] | None


@dataclasses.dataclass(frozen=True)
class Layout:
    """The axes of one element: its shape, and that of its channels, or None for one channel."""

    shape: tuple[int, ...]
    channel_axis: int | None

    @classmethod
    def of(cls, shape: tuple[int, ...], channel_axis: ChannelAxis) -> "Layout":
        """Finds the channel axis of an element; a ValueError if it has no such axis."""
        shape, rank = known_shape(shape), len(shape)
        if channel_axis is None or (channel_axis == "auto" and rank < 3):
            return cls(shape, None)
        axis = -1 if channel_axis == "auto" else channel_axis
        if not -rank <= axis < rank:
            constraint = f"name an axis of an element of shape {shape}"
            name = "DropoutOperatorConfig.channel_axis"
            raise ValueError(must(name, constraint, channel_axis))
        return cls(shape, axis % rank)

    @property
    def channel_last_shape(self) -> tuple[int, ...]:
        """The shape that a mode sees: the channels last, and always present."""
        if self.channel_axis is None:
            return (*self.shape, 1)
        axis = self.channel_axis
        return (*self.shape[:axis], *self.shape[axis + 1 :], self.shape[axis])

    def place(self, mask: jax.Array) -> jax.Array:
        """Puts a mask that a mode drew onto the element's own axes, of size 1 where it was."""
        if self.channel_axis is None:
            return mask.reshape(mask.shape[:-1])
        return jnp.moveaxis(mask, -1, self.channel_axis)

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        """The element's axes but that of the channels."""
        return tuple(axis for axis in range(len(self.shape)) if axis != self.channel_axis)

    def channel_axis_of(self, field: jax.Array) -> int | None:
        """Returns the channel axis of a field that drops with the element; None if it has none."""
        rank = len(self.spatial_axes)
        if field.ndim != rank + 1:
            return None
        return rank if self.channel_axis is None else self.channel_axis

    def fit(self, mask: Any, *, by_channel: bool) -> jax.Array:
        """Returns a user's mask as bools with the element's axes.

        By channel, a mask with one axis is along the channel axis.
        """
        name = "apply.random_params['keep_mask']"
        if by_channel and mask.ndim == 1:
            channels = self.channel_last_shape[-1]
            if mask.shape != (channels,):
                raise ValueError(must(name, f"have shape ({channels},), one per channel", mask))
            mask = broadcast_rank(mask, self.channel_last_shape, name)
            return self.place(mask.astype(jnp.bool_))
        return broadcast_rank(mask, self.shape, name).astype(jnp.bool_)

    def fit_where(self, where: jax.Array, name: str) -> jax.Array:
        """Returns the field of a where_key as bools with the element's axes.

        It has the spatial axes, with or without that of the channels; any may be of size 1.
        """
        spread = where
        if self.channel_axis is not None and where.ndim == len(self.spatial_axes):
            spread = jnp.expand_dims(where, self.channel_axis)
        pairs = zip(spread.shape, self.shape, strict=False)
        if spread.ndim != len(self.shape) or any(size not in (1, full) for size, full in pairs):
            constraint = f"have the image's spatial axes {self.channel_last_shape[:-1]}"
            constraint += "" if self.channel_axis is None else ", with or without its channel axis"
            raise ValueError(must(f"{name}, the where_key,", constraint, where))
        return spread.astype(jnp.bool_)

    def fit_extent(self, extent: jax.Array, name: str) -> tuple[jax.Array, ...]:
        """Returns how many positions of the first spatial axes are real, int32 scalars.

        The field of an extent_key holds one integer, or one for each of so many axes.
        """
        spatial = self.channel_last_shape[:-1]
        given = list(extent) if extent.ndim == 1 else [extent]
        if extent.ndim > 1 or not 1 <= len(given) <= len(spatial):
            constraint = f"have shape () or (n,), for the first n of {len(spatial)} spatial axes"
            raise ValueError(must(f"{name}, the extent_key,", constraint, extent))
        sizes = spatial[: len(given)]
        if max(sizes) > 2**28:
            constraint = "be for axes of at most 2^28 positions"
            raise ValueError(must(f"{name}, the extent_key,", constraint, sizes))
        return tuple(as_int32(one, 0, size) for one, size in zip(given, sizes, strict=True))

    def inside(self, extents: tuple[jax.Array, ...]) -> jax.Array:
        """Returns which positions are real, bool, of size 1 along the element's other axes."""
        inside: Any = True
        for axis, extent in zip(self.spatial_axes, extents, strict=False):
            positions = jax.lax.broadcasted_iota(
                jnp.int32, [n if at == axis else 1 for at, n in enumerate(self.shape)], axis
            )
            inside = inside & (positions < extent)
        return inside

    def channels_last(self, mask: jax.Array) -> jax.Array:
        """Returns a mask of the element's axes with its channels last, as modes see them."""
        if self.channel_axis is None:
            return mask[..., None]
        return jnp.moveaxis(mask, self.channel_axis, -1)

    def follow(
        self, mask: jax.Array, shape: tuple[int, ...], name: str, cure: str = ""
    ) -> jax.Array:
        """Returns the mask for another field of the same record, which broadcasts to that.

        The other field has the element's shape, or its spatial shape, with or without channels of
        its own along the same axis. Spatial axes may be a whole number of times shorter, the last
        two by the same number, and such a cell is kept if every pixel under it is; or longer, and
        as many cells are kept as there are to a pixel. `cure` is what else would do if the mask
        differs from channel to channel.
        """
        if tuple(shape) == self.shape:
            return mask
        if mask.size == 1:  # the record drops as a whole, whatever its fields are
            return mask.reshape((1,) * len(shape))
        axis, rank = self.channel_axis, len(self.spatial_axes)
        other = tuple(shape)
        at = rank if axis is None else axis
        own = other[:at] + other[at + 1 :] if len(other) == rank + 1 else other
        steps = self._steps(own)
        if steps is None:
            spatial = self.channel_last_shape[:-1]
            constraint = (
                f"have the spatial axes {spatial} of the image it goes along with, or a whole "
                "fraction or multiple of them"
            )
            raise ValueError(must(name, constraint, other))
        if axis is not None and mask.shape[axis] != 1:
            constraint = (
                f"have the image's own shape {self.shape}, as each channel drops on its own"
            )
            cure = cure or "Drop whole pixels instead: mode=Pixel(per_channel=False)."
            raise ValueError(must(name, constraint, other, cure))
        mask = mask if axis is None else mask.squeeze(axis)
        for along, (pixels, cells) in enumerate(steps):
            mask = ~any_in_cells(~mask, along, pixels) if pixels > 1 else mask
            if mask.shape[along] > 1:
                mask = jnp.repeat(mask, cells, along)
        return mask if len(other) == rank else jnp.expand_dims(mask, at)

    def _steps(self, sizes: tuple[int, ...]) -> list[tuple[int, int]] | None:
        """Returns for each spatial axis (pixels to a cell, cells to a pixel), one of which is 1.

        None if the axes do not fit. The last two must agree, or many a list of boxes or points, say
        of shape (8, 4), would pass for a map of a square image.
        """
        spatial = self.channel_last_shape[:-1]
        if len(sizes) != len(spatial):
            return None
        steps = []
        for size, full in zip(sizes, spatial, strict=True):
            least = max(min(size, full), 1)
            if size != full and (0 in (size, full) or size % least or full % least):
                return None
            steps.append((full // least, size // least) if size != full else (1, 1))
        return steps if len(set(steps[-2:])) <= 1 else None
