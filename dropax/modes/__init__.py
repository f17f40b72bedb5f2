"""Which values drop together: the class of each mode, and its name."""

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
from dropax.modes.table import MODES, TYPES, as_mode

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
    "as_mode",
    "expected_fraction",
]
