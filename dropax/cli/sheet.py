"""The contact sheet: rows of a label and tiles, each with a caption, as one PNG."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

TILE = 160  # the longest side of a tile, in pixels
_LABEL, _GAP, _LINE = 190, 12, 17
_PAPER, _INK = (250, 250, 250), (32, 32, 32)


class Row(NamedTuple):
    """One row: the lines of its label, and its tiles, (H, W, 3) uint8, with a caption each."""

    label: Sequence[str]
    tiles: Sequence[np.ndarray]
    captions: Sequence[str]


def write_sheet(path: str, title: str, headings: Sequence[str], rows: Sequence[Row]) -> None:
    """Writes rows below a title and the headings of their columns."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(13)
    heights = [
        max(_LINE * len(_wrapped(row.label)), _LINE + max(len(tile) for tile in row.tiles))
        for row in rows
    ]
    width = _LABEL + len(headings) * (TILE + _GAP) + _GAP
    height = _LINE + 2 * _GAP + sum(heights) + _GAP * len(rows)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    lefts = [_LABEL + column * (TILE + _GAP) for column in range(len(headings))]
    draw.text((_GAP, _GAP), title, _INK, font)
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, _GAP), heading, _INK, font)
    top = _LINE + 2 * _GAP
    for row, height in zip(rows, heights, strict=True):
        draw.text((_GAP, top), "\n".join(_wrapped(row.label)), _INK, font)
        for left, tile, caption in zip(lefts, row.tiles, row.captions, strict=True):
            sheet.paste(Image.fromarray(tile), (left, top))
            draw.text((left, top + len(tile)), caption, _INK, font)
        top += height + _GAP
    sheet.save(path, optimize=True)


def _wrapped(paragraphs: Sequence[str]) -> list[str]:
    return [line for text in paragraphs for line in textwrap.wrap(text, (_LABEL - _GAP) // 7)]
