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


# Batches of padded records at rate 0.25: the mode, and the real (height, width) of each record.
PADDED = {
    "padded_speech": (dropax.Band(axis=1, count=2), [(80, 80), (80, 50), (80, 30), (80, 15)]),
    "padded_images": ("box", [(80, 80), (80, 40), (46, 46), (23, 30)]),
}

BANNER = ["pixel", "whole_pixel", "channel", "block", "patch", "box", "grid", "band"]


@jax.jit  # one compilation for all of them
def _drop(key, batch):
    return {
        name: dropax.dropout(key, batch, **{"rate": 0.25, **options})
        for name, options in STRIPS.items()
    }


def draw():
    """Returns all pictures by name, each of shape (height, width, 3), uint8.

    A strip is four records that drop a quarter, or by a preset's rate, side by side. The banner is
    the picture itself, and the last record of eight strips.
    """
    picture, sheet = dropax.images.sample_picture(SIZE), dropax.images.contact_sheet
    dropped = _drop(jax.random.key(2), np.stack([picture] * RECORDS))
    drawn = {"banner": sheet([picture, *(dropped[name][-1] for name in BANNER)], columns=9)}
    drawn |= {name: sheet(dropped[name], columns=RECORDS) for name in STRIPS}
    for name, (mode, sizes) in PADDED.items():
        batch = {"image": np.stack([picture] * RECORDS), "size": np.array(sizes)}
        tiles = []
        for extent_key in (None, "size"):  # above for the whole array, below within each record
            options = {"mode": mode, "dropout_rate": 0.25, "extent_key": extent_key}
            config = dropax.DropoutOperatorConfig(field_key="image", stochastic=True, **options)
            state = dropax.init_state(config, jax.random.key(2))
            tiles += list(np.array(dropax.apply_batch(config, state, batch)[0]["image"]))
        for tile, (height, width) in zip(tiles, sizes * 2, strict=True):
            tile[height:] = tile[:, width:] = 128
        drawn[name] = sheet(tiles, columns=RECORDS)
    return drawn


def file_of(name):
    """Returns the path of a picture."""
    if name == "banner":
        return ROOT / "tests" / "pictures" / "banner.png"
    return ROOT / "dropax" / "docs" / "pictures" / f"{name}.png"


if __name__ == "__main__":
    for name, picture in draw().items():
        Image.fromarray(picture).save(file_of(name), optimize=True)
