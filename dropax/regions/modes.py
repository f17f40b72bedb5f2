"""Modes by name, and what a user may pass for one."""

from typing import Any

from dropax.kit.errors import must, require_choice
from dropax.regions.base import Region
from dropax.regions.blocks import Block, Patch
from dropax.regions.boxes import Band, Box
from dropax.regions.channels import Channel
from dropax.regions.grids import Grid
from dropax.regions.pixels import Pixel
from dropax.regions.records import Record

MODES: dict[str, Region] = {
    "pixel": Pixel(),
    "channel": Channel(),
    "block": Block(),
    "patch": Patch(),
    "box": Box(),
    "grid": Grid(),
    "band": Band(),
    "record": Record(),
}


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
