"""What is printed: aligned tables, and lines that any terminal can show."""

import os
from collections.abc import Sequence
from typing import TextIO

BOLD, DIM, RED = "1", "2", "31"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the rows of a table as lines. The last three columns are numbers, aligned right.

    Example:
      >>> aligned([("file", "rate", "ms", "mode"), ("a.png", "0.1", "12", "pixel")])
      ['file   rate  ms   mode', 'a.png   0.1  12  pixel']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = "<" * (len(widths) - 3) + ">>>"
    return [
        "  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)) for row in rows
    ]


def showable(text: str, stream: TextIO) -> str:
    """Returns a text with escapes for what is not printable, or not in the stream's encoding."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    encoding = stream.encoding or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)


def say(text: str, stream: TextIO, style: str = "") -> None:
    """Prints one line that any terminal can show.

    Args:
      text: the line.
      stream: to print to.
      style: one of the constants above; used only if the stream is a terminal with colors.
    """
    line = showable(text, stream)
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if style and stream.isatty() and not plain:
        line = f"\033[{style}m{line}\033[0m"
    write(line, stream)


def write(text: str, stream: TextIO) -> None:
    """Prints text as it is. Ignores BrokenPipeError."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # What is still buffered must not raise at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
