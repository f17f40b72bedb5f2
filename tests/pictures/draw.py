"""Draws the pictures of the documentation: `python tests/pictures/draw.py`.

A mode or preset is one row of `STRIPS`. `tests/test_docs.py` checks that the files are up to date.
"""

import pathlib

import jax
import numpy as np
from PIL import Image

import dropax

ROOT = pathlib.Path(__file__).parents[2]
SIZE, RECORDS = 80, 4  # pixels of a side, and records in a strip


def _options(config):
    """The options of a preset, as `dropax.dropout` takes them."""
    return {"mode": config.mode, "rate": config.dropout_rate}


STRIPS = {
    "pixel": {"mode": "pixel"},
    "whole_pixel": {"mode": dropax.Pixel(per_channel=False)},
    "channel": {"mode": "channel"},
    "block": {"mode": "block"},
    "patch": {"mode": "patch"},
    "exact_patch": {"mode": dropax.Patch(exact=True)},
    "blocks": {"mode": dropax.Blocks(size=8)},
    "box": {"mode": "box"},
    "boxes": {"mode": dropax.Box(count=3, aspect_ratio=(0.5, 2))},
    "grid": {"mode": "grid"},
    "band": {"mode": dropax.Band(axis=1, count=2)},
    "record": {"mode": "record"},
    "one_of": {"mode": dropax.OneOf(("box", "grid", "channel"))},
    "shared": {"mode": dropax.Shared(dropax.Patch(size=8), axes=0)},
    "inverted": {"mode": dropax.Inverted("box")},
    "cutout": _options(dropax.presets.cutout("image", image_shape=(SIZE, SIZE), length=SIZE // 2)),
    "random_erasing": _options(dropax.presets.random_erasing("image")),
    "gridmask": _options(dropax.presets.gridmask("image", unit=(SIZE // 3, SIZE - 1))),
}


def draw_strip(name):
    """Returns four records that drop a quarter, or by a preset's rate, side by side."""
    batch = np.stack([dropax.images.sample_picture(SIZE)] * RECORDS)
    dropped = dropax.dropout(jax.random.key(2), batch, **{"rate": 0.25, **STRIPS[name]})
    return dropax.images.contact_sheet(dropped, columns=RECORDS)


def draw_banner():
    """Returns the README's banner: a picture, and a quarter of it dropped in eight modes."""
    picture = dropax.images.sample_picture(128)
    modes = ["pixel", dropax.Pixel(per_channel=False), "channel", "block"]
    modes += ["patch", "box", "grid", "band"]
    drops = [dropax.dropout(jax.random.key(2), picture, mode=mode, rate=0.25) for mode in modes]
    return dropax.images.contact_sheet([picture, *drops], columns=9)


def file_of(name):
    """Returns the path of a picture."""
    if name == "banner":
        return ROOT / "tests" / "pictures" / "banner.png"
    return ROOT / "dropax" / "docs" / "pictures" / f"{name}.png"


def draw(name):
    """Returns a picture, shape (height, width, 3), uint8."""
    return draw_banner() if name == "banner" else draw_strip(name)


if __name__ == "__main__":
    for name in ("banner", *STRIPS):
        Image.fromarray(draw(name)).save(file_of(name), optimize=True)
