"""The command line: drops pixels, channels or regions of pictures and arrays.

Finds the inputs, drops what the options say, writes each result whole or not at all, and prints
what was done. A record's mask depends on the seed and on the record's own name and position, never
on what else is done in the same run.
"""

import argparse
import collections
import contextlib
import errno
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dropax.cli import files
from dropax.cli import sheet as sheets
from dropax.cli import table as tables
from dropax.cli.arguments import PRESETS, parse
from dropax.cli.pictures import require_pillow
from dropax.cli.programs import Programs, file_key
from dropax.config import DropoutOperatorConfig
from dropax.fills import exact_fill
from dropax.images import sample_picture
from dropax.modes import MODES, Pixel

HEADINGS = ("file", "shape", "dtype", "mode", "rate asked", "rate realized", "ms")
BUILT_IN, BUILT_IN_RATES = "built-in.png", (0.0, 0.1, 0.25, 0.5)
SHEET, SHEET_ROWS = "contact_sheet.png", 16
# What a file may fail with. Anything else is a fault of the program, and shows where it is.
FAILURES = (ImportError, MemoryError, OSError, ValueError, jax.errors.JaxRuntimeError)


class _Result(NamedTuple):
    """One array before and after, and its row of the table."""

    before: np.ndarray
    after: np.ndarray
    keep_mask: np.ndarray
    alpha: np.ndarray | None
    row: dict[str, Any]

    @property
    def caption(self) -> str:
        return f"dropped {self.row['rate_realized']:.4f}"

    def strips(self) -> list[sheets.Strip]:
        views, label = [self.before, self.after, self.keep_mask], _cells(self.row)[:3]
        if self.before.ndim == 4:
            views, label = [view[0] for view in views], (*label, "shown: record 0")
        return sheets.show_drop(label, self.caption, views, self.alpha)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: the arguments, or None for those of the process.

    Returns:
      The exit code: 0; 1 if something could not be done, though the rest was; 2 if there is no such
      output folder; 130 after Ctrl-C.

    Raises:
      SystemExit: as `parse`.
    """
    options = parse(argv)
    try:
        os.makedirs(options.out, exist_ok=True)
        if not os.access(options.out, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), options.out)
    except OSError as error:
        tables.say(f"dropax: --out {error.filename!r}: {error.strerror}", sys.stderr, tables.RED)
        return 2
    run = _Run(options)
    try:
        with jax.enable_x64(True):  # or 64-bit arrays would become 32-bit ones
            run.process() if options.inputs else run.demonstrate()
    except KeyboardInterrupt:
        run.failures.append({"file": None, "error": "interrupted: the rest is not done"})
        return 130
    finally:
        run.report()
    return 1 if run.failures else 0


class _Run:
    """The options of a run, and what was done, without the arrays."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.programs = Programs()
        self.rows: list[dict[str, Any]] = []
        self.strips: list[sheets.Strip] = []
        self.sheet: Path | None = None
        self.remarks: list[dict[str, Any]] = []
        self.failures: list[dict[str, Any]] = []

    def fail(self, what: Any, error: Exception) -> None:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        self.failures.append({"file": str(what), "error": text})

    def remark(self, what: Any, text: str) -> None:
        self.remarks.append({"file": str(what), "remark": text})

    def report(self) -> None:
        """Prints the results to stdout and the rest to stderr."""
        if self.options.json:
            content = {"rows": self.rows, "contact_sheet": self.sheet and str(self.sheet)}
            content |= {"remarks": self.remarks, "failures": self.failures}
            tables.write(json.dumps(content), sys.stdout)
        elif not self.options.quiet:
            cells = [[tables.showable(c, sys.stdout) for c in _cells(row)] for row in self.rows]
            for number, line in enumerate(tables.aligned([HEADINGS, *cells]) if cells else ()):
                tables.say(line, sys.stdout, "" if number else tables.BOLD)
            if self.sheet:
                line, rows = f"contact sheet: {self.sheet}", len(self.rows)
                if self.options.inputs and rows > SHEET_ROWS:
                    line += f", with the first {SHEET_ROWS} of {rows} rows"
                tables.say(line, sys.stdout)
        said = [(self.failures, tables.RED)]
        for entries, style in said if self.options.quiet else [(self.remarks, tables.DIM), *said]:
            for entry in entries:
                text = ": ".join(text for text in entry.values() if text is not None)
                tables.say(f"dropax: {text}", sys.stderr, style)

    def drop(
        self, name: str, array: np.ndarray, alpha: Any = None, *, draw: int = 0, **changes: Any
    ) -> _Result:
        """Drops values of an array as the options say, but for changes of mode, rate and preset."""
        options = argparse.Namespace(**{**vars(self.options), **changes})
        if options.fill == "noise" and array.dtype.kind == "c":
            raise ValueError("--fill noise is not supported for complex dtypes")
        if not isinstance(options.fill, str):
            exact_fill(options.fill, array.dtype, "--fill", in_range=True)
        config = _config(options, array.shape)
        key = file_key(options.seed + draw, name)
        after, mask, milliseconds = self.programs.drop(config, key, array)
        row = {
            "file": name,
            "output": None,
            "shape": array.shape,
            "alpha": alpha is not None,
            "dtype": str(array.dtype),
            "mode": options.preset or str(config.mode),
            "rate_asked": config.dropout_rate,
            "rate_realized": np.count_nonzero(~mask) / mask.size,
            "milliseconds": milliseconds,
        }
        return _Result(array, after, mask, alpha, row)

    def process(self) -> None:
        """Drops from the inputs one after the other, then writes the contact sheet."""
        room = SHEET_ROWS
        try:
            require_pillow(SHEET)
        except ImportError as error:  # no failure: the arrays are what was asked for
            self.remarks.append({"file": None, "remark": str(error)})
            room = 0
        sources: Any = self.sources()
        with contextlib.suppress(ImportError):
            from tqdm import tqdm

            hidden = self.options.quiet or len(sources) < 2 or None  # None: on a terminal only
            sources = tqdm(sources, unit="file", leave=False, disable=hidden)
        for source in sources:
            target = Path(self.options.out, source.target)
            try:
                self.refuse_loss(target, source.path)
                results, write, remarks = files.work_on(source, self.drop)
                files.write_whole(target, write)
                self.rows += [{**result.row, "output": str(target)} for result in results]
                for result in results[:room]:
                    self.strips += result.strips()
                    room -= 1
                for text in remarks:
                    self.remark(source.path, text)
            except FAILURES as error:
                self.fail(source.path, error)
        options = self.options
        title = [f"preset {options.preset}"]
        if not options.preset:
            config = _config(options, ())
            title = [f"mode {config.mode}", f"rate {_shown(config.dropout_rate)}"]
        self.write_sheet(title, ("original", "dropped", "keep mask (white: kept)"))

    def demonstrate(self) -> None:
        """Shows modes at several rates, and presets, on the built-in picture with one key."""
        picture, options = sample_picture(), self.options
        everything = options.mode is options.rate is options.preset is None
        rates = BUILT_IN_RATES if options.rate is None else (0.0, options.rate)
        modes: list[Any] = options.modes or [*MODES]
        if not options.modes:
            modes.insert(1, Pixel(per_channel=False))
        strips = [[{"mode": mode, "rate": rate} for rate in rates] for mode in modes]
        # A preset has its own rate, and is drawn several times instead.
        papers = [*PRESETS] if everything else filter(None, [options.preset])
        draws = range(1, len(rates))
        drawn: list[list[dict[str, Any]]] = [
            [{"preset": name, "draw": draw - 1} for draw in draws] for name in papers
        ]
        for kinds in drawn if options.preset else strips + drawn:
            of_preset = "preset" in kinds[0]
            try:
                cells = [self.drop(BUILT_IN, picture, **kind) for kind in kinds]
                self.rows += [cell.row for cell in cells]
                if of_preset:
                    cells.insert(0, self.drop(BUILT_IN, picture, preset=None, rate=0.0))
            except FAILURES as error:
                return self.fail(BUILT_IN, error)
            tiles = tuple(sheets.magnified(cell.after) for cell in cells)
            label = (cells[-1].row["mode"], "its paper's own rate, drawn anew in each")
            captions = tuple(cell.caption for cell in cells)
            self.strips.append(sheets.Strip(label[: 1 + of_preset], tiles, captions))
        each = (
            [f"draw {n}" for n in draws] if options.preset else [f"rate {r:g}" for r in rates[1:]]
        )
        return self.write_sheet(["the built-in picture"], ["original", *each])

    def sources(self) -> list[files.Source]:
        """Lists the files to read, without those whose results would replace each other."""
        found: dict[tuple[str, str], files.Source] = {}  # a file that is named twice is read once
        for text in self.options.inputs:
            try:
                for source in files.find(text, self.options.out, self.remark, self.fail):
                    found.setdefault((os.path.realpath(source.path), source.name), source)
            except (OSError, ValueError) as error:
                self.fail(text, error)
        rivals = collections.Counter([SHEET, *(source.target for source in found.values())])
        for source in found.values():
            if rivals[source.target] > 1:
                why = f"another would be written to {source.target} too"
                self.fail(source.path, ValueError(why))
        return [source for source in found.values() if rivals[source.target] == 1]

    def refuse_loss(self, target: Path, source: Path) -> None:
        if target.exists() and target.samefile(source):
            raise ValueError("its result would replace it; choose another --out")
        if os.path.lexists(target) and not self.options.overwrite:
            raise ValueError(f"{target} already exists; pass --overwrite to replace it")

    def write_sheet(self, title: Sequence[str], headings: Sequence[str]) -> None:
        target, number = Path(self.options.out, SHEET), 1
        while os.path.lexists(target) and not self.options.overwrite:  # that of an earlier run
            number += 1
            target = target.with_name(f"{Path(SHEET).stem}-{number}.png")
        title = [*title, f"fill {self.options.fill}", f"seed {self.options.seed}"]
        content = (title, headings, self.strips)
        try:
            if self.strips:
                files.write_whole(target, lambda file: sheets.write_contact_sheet(file, *content))
                self.sheet = target
        except FAILURES as error:
            self.fail(SHEET, error)


