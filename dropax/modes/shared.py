"""A mode that repeats along axes: `Shared`."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from dropax.bits import materialize
from dropax.kit.errors import must, require_kind
from dropax.modes.base import (
    BuiltIn,
    Shape,
    Within,
    as_mode,
    counts_units,
    expected_fraction,
    sample_mask,
)


@dataclasses.dataclass(frozen=True)
class Shared(BuiltIn):
    """Drops what a mode drops, the same all along some axes.

    The mode sees an element without these axes, or with one channel, and its mask repeats along
    them. Known elsewhere as `broadcast_dims`, and on video as tube masking (Tong et al., 2022,
    arXiv:2203.12602): `Shared(Patch(16, exact=True), axes=0)`.

    Attributes:
      mode: a mode's name or a mode object; a name becomes an object.
      axes: the axis or axes that share a mask, of the element with its channels last: spatial axes,
        and -1 for the channels.

    Raises:
      TypeError: if an option is of the wrong type.
      ValueError: if the mode's name is unknown, or no axis or one twice is named; when sampling, if
        the element has no such axis, or lacks an axis that the mode needs.

    Example:
      >>> Shared("pixel", axes=0).sample(jax.random.key(0), (8, 16, 16, 3), 0.2).shape
      (1, 16, 16, 3)
    """

    mode: Any
    axes: int | tuple[int, ...]

    # What repeats is stored once, as far as it does not repeat.
    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        vars(self)["mode"] = as_mode(self.mode, "Shared.mode")
        for n, axis in enumerate(self._named_axes()):
            name = f"Shared.axes[{n}]" if isinstance(self.axes, tuple) else "Shared.axes"
            require_kind(name, axis, int, "an int")
        if not self._named_axes() or len(set(self._named_axes())) < len(self._named_axes()):
            raise ValueError(must("Shared.axes", "name one axis or several, once", self.axes))

    @property
    def counts(self) -> bool:
        """Whether what the mode drops depends on how many units may drop."""
        return counts_units(self.mode)

    def draw(self, key: jax.Array, shape: Shape, rate: Any, within: Within | None) -> jax.Array:
        """Returns a mask of size 1 along the axes that share it."""
        shared, inner = self._split(shape)
        if within is not None:
            where = within.where.any(axis=shared)
            if inner[-1] != shape[-1]:
                where = where.any(axis=-1, keepdims=True)
            extents = [extent for n, extent in enumerate(within.extents) if n not in shared]
            within = Within(where, tuple(extents))
        mask = materialize(lambda key: sample_mask(self.mode, key, inner, rate, within), key)
        return jnp.expand_dims(mask, shared)

    def expected_dropped_fraction(self, element_shape: Shape, rate: Any) -> jax.Array:
        """Returns what the mode drops from an element without the shared axes."""
        return expected_fraction(self.mode, self._split(element_shape)[1], rate)

    def _named_axes(self) -> tuple[Any, ...]:
        return self.axes if isinstance(self.axes, tuple) else (self.axes,)

    def _split(self, element_shape: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the shared spatial axes, from 0, and the shape that the mode sees."""
        rank = len(element_shape)
        axes = [axis % rank for axis in self._named_axes() if -rank <= axis < rank]
        if len(set(axes)) < len(self._named_axes()):
            constraint = f"name axes of an element of shape {element_shape}, each once"
            raise ValueError(must("Shared.axes", constraint, self.axes))
        last = rank - 1
        spatial = [size for axis, size in enumerate(element_shape[:-1]) if axis not in axes]
        channels = 1 if last in axes else element_shape[-1]
        return tuple(axis for axis in axes if axis != last), (*spatial, channels)
