"""Which values drop together: one region object for each mode, and its name."""

from typing import Any

from dropax.kit.errors import must, require_choice
from dropax.regions.base import Region, expected_fraction
from dropax.regions.blocks import Block, Patch
from dropax.regions.boxes import Band, Box
from dropax.regions.channels import Channel
from dropax.regions.grids import Grid
from dropax.regions.pixels import Pixel

__all__ = [
    "MODES",
    "TYPES",
    "Band",
    "Block",
    "Box",
    "Channel",
    "Grid",
    "Patch",
    "Pixel",
    "Region",
    "as_region",
    "expected_fraction",
]

MODES: dict[str, Region] = {
    "pixel": Pixel(),
    "channel": Channel(),
    "block": Block(),
    "patch": Patch(),
    "box": Box(),
    "grid": Grid(),
    "band": Band(),
}


TYPES: dict[str, type] = {type(region).__name__: type(region) for region in MODES.values()}
"""The region classes of this package, by name."""


def as_region(mode: Any, owner: str) -> Region:
    """Returns the region object of a mode.

    Args:
      mode: a mode's name, which stands for its object's defaults, or a region object.
      owner: the argument's name for the error.

    Returns:
      The region object.

    Raises:
      ValueError: if there is no mode of that name.
      TypeError: if it is neither a string nor a hashable object with a `sample` method.
    """
    kind: Any = type(mode)
    if callable(getattr(kind, "sample", None)):
        if kind.__eq__ is object.__eq__ or kind.__hash__ is None:
            cure = "Make its class a frozen dataclass."
            raise TypeError(must(owner, "be hashable by value", mode, cure))
        region: Region = mode
        return region
    if not isinstance(mode, str):
        raise TypeError(must(owner, "be a mode's name or a region object such as Pixel()", mode))
    require_choice(owner, mode, MODES)
    return MODES[mode]
