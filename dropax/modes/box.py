"""Rectangles: `Box`."""

import dataclasses
import functools
from typing import Any

import jax

from dropax.kit.errors import require_choice
from dropax.modes.base import (
    BuiltIn,
    Shape,
    Within,
    positions_of,
    require_aspect_ratio,
    spatial_shape,
)
from dropax.modes.calibration import Border
from dropax.modes.rectangles import draw_union, require_count, size_levels


@dataclasses.dataclass(frozen=True)
class Box(BuiltIn):
    """Drops rectangles, or on one axis intervals and on three cuboids.

    Known elsewhere as Cutout (DeVries and Taylor, 2017, arXiv:1708.04552), Random Erasing (Zhong et
    al., 2017, arXiv:1708.04896) and CoarseDropout. All boxes of a record are of one size, with
    sides of whole pixels, each placed on its own; where they overlap counts once. The size is drawn
    from the two that come nearest to the rate, so that exactly the rate drops in expectation. Of
    more than 16,384 sizes (1,024 with a range of aspect ratios or of counts) only some are
    calibrated, and what drops at the others is interpolated, to within 1e-5 of the rate.

    Attributes:
      count: how many boxes, 1 to 64; or (lowest, highest), of which each record draws one, each
        equally likely. More boxes are smaller: whatever their number, the rate drops.
      aspect_ratio: (lowest, highest) height / width, log-uniform, from 64 steps, or from fewer with
        a range of more than 8 counts. It holds for the last two axes; a third has the mean side. If
        such a box does not fit, the ratio is reduced.
      border: "inside" keeps boxes within the image, so that its edges are dropped less often than
        its middle; "clip" centres them on any pixel and cuts off what lies outside.

    Raises:
      TypeError: if an option is of the wrong type.
      ValueError: if an option is out of range; when sampling, if there is no spatial axis.

    Example:
      >>> Box(count=2).sample(jax.random.key(0), (8, 8, 3), 0.2).shape
      (8, 8, 1)
    """

    count: int | tuple[int, int] = 1
    aspect_ratio: tuple[float, float] = (1, 1)
    border: Border = "inside"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("Box.count", self.count, may_vary=True)
        require_aspect_ratio("Box.aspect_ratio", self.aspect_ratio)
        require_choice("Box.border", self.border, ("inside", "clip"))

    def draw(self, key: jax.Array, shape: Shape, rate: Any, within: Within | None) -> jax.Array:
        """Returns a mask with one channel."""
        spatial = spatial_shape(self, shape)
        levels = size_levels(spatial, self.count, self.aspect_ratio, self.border)
        positions = functools.partial(positions_of, within, range(len(spatial)), spatial)
        union = draw_union(key, rate, spatial, self.count, self.border, *levels, positions)
        return ~union[..., None]
