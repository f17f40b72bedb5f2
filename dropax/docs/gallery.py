"""Draws the gallery: the directive `gallery` shows modes or presets, each at three rates.

The line under a picture is evaluated to draw it, in the namespace of `START`, which the page shows.
"""

import pathlib

import numpy as np
from docutils import nodes
from PIL import Image
from sphinx.addnodes import pending_xref
from sphinx.util.docutils import SphinxDirective

import dropax

BUILD = pathlib.Path(__file__).parent / "_build" / "gallery"

START = """\
import dropax
import jax
import jax.numpy as jnp

key = jax.random.key(4)
picture = dropax.images.sample_picture(160)


def drop(config, images=picture[None]):
    chain = dropax.chain(config)  # of one config, or of several
    batch, _ = chain.apply_batch(chain.init_state(key), {"image": images})
    return batch["image"]
"""

RATES = ("rate", (0.1, 0.3, 0.6))
# What is documented, what varies and its three values, and the line that draws.
MODES = [
    ("Pixel", RATES, 'mode="pixel"'),
    ("Pixel", RATES, "mode=dropax.Pixel(per_channel=False)"),
    ("Channel", RATES, 'mode="channel"'),
    ("Block", RATES, "mode=dropax.Block(size=15)"),
    ("Patch", RATES, 'mode="patch"'),
    ("Patch", RATES, "mode=dropax.Patch(exact=True)"),
    ("Blocks", RATES, "mode=dropax.Blocks(size=16)"),
    ("Box", RATES, 'mode="box"'),
    ("Box", RATES, "mode=dropax.Box(count=3, aspect_ratio=(0.5, 2))"),
    ("Grid", RATES, 'mode="grid"'),
    ("Band", RATES, "mode=dropax.Band(axis=1, count=2)"),
    ("Record", RATES, 'mode="record"'),
    ("OneOf", RATES, 'mode=dropax.OneOf(("box", "grid", "channel"))'),
    ("Shared", RATES, "mode=dropax.Shared(dropax.Patch(size=8), axes=0)"),
    ("Inverted", RATES, 'mode=dropax.Inverted("box")'),
]
PRESETS = [
    ("cutout", ("length", (32, 64, 96)), '"image", image_shape=(160, 160), length=length'),
    ("random_erasing", ("area", (0.05, 0.15, 0.3)), '"image", scale=(area, area), probability=1.0'),
    (
        "coarse_dropout",
        ("side", (0.1, 0.2, 0.35)),
        '"image", image_shape=(160, 160), num_holes_range=(3, 3), '
        "hole_height_range=(side, side), hole_width_range=(side, side), probability=1.0",
    ),
    ("gridmask", ("ratio", (0.7, 0.5, 0.3)), '"image", unit=40, ratio=ratio, probability=1.0'),
    ("dropblock", RATES, '"image", rate=rate, block_size=15, rescale=False'),
    ("mae", ("rate", (0.25, 0.5, 0.75)), '"image", rate=rate'),
    ("simmim", ("rate", (0.2, 0.4, 0.6)), '"image", rate=rate'),
    ("beit", ("rate", (0.2, 0.4, 0.6)), '"image", rate=rate'),
    ("videomae", ("rate", (0.5, 0.75, 0.9)), '"image", rate=rate'),
    ("drop_path", RATES, '"image", rate=rate, rescale=False'),
    (
        "spec_augment",
        ("width", (20, 40, 80)),
        '"image", spectrogram_shape=(160, 160), time_axis=1, '
        "freq_mask_max_bins=width, time_mask_max_frames=width",
    ),
]
# The images that a line takes in place of the picture.
IMAGES = {
    "Record": "jnp.stack([picture] * 9)",
    "drop_path": "jnp.stack([picture] * 9)",
    "videomae": "jnp.stack([picture] * 4)[None]",
}


def entries(kind):
    """Yields the full name of each mode or preset, what varies, its values, and the line."""
    for name, (varies, values), options in MODES if kind == "modes" else PRESETS:
        images = IMAGES.get(name)
        if kind == "modes":
            line = f"dropax.dropout(key, {images or 'picture'}, rate={varies}, {options})"
            yield f"dropax.{name}", varies, values, line
        else:
            line = f"drop(dropax.presets.{name}({options}){f', {images}' if images else ''})"
            yield f"dropax.presets.{name}", varies, values, line


def draw(line, varies, values):
    """Returns what a line draws at each of the values, side by side."""
    namespace, tiles = {}, []
    exec(START, namespace)
    for value in values:
        images = np.asarray(eval(line, namespace | {varies: value}))
        images = images.reshape(-1, *images.shape[-3:])  # a batch, or a video, is many
        tiles.append(dropax.images.contact_sheet(images))
    return dropax.images.contact_sheet(tiles, columns=len(tiles), gap=4)


class Gallery(SphinxDirective):
    """Shows modes or presets: a picture that leads to the reference, and the line that draws it."""

    required_arguments = 1

    def run(self):
        """Returns one item for each mode or preset."""
        BUILD.mkdir(parents=True, exist_ok=True)
        gallery = nodes.container(classes=["gallery"])
        for number, (name, varies, values, line) in enumerate(entries(self.arguments[0])):
            file = BUILD / f"{self.arguments[0]}-{number}.png"
            Image.fromarray(draw(line, varies, values)).save(file, optimize=True)
            shown = f"{varies} = {', '.join(map(str, values))}"
            picture = nodes.image(uri=f"/_build/gallery/{file.name}", alt=f"{line}, {shown}")
            title = nodes.strong("", name.rpartition(".")[2])
            to = {"refdomain": "py", "reftype": "obj", "reftarget": name, "refexplicit": True}
            both = nodes.inline("", "", title, nodes.inline("", shown, classes=["varies"]), picture)
            link = pending_xref("", both, refdoc=self.env.docname, refwarn=True, **to)
            code = nodes.literal_block(line, line, language="python")
            paragraph = nodes.paragraph("", "", link)
            gallery += nodes.container("", paragraph, code, classes=["gallery-item"])
        return [gallery]


class Start(SphinxDirective):
    """Shows the code that the lines of the gallery go on from."""

    def run(self):
        """Returns the code."""
        return [nodes.literal_block(START, START, language="python")]


def setup(app):
    """Adds the directives."""
    app.add_directive("gallery", Gallery)
    app.add_directive("gallery-start", Start)
    return {"parallel_read_safe": True}
