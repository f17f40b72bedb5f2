"""The command line's contact sheet.

Given an image before and after a drop, and its keep mask, returns tiles that show what was dropped;
given rows of tiles with labels, writes them as one picture. Pillow is imported where it is used.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from dropax.cli.pictures import require_pillow
from dropax.images import display_span, three_channels, to_display

TILE = 256
"""The longest side of a tile of a contact sheet, in its pixels."""

_LABEL_WIDTH = 200
_GAP = 12
_LINE = 18
_PAPER, _INK, _FAINT, _EDGE = "#fafafa", "#202020", "#707070", "#b0b0b0"
_MARK, _HALO = (224, 32, 32), (255, 255, 255)
_CLEAR = 2  # so many pixels of a copy show a region


@dataclasses.dataclass(frozen=True)
class Strip:
    """One row of a contact sheet.

    Attributes:
      label: the lines at its left, the first of them the heading.
      tiles: pictures, each (H, W, 3) uint8.
      captions: a line under each tile; may be empty.
      overview: a small picture under the label, or None.
    """

    label: tuple[str, ...]
    tiles: tuple[np.ndarray, ...]
    captions: tuple[str, ...]
    overview: np.ndarray | None = None


def show_drop(
    views: Sequence[np.ndarray], alpha: np.ndarray | None = None
) -> tuple[tuple[np.ndarray, ...], tuple[str, str], np.ndarray | None]:
    """Shows an image before and after, and its keep mask, so that what was dropped can be seen.

    A small image is magnified. A large one is shown in a smaller copy where that loses nothing:
    where whole channels or large regions drop. Elsewhere a copy would blur what was dropped into a
    grey veil, and the middle is shown magnified.

    Args:
      views: the image, (H, W) or (H, W, C) of any dtype; the same after the drop; the keep mask, of
        a shape that broadcasts to it.
      alpha: opacity, (H, W) uint8, or None.

    Returns:
      The tiles, (H, W, 3) uint8; which part of the image they show, and what the colours of the
      mask mean, in words, or ""; a small copy of the whole with that part marked, or None where the
      tiles show all of it.
    """
    values, dropped, keep_mask = views
    mask = np.broadcast_to(keep_mask, values.shape)
    span = display_span(values)

    def view(rows: slice, columns: slice) -> tuple[np.ndarray, ...]:
        tiles = [to_display(array[rows, columns], span) for array in (values, dropped)]
        if alpha is not None:
            tiles = [_on_checks(tile, alpha[rows, columns]) for tile in tiles]
        return (*tiles, three_channels(mask[rows, columns]) * np.uint8(255))

    differ = mask.ndim == 3 and bool((mask[..., 1:] != mask[..., :1]).any())
    colours = "colours: channels kept" if differ else ""
    part = "channels 0 to 2" if values.ndim == 3 and values.shape[2] > 3 else ""
    longest = max(values.shape[:2])
    if longest <= TILE:
        return tuple(map(magnified, view(slice(None), slice(None)))), (part, colours), None
    # Thinned out before it is converted, which bounds the work.
    thin = slice(None, None, max(1, longest // (4 * TILE)))
    whole = view(thin, thin)
    if _grain(mask) >= _CLEAR * longest / TILE:
        return tuple(_shrunk(tile, TILE) for tile in whole), (part, colours), None
    rows, columns = map(_middle, values.shape[:2])
    tiles = view(rows, columns)
    part = f"middle {tiles[0].shape[0]}x{tiles[0].shape[1]}, {part}".removesuffix(", ")
    overview = _marked(_shrunk(whole[0], TILE // 2), rows, columns, values.shape)
    return tuple(map(magnified, tiles)), (part, colours), overview


def _on_checks(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    y, x = np.indices(alpha.shape) // 8
    checks = np.where((y + x) % 2, 255.0, 215.0)[..., None]
    opacity = alpha[..., None] / 255
    return np.rint(checks + (colours - checks) * opacity).astype(np.uint8)


def _grain(mask: np.ndarray) -> float:
    """Returns how many pixels of one kind, dropped or kept, come in a row: the lesser mean."""
    lengths = [math.inf]
    for kind in (mask, ~mask):
        for axis in (0, 1):
            line = np.moveaxis(kind, axis, 0)
            runs = np.count_nonzero(line[:1]) + np.count_nonzero(line[1:] & ~line[:-1])
            # A run that goes from border to border is no grain.
            if runs > np.count_nonzero(line.all(axis=0)):
                lengths.append(np.count_nonzero(line) / runs)
    return min(lengths)


def _middle(size: int) -> slice:
    start = max(0, (size - TILE // 2) // 2)
    return slice(start, min(size, start + TILE // 2))


def magnified(colours: np.ndarray) -> np.ndarray:
    """Repeats the pixels of a small picture as often as fits into a tile."""
    factor = max(1, TILE // max(colours.shape[:2]))
    return colours.repeat(factor, 0).repeat(factor, 1)


def _shrunk(colours: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    height, width = colours.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(colours).resize(size, Image.Resampling.LANCZOS))


def _marked(
    overview: np.ndarray, rows: slice, columns: slice, shape: tuple[int, ...]
) -> np.ndarray:
    """Draws a frame round a part of the image that a small copy shows."""
    (top, bottom), (left, right) = (
        (part.start * size // full, max(1, part.stop * size // full))
        for part, size, full in zip((rows, columns), overview.shape, shape, strict=False)
    )
    # Light outside and dark inside: to be seen on any picture.
    for margin, colour in ((1, _HALO), (0, _MARK)):
        frame = np.zeros(overview.shape[:2], bool)
        frame[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin] = True
        frame[top + 1 - margin : bottom - 1 + margin, left + 1 - margin : right - 1 + margin] = (
            False
        )
        overview[frame] = colour
    return overview


def write_contact_sheet(
    file: BinaryIO, title: str, columns: Sequence[str], strips: Sequence[Strip]
) -> None:
    """Writes a contact sheet as PNG: rows of tiles with labels.

    Args:
      file: open for writing.
      title: the line at the top.
      columns: a heading for each column of tiles.
      strips: the rows, from the top.

    Raises:
      ImportError: if Pillow is missing.
    """
    require_pillow("a contact sheet")
    from PIL import Image, ImageDraw, ImageFont, features

    font = ImageFont.load_default(13 if features.check("freetype2") else None)
    top = 2 * _GAP + 2 * _LINE
    width = _LABEL_WIDTH + 2 * _GAP + len(columns) * (TILE + _GAP)
    sheet = Image.new("RGB", (width, top + sum(map(_height, strips))), _PAPER)
    draw = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str, room: int, ink: str = _INK) -> None:
        draw.text((x, y), _fitted(text, room, lambda line: draw.textlength(line, font)), ink, font)

    def place(x: int, y: int, tile: np.ndarray) -> None:
        sheet.paste(Image.fromarray(np.ascontiguousarray(tile)), (x, y))
        draw.rectangle((x - 1, y - 1, x + tile.shape[1], y + tile.shape[0]), outline=_EDGE)

    lefts = [_LABEL_WIDTH + 2 * _GAP + number * (TILE + _GAP) for number in range(len(columns))]
    write(_GAP, _GAP, title, width - 2 * _GAP)
    for left, heading in zip(lefts, columns, strict=True):
        write(left, _GAP + _LINE + 4, heading, TILE, _FAINT)
    y = top
    for strip in strips:
        for number, line in enumerate(strip.label):
            write(_GAP, y + number * _LINE, line, _LABEL_WIDTH, _FAINT if number else _INK)
        if strip.overview is not None:
            place(_GAP + 1, y + len(strip.label) * _LINE + 4, strip.overview)
        for left, tile, caption in zip(lefts, strip.tiles, strip.captions, strict=True):
            place(left, y, tile)
            write(left, y + tile.shape[0] + 3, caption, TILE, _FAINT)
        y += _height(strip)
    sheet.save(file, format="PNG")


def _height(strip: Strip) -> int:
    label = len(strip.label) * _LINE
    label += 0 if strip.overview is None else strip.overview.shape[0] + 6
    return max(label, _LINE + max(tile.shape[0] for tile in strip.tiles)) + _GAP


def _fitted(text: str, room: int, measure: Any) -> str:
    """Returns a line with its middle left out where it is too long, for a font of few letters."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    shown = text = text.encode("latin-1", "replace").decode("latin-1")
    for cut in range(4, len(text)):
        if measure(shown) <= room:
            break
        kept = len(text) - cut
        shown = f"{text[: kept // 2]}...{text[kept // 2 + cut :]}"
    return shown
