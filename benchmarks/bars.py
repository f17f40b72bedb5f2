"""The times that each mode is held to on CPU, in copies of the images, beside what was measured."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks import cases
from benchmarks.cases import shape_name
from benchmarks.timing import Row

LARGE, SMALL = map(shape_name, (cases.LARGE, cases.SMALL))


class Bar(NamedTuple):
    """What jitted `apply_batch` may cost.

    Attributes:
      modes: that the bar holds for.
      dtype: of the images.
      most: times the floor.
      sizes: of the images.
    """

    modes: tuple[str, ...]
    dtype: str
    most: float
    sizes: tuple[str, ...] = (LARGE,)


_CHEAP, _MODE_OBJECTS = ("channel", "patch", "band"), ("box", "three boxes", "grid")
BARS = (
    Bar(("pixel",), "float32", 4.5, (LARGE, SMALL)),
    Bar(("pixel",), "uint8", 13),
    Bar(("whole pixel",), "float32", 2.5),
    Bar(("whole pixel",), "uint8", 8),
    Bar(_CHEAP, "float32", 1.6),
    Bar(_CHEAP, "uint8", 1.6),
    Bar(_MODE_OBJECTS, "float32", 1.7),
    Bar(_MODE_OBJECTS, "uint8", 2.5),
    Bar(("block",), "float32", 3),
    Bar(("block",), "uint8", 8),
)
MOST_OF_APART = 1.15
"""What `apply_batch` may cost beside drawing and applying apart, in every mode and dtype."""


def to_markdown(rows: Sequence[Row], table: Callable[..., str]) -> str:
    """Returns each bar beside what was measured, as far as it was.

    Args:
      rows: of a report.
      table: makes Markdown of columns.
    """
    names = ("mode", "images", "bar", "x floor", "its p10", "bar apart", "x apart", "missed")
    lines = []
    for bar in BARS:
        for mode in bar.modes:
            for size in bar.sizes:
                row = _find(rows, f"modes/{bar.dtype}/{size}", f"{mode}, vmap")
                if row is None:
                    continue
                ratio, apart = row["ratio_to_floor"], row["ratio_to_apart"]
                missed = ["floor"] * (ratio > bar.most) + ["apart"] * (apart > MOST_OF_APART)
                numbers = (bar.most, ratio, row["p10_ratio_to_floor"], MOST_OF_APART, apart)
                cells = [f"{number:.3g}" for number in numbers]
                lines.append((mode, f"{bar.dtype} {size}", *cells, ", ".join(missed)))
    return table(zip(names, map(list, zip(*lines, strict=True)), strict=True)) if lines else ""


def _find(rows: Sequence[Row], experiment: str, case: str) -> Row | None:
    for row in rows:
        if row.get("experiment") == experiment and row["case"] == case:
            return row
    return None
