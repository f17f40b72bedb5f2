"""What is printed: aligned tables, and lines that any terminal can show."""

import os
from collections.abc import Sequence
from typing import TextIO


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
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    sides = "<" * (len(headings) - 3) + ">>>"
    return ["  ".join(map("{:{}{}}".format, row, sides, widths)) for row in table]


def say(text: str, stream: TextIO) -> None:
    """Prints one line, with what is not printable as escapes: a file may have any name."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    coding = stream.encoding or "utf-8"
    try:
        print(line.encode(coding, "backslashreplace").decode(coding), file=stream, flush=True)
    except BrokenPipeError:
        # Whoever read us has gone. What is still buffered must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