def _config(options: argparse.Namespace, shape: tuple[int, ...]) -> DropoutOperatorConfig:
    """Returns the config of an operator on a field `image` of a shape."""
    if options.preset:
        # On every image and without a rescale, whatever the paper does.
        own: dict[str, Any] = {"apply_probability": None, "rescale": False}
        if options.preset == "cutout":
            own["image_shape"] = shape[len(shape) == 4 :][:2]
        return PRESETS[options.preset]("image", fill=options.fill, mask_key="keep_mask", **own)
    return DropoutOperatorConfig(
        field_key="image",
        stochastic=True,
        dropout_rate=0.2 if options.rate is None else options.rate,
        mode=options.mode or "pixel",
        fill=options.fill,
        mask_key="keep_mask",
    )


def _shown(rate: Any) -> str:
    """Shows a rate or a range of rates."""
    return "-".join(f"{bound:.4g}" for bound in (rate if isinstance(rate, tuple) else (rate,)))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Returns a row of the table."""
    shape = "x".join(map(str, row["shape"])) + ("+alpha" if row["alpha"] else "")
    what = (row["file"], shape, row["dtype"], row["mode"], _shown(row["rate_asked"]))
    return (*what, f"{row['rate_realized']:.4f}", f"{row['milliseconds']:.2f}")
