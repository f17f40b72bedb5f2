"""Full strips across one axis: `Band`."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax

from dropax.kit.errors import must
from dropax.modes.base import BuiltIn, Shape, Within, positions_of, spatial_shape
from dropax.modes.rectangles import draw_union, require_count, size_levels


@dataclasses.dataclass(frozen=True)
class Band(BuiltIn):
    """Drops full strips across one axis.

    Known elsewhere as the time and frequency masks of SpecAugment (Park et al., 2019,
    arXiv:1904.08779) and as XYMasking. All strips of a record are of one width, drawn from the two
    that come nearest to the rate, so that exactly the rate drops in expectation. They lie inside
    the image, so that its edges are dropped less often than its middle.

    Attributes:
      axis: the spatial axis that is cut: 0 drops rows of an image, 1 columns, -1 the last.
      count: how many strips, 1 to 64. Where they overlap counts once.

    Raises:
      TypeError: if an option is of the wrong type.
      ValueError: if `count` is out of range; when sampling, if there is no such spatial axis.

    Example:
      >>> Band(axis=1).sample(jax.random.key(0), (8, 8, 3), 0.2).shape
      (1, 8, 1)
    """

    axis: int = 0
    count: int = 1

    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("Band.count", self.count)

    def draw(self, key: jax.Array, shape: Shape, rate: Any, within: Within | None) -> jax.Array:
        """Returns a mask of size 1 along every axis but the one that is cut."""
        spatial = spatial_shape(self, shape)
        if not -len(spatial) <= self.axis < len(spatial):
            raise ValueError(must("Band.axis", f"name one of {len(spatial)} axes", self.axis))
        axis = self.axis % len(spatial)
        size = (spatial[axis],)
        levels = size_levels(size, self.count, (1, 1), "inside")
        positions = functools.partial(positions_of, within, [axis], size)
        covered = draw_union(key, rate, size, self.count, "inside", *levels, positions)
        return ~covered.reshape([n if at == axis else 1 for at, n in enumerate(shape)])
