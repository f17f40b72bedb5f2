"""Modes by name, and what a user may pass for one."""

from collections.abc import Mapping
from typing import Any

from dropax.kit.errors import must
from dropax.kit.serialization import read_text
from dropax.modes.band import Band
from dropax.modes.base import Mode
from dropax.modes.block import Block
from dropax.modes.blocks import Blocks
from dropax.modes.box import Box
from dropax.modes.channel import Channel
from dropax.modes.grid import Grid
from dropax.modes.patch import Patch
from dropax.modes.pixel import Pixel
from dropax.modes.record import Record

MODES: dict[str, Mode] = {
    "pixel": Pixel(),
    "channel": Channel(),
    "block": Block(),
    "patch": Patch(),
    "box": Box(),
    "grid": Grid(),
    "band": Band(),
    "record": Record(),
}

TYPES: dict[str, type] = {
    kind.__name__: kind for kind in [*(type(mode) for mode in MODES.values()), Blocks]
}
"""The mode classes of this package by name. Those that are made from other modes add themselves."""


def as_mode(mode: Any, owner: str, types: Mapping[str, type] = {}) -> Mode:
    """Returns the mode object of a mode.

    Args:
      mode: a mode's name, which stands for its object's defaults; text, as the object is written in
        Python; or a mode object.
      owner: the argument's name for the error.
      types: further classes that text may hold, by name.

    Returns:
      The mode object.

    Raises:
      ValueError: if there is no mode of that name, or the text says none.
      TypeError: if it is neither a string nor a hashable object with a `sample` method.
    """
    if isinstance(mode, str):
        mode = read_text(mode, MODES, {**TYPES, **types}, owner, "Box(count=3)")
    kind: Any = type(mode)
    if callable(getattr(kind, "sample", None)):
        if kind.__eq__ is object.__eq__ or kind.__hash__ is None:
            cure = "Make its class a frozen dataclass."
            raise TypeError(must(owner, "be hashable by value", mode, cure))
        given: Mode = mode
        return given
    raise TypeError(must(owner, "be a mode's name or a mode object such as Pixel()", mode))
