"""The one table of cases that every cross-cutting test runs through: a new mode is a new row."""

import os
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

from dropax import (
    Band,
    Block,
    Blocks,
    Box,
    Channel,
    DropoutOperatorConfig,
    Grid,
    Inverted,
    OneOf,
    Patch,
    Pixel,
    Shared,
)

MODES = {
    "pixel": "pixel",
    "whole pixel": Pixel(per_channel=False),
    "channel": "channel",
    "channel, one kept": Channel(min_kept=1),
    "block": Block(size=2),
    "block, per channel": Block(size=2, per_channel=True),
    "patch": Patch(size=2),
    "box": "box",
    "boxes, clipped": Box(count=3, aspect_ratio=(0.5, 2), border="clip"),
    "grid": Grid(unit=3),
    "grid, units": Grid(unit=(2, 4)),
    "band": "band",
    "bands": Band(axis=-1, count=2),
    "channel, exact": Channel(exact=True),
    "patch, exact": Patch(size=2, exact=True),
    "blocks": Blocks(size=1, min_cells=2),
    "record": "record",
    "one of": OneOf(("box", Channel()), weights=(2, 1)),
    "shared": Shared(Pixel(), axes=0),
    "inverted": Inverted(Box(count=2)),
}

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
"""Whether every test runs on every mode, which takes several times as long."""


def by_turns(number, of=3):
    """Names of every third mode, beginning with another one for each number; in a deep run, all."""
    names = list(MODES)
    return names if DEEP else names[number % of :: of]


def modes_by_turns(test):
    """Runs a test on a third of the modes: every mode goes through a third of the tests.

    For properties that all modes have for the same reason, code that they share.
    """
    names = by_turns(zlib.crc32(test.__name__.encode()))
    return pytest.mark.parametrize("mode", [MODES[name] for name in names], ids=names)(test)


DTYPES = [
    jnp.dtype(name)
    for name in ("float32", "bfloat16", "float16", "uint8", "int32", "int16", "bool")
]

# Elements of one to four axes, odd sizes among them.
SHAPES = [(17,), (5, 7), (6, 5, 3), (2, 5, 4, 3)]


def config_of(mode, **options):
    """A stochastic config on the field "image"."""
    options = {"field_key": "image", "stochastic": True, "dropout_rate": 0.4, **options}
    return DropoutOperatorConfig(mode=mode, **options)


def image_of(shape, dtype=np.float32):
    """Values of which none is zero, so that every dropped one shows."""
    dtype = jnp.dtype(dtype)
    if dtype == jnp.bool_:
        return jnp.ones(shape, dtype)
    count = int(np.prod(shape))
    return jnp.asarray((np.arange(count) % 100 + 1).reshape(shape)).astype(dtype)
