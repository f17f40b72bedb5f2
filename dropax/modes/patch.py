"""Cells of a fixed grid: `Patch`."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from dropax.bits import materialize, sample_bernoulli
from dropax.modes.base import (
    BuiltIn,
    Shape,
    Within,
    require_sizes,
    sizes_along,
    spatial_shape,
)
from dropax.modes.counts import sample_exactly


@dataclasses.dataclass(frozen=True)
class Patch(BuiltIn):
    """Drops cells of a fixed grid, each on its own or an exact number of them.

    Known elsewhere as Hide-and-Seek (Singh and Lee, 2017, arXiv:1704.04232) and as coarse dropout;
    with `exact` as the random masking of MAE (He et al., 2021, arXiv:2111.06377) and PatchDropout
    (Liu et al., 2022, arXiv:2208.07220). With the cell of a vision transformer it hides whole
    tokens. Every pixel drops at the rate. Unless `exact`, the cells are bit for bit
    `jax.random.bernoulli(key, float32(1) - float32(rate), cells)`.

    Attributes:
      size: the side of a cell, or one for each spatial axis. The last cells are cut off if it does
        not divide the image.
      exact: True drops rate x cells cells of every record, each set of so many equally likely. If
        that is not whole, a record drops the next lower or higher number, such that the rate drops
        in expectation. What is whole to within the precision of rates, 1.5 * 2^-23, is whole.

    Raises:
      TypeError: if an option is of the wrong type.
      ValueError: if `size` is below 1; when sampling, if it does not match the spatial axes.

    Example:
      >>> Patch(size=4).sample(jax.random.key(0), (8, 8, 3), 0.2).shape
      (8, 8, 1)
      >>> int(Patch(size=4, exact=True).sample(jax.random.key(0), (8, 8, 3), 0.75).sum())
      16
    """

    size: int | tuple[int, ...] = 16
    exact: bool = False

    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes("Patch.size", self.size)

    @property
    def counts(self) -> bool:
        """Whether the number of cells that drop depends on how many may."""
        return self.exact

    def draw(self, key: jax.Array, shape: Shape, rate: Any, within: Within | None) -> jax.Array:
        """Returns a mask with one channel."""
        spatial = spatial_shape(self, shape)
        sides = sizes_along("Patch.size", self.size, spatial)
        cells = tuple(-(-size // side) for size, side in zip(spatial, sides, strict=True))

        def draw(key: jax.Array) -> jax.Array:
            if self.exact:
                may_drop = None
                if within is not None:
                    may_drop = jnp.broadcast_to(within.of_cells(sides).where, cells).reshape(-1)
                kept = sample_exactly(key, rate, math.prod(cells), may_drop=may_drop)
                return kept.reshape(cells)
            return sample_bernoulli(key, rate, cells)

        mask = materialize(draw, key)
        for axis, (size, side) in enumerate(zip(spatial, sides, strict=True)):
            mask = jax.lax.slice_in_dim(jnp.repeat(mask, side, axis), 0, size, axis=axis)
        return mask[..., None]
