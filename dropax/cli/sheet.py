"""The command line's contact sheet: tiles that show a drop, and strips of them as one picture."""

import textwrap
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from dropax.cli.pictures import require_pillow
from dropax.images import contact_sheet, display_span, to_display

TILE = 256  # the longest side of a tile, in pixels of the sheet
_LABEL_WIDTH = 200
_GAP = 12
_LINE = 18
_PAPER, _INK, _EDGE = (250, 250, 250), "#202020", 0xB0


class Strip(NamedTuple):
    """One row of a contact sheet: a label, pictures (H, W, 3) uint8, and a line under each."""

    label: Sequence[str]
    tiles: Sequence[np.ndarray]
    captions: Sequence[str]


def show_drop(
    label: Sequence[str],
    caption: str,
    views: Sequence[np.ndarray],
    alpha: np.ndarray | None = None,
) -> list[Strip]:
    """Shows an image before and after a drop, and its keep mask.

    A small image is magnified. Of a large one evenly spaced pixels are shown, since a smaller copy
    would blur what was dropped into a gray veil; and below them the middle, with all its pixels.

    Args:
      label: what is shown.
      caption: of the image after the drop.
      views: the image, (H, W) or (H, W, C) of any dtype; the same after the drop; the keep mask, of
        the same shape.
      alpha: opacity, (H, W) uint8, or None.
    """
    values, dropped, mask = views
    shape, longest = values.shape, max(values.shape[:2])
    parts = {"": (slice(None), slice(None))}
    if longest > TILE:
        step = slice(None, None, -(-longest // TILE))
        rows, columns = map(_middle, shape[:2])
        size = f"{rows.stop - rows.start}x{columns.stop - columns.start}"
        parts = {f"1 pixel of {step.step}x{step.step}": (step, step)}
        parts[f"middle {size}"] = (rows, columns)
    differ = mask.ndim == 3 and bool((mask[..., 1:] != mask[..., :1]).any())
    colors = "colors: channels kept" if differ else ""
    channels = "channels 0 to 2" if values.ndim == 3 and shape[2] > 3 else ""
    span = display_span(values)
    strips = []
    for part, area in parts.items():
        tiles = [to_display(array[area], span) for array in (values, dropped)]
        if alpha is not None:
            tiles = [_on_checks(tile, alpha[area]) for tile in tiles]
        tiles = [magnified(tile) for tile in (*tiles, to_display(mask[area]))]
        captions = (", ".join(filter(None, (part, channels))), caption, colors)
        strips.append(Strip(label, tiles, captions))
    return strips


def _on_checks(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    y, x = np.indices(alpha.shape) // 8
    checks = np.where((y + x) % 2, 255.0, 215.0)[..., None]
    opacity = alpha[..., None] / 255
    return np.rint(checks + (colors - checks) * opacity).astype(np.uint8)


def _middle(size: int) -> slice:
    start = max(0, (size - TILE // 2) // 2)
    return slice(start, min(size, start + TILE // 2))


def magnified(colors: np.ndarray) -> np.ndarray:
    """Repeats the pixels of a small picture as often as fits into a tile."""
    factor = max(1, TILE // max(colors.shape[:2]))
    return colors.repeat(factor, 0).repeat(factor, 1)


def write_contact_sheet(
    file: BinaryIO, title: Sequence[str], headings: Sequence[str], strips: Sequence[Strip]
) -> None:
    """Writes a contact sheet as PNG: strips below a title in the corner and headings of columns."""
    require_pillow("a contact sheet")
    from PIL import Image

    cells = [_text(title, _LABEL_WIDTH), *(_text([line], TILE, True) for line in headings)]
    for strip in strips:
        cells.append(_text(strip.label, _LABEL_WIDTH))
        for tile, caption in zip(strip.tiles, strip.captions, strict=True):
            framed = np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=_EDGE)
            captioned = [framed, _text([caption], TILE, True)]
            cells.append(contact_sheet(captioned, columns=1, background=_PAPER))
    columns = 1 + len(headings)
    sheet = contact_sheet(cells, columns=columns, gap=_GAP, background=_PAPER)
    border = ((_GAP, _GAP), (_GAP, _GAP), (0, 0))
    Image.fromarray(np.pad(sheet, border, constant_values=_PAPER[0])).save(file, format="PNG")


def _text(paragraphs: Sequence[str], width: int, centered: bool = False) -> np.ndarray:
    """Returns a picture of text, wrapped to its width."""
    from PIL import Image, ImageDraw, ImageFont, features

    font = ImageFont.load_default(13 if features.check("freetype2") else None)
    # The font holds Latin-1 only.
    shown = [text.encode("latin-1", "replace").decode("latin-1") for text in paragraphs]
    lines = [line for text in shown for line in textwrap.wrap(text, width // 7) or [""]]
    image = Image.new("RGB", (width, _LINE * len(lines)), _PAPER)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        left = max(0.0, width - draw.textlength(line, font)) / 2 if centered else 0
        draw.text((left, number * _LINE), line, _INK, font)
    return np.asarray(image)
