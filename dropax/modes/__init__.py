"""Which values drop together: the one table of modes, their classes and names."""

from dropax.modes.band import Band as Band
from dropax.modes.base import (
    MODES as MODES,
    TYPES as TYPES,
    Mode as Mode,
    add_mode as add_mode,
    as_mode as as_mode,
    expected_fraction as expected_fraction,
)
from dropax.modes.block import Block as Block
from dropax.modes.blocks import Blocks as Blocks
from dropax.modes.box import Box as Box
from dropax.modes.channel import Channel as Channel
from dropax.modes.grid import Grid as Grid
from dropax.modes.inverted import Inverted as Inverted
from dropax.modes.one_of import OneOf as OneOf
from dropax.modes.patch import Patch as Patch
from dropax.modes.pixel import Pixel as Pixel
from dropax.modes.record import Record as Record
from dropax.modes.shared import Shared as Shared

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
