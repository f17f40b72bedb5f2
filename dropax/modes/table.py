"""What a user may pass for a mode: a name, text or an object. `dropax.modes` fills the tables."""

from collections.abc import Mapping
from typing import Any

from dropax.kit.errors import must, require_by_value
from dropax.kit.serialization import read_text
from dropax.modes.base import Mode

MODES: dict[str, Mode] = {}
"""The objects that names stand for, of their classes' defaults."""

TYPES: dict[str, type] = {}
"""The classes that text may hold, by name."""


def add_mode(kind: type, name: str | None) -> None:
    """Lets text hold a mode's class, and a name, if there is one, stand for its defaults."""
    TYPES[kind.__name__] = kind
    if name is not None:
        MODES[name] = kind()


def as_mode(mode: Any, name: str, types: Mapping[str, type] = {}) -> Mode:
    """Returns the mode object of a name, a text, which may hold `types` too, or an object."""
    if isinstance(mode, str):
        mode = read_text(mode, MODES, {**TYPES, **types}, name, "Box(count=3)")
    if not callable(getattr(type(mode), "sample", None)):
        raise TypeError(must(name, "be a mode's name or a mode object such as Pixel()", mode))
    require_by_value(name, mode)
    given: Mode = mode
    return given
