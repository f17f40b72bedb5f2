"""Which values drop together: one region object for each mode, and its name."""

from dropax.regions.base import Region, expected_fraction
from dropax.regions.blocks import Block, Patch
from dropax.regions.boxes import Band, Box
from dropax.regions.cells import Blocks
from dropax.regions.channels import Channel
from dropax.regions.combined import Inverted, OneOf, Shared
from dropax.regions.grids import Grid
from dropax.regions.modes import MODES, as_region
from dropax.regions.pixels import Pixel
from dropax.regions.records import Record

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
    "OneOf",
    "Patch",
    "Pixel",
    "Record",
    "Region",
    "Shared",
    "as_region",
    "expected_fraction",
]

TYPES: dict[str, type] = OneOf.plain_types
"""The region classes of this package, by name."""
