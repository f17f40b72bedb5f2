"""What is printed: aligned tables, and lines that any terminal can show."""

import os
import unicodedata
from collections.abc import Sequence
from typing import TextIO

BOLD, DIM, RED = "1", "2", "31"


def aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lays a table out in lines. The last three columns are numbers and lie to the right.

    Args:
      headings: one a column.
      rows: as many cells each.

    Returns:
      A line for the headings and one a row; nothing where there are no rows.

    Example:
      >>> aligned(("file", "rate", "ms", "mode"), [("a.png", "0.1", "12", "pixel")])
      ['file   rate  ms   mode', 'a.png   0.1  12  pixel']
    """
    table = [headings, *rows] if rows else []
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = []
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - _width(cell))
            cells.append(space + cell if number >= len(row) - 3 else cell + space)
        lines.append("  ".join(cells))
    return lines


def _width(text: str) -> int:
    """Counts the columns of a terminal that a text takes."""
    taken = (2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return sum(taken) - sum(unicodedata.category(c) in ("Mn", "Me") for c in text)


def showable(text: str, stream: TextIO) -> str:
    """Puts escapes for what is not printable, or not in the stream's letters.

    Args:
      text: any, such as the name of a file.
      stream: where it is to be printed.

    Returns:
      The text, of one line.
    """
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    coding = stream.encoding or "utf-8"
    return line.encode(coding, "backslashreplace").decode(coding)


def say(text: str, stream: TextIO, style: str = "") -> None:
    """Prints one line that any terminal can show.

    Args:
      text: the line.
      stream: where to.
      style: a colour or a weight, one of the constants above; left out where it would not be seen
        as such.
    """
    line = showable(text, stream)
    if style and _has_colours(stream):
        line = f"\033[{style}m{line}\033[0m"
    write(line, stream)


def write(text: str, stream: TextIO) -> None:
    """Prints text as it is. Whoever reads it may have gone."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # What is still buffered must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _has_colours(stream: TextIO) -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain
