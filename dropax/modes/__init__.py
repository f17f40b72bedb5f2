"""Which values drop together: the one table of modes, their classes and names."""

from dropax.modes.band import Band
from dropax.modes.base import Mode, expected_fraction
from dropax.modes.block import Block
from dropax.modes.blocks import Blocks
from dropax.modes.box import Box
from dropax.modes.channel import Channel
from dropax.modes.grid import Grid
from dropax.modes.inverted import Inverted
from dropax.modes.one_of import OneOf
from dropax.modes.patch import Patch
from dropax.modes.pixel import Pixel
from dropax.modes.record import Record
from dropax.modes.shared import Shared
from dropax.modes.table import MODES, TYPES, add_mode, as_mode

__all__ = [
    "MODES",
    "TYPES",
    "Band",
    "Block",
    "Blocks",
    "Box",
    "Channel",
    "Grid",
    "Inverted",
    "Mode",
    "OneOf",
    "Patch",
    "Pixel",
    "Record",
    "Shared",
    "add_mode",
    "as_mode",
    "expected_fraction",
]

_TABLE = {
    Pixel: "pixel",
    Channel: "channel",
    Block: "block",
    Patch: "patch",
    Box: "box",
    Grid: "grid",
    Band: "band",
    Record: "record",
    Blocks: None,
    OneOf: None,
    Shared: None,
    Inverted: None,
}
for _kind, _name in _TABLE.items():
    add_mode(_kind, _name)
