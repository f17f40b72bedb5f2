"""The command line: drops pixels, channels or regions of pictures and arrays.

Finds the inputs, drops what the options say, writes each result whole or not at all, and prints
what was done. A record's mask depends on the seed and on the record's own name and position, never
on what else is done in the same run.
"""

import argparse
import collections
import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jax
import numpy as np

from dropax.cli import files
from dropax.cli import sheet as sheets
from dropax.cli import table as tables
from dropax.cli.arguments import PRESETS, in_options, parse
from dropax.cli.files import SUFFIXES, Write
from dropax.cli.pictures import PICTURE_SUFFIXES, require_pillow
from dropax.config import DropoutOperatorConfig
from dropax.functional import drop_images
from dropax.images import sample_picture
from dropax.regions import MODES, Pixel

HEADINGS = ("file", "shape", "dtype", "mode", "rate asked", "rate realised", "ms")
BUILT_IN, BUILT_IN_RATES = "built-in.png", (0.0, 0.1, 0.25, 0.5)
ON_EVERY_IMAGE = {"apply_probability": 1.0, "rescale": False}  # whatever a paper does
SHEET, SHEET_ROWS = "contact_sheet.png", 16
# What a file may fail with. Anything else is a fault of the program, and shows where it is.
FAILURES = (ImportError, MemoryError, OSError, ValueError, jax.errors.JaxRuntimeError)


class _Job(NamedTuple):
    """A file to do, and its POSIX path below the input folder, which identifies its records."""

    source: Path
    name: str

    @property
    def target(self) -> str:
        path = PurePosixPath(self.name)
        is_picture = path.suffix.lower() in PICTURE_SUFFIXES
        return str(path.with_suffix(".png") if is_picture else path)


class _Result(NamedTuple):
    """One array before and after, and how long the compiled call took."""

    config: DropoutOperatorConfig
    name: str
    before: np.ndarray
    after: np.ndarray
    keep_mask: np.ndarray
    milliseconds: float
    alpha: np.ndarray | None
    mode: str

    @property
    def realised(self) -> float:
        return np.count_nonzero(~self.keep_mask) / self.keep_mask.size

    def row(self) -> tuple[str, ...]:
        shape = "x".join(map(str, self.before.shape)) + ("" if self.alpha is None else "+alpha")
        what = (self.name, shape, str(self.before.dtype), self.mode, _shown(self.config))
        return (*what, f"{self.realised:.4f}", f"{self.milliseconds:.2f}")

    def record(self, output: Path | None) -> dict[str, Any]:
        """Returns the row for other programs."""
        return {
            "file": self.name,
            "output": output and str(output),
            "shape": self.before.shape,
            "alpha": self.alpha is not None,
            "dtype": str(self.before.dtype),
            "mode": self.mode,
            "rate_asked": self.config.dropout_rate,
            "rate_realised": self.realised,
            "milliseconds": self.milliseconds,
        }

    def strip(self) -> sheets.Strip:
        views, label = [self.before, self.after, self.keep_mask], self.row()[:3]
        if self.before.ndim == 4:
            views, label = [view[0] for view in views], (*label, "shown: record 0")
        tiles, captions, overview = sheets.show_drop(views, self.alpha)
        dropped = f"dropped {self.realised:.4f}"
        return sheets.Strip(label, tiles, (captions[0], dropped, captions[1]), overview)


def _shown(config: DropoutOperatorConfig) -> str:
    """Shows a rate or a range of rates."""
    rate: Any = config.dropout_rate
    return "-".join(f"{bound:.4g}" for bound in (rate if isinstance(rate, tuple) else (rate,)))


def _file_key(seed: int, name: str) -> jax.Array:
    """Folds the first eight bytes of the name's SHA-256 in, as two big-endian words."""
    key = jax.random.key(seed, impl="threefry2x32")
    for word in np.frombuffer(hashlib.sha256(os.fsencode(name)).digest()[:8], ">u4"):
        key = jax.random.fold_in(key, np.uint32(word))
    return key


def _drop(config: DropoutOperatorConfig, key: jax.Array, array: jax.Array) -> Any:
    key = key if array.ndim == 4 else jax.random.fold_in(key, 0)
    fields = drop_images(config.replace(mask_key="keep_mask"), key, array, 3)
    return fields.image, fields.keep_mask


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: the arguments, or None for those of the process.

    Returns:
      The exit code: 0; 1 where something could not be done, though the rest was; 2 where the
      arguments are wrong; 130 after Ctrl-C.
    """
    try:
        run = _Run(*parse(argv))
        os.makedirs(run.options.out, exist_ok=True)
        if not os.access(run.options.out, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), run.options.out)
    except (OSError, OverflowError, TypeError, ValueError) as error:
        what = f"--out {error.filename!r}: " if isinstance(error, OSError) else ""
        tables.say(f"dropax: {what}{in_options(error)}", sys.stderr, tables.RED)
        return 2
    try:
        with jax.enable_x64(True):  # or 64-bit arrays would come out in 32 bits
            run.process() if run.options.inputs else run.demonstrate()
    except KeyboardInterrupt:
        run.failures.append({"file": None, "error": "interrupted: the rest is not done"})
        return 130
    finally:
        run.report()
    return 1 if run.failures else 0


class _Run:
    """What is asked for, and what has come of it."""

    def __init__(self, options: argparse.Namespace, config: DropoutOperatorConfig) -> None:
        self.options, self.config = options, config
        self.programs: dict[Any, Any] = {}
        # What was done, for the eye and for other programs, without the arrays.
        self.rows: list[tuple[str, ...]] = []
        self.records: list[dict[str, Any]] = []
        self.strips: list[sheets.Strip] = []
        self.sheet: Path | None = None
        self.remarks: list[dict[str, Any]] = []
        self.failures: list[dict[str, Any]] = []

    def fail(self, what: Any, error: BaseException) -> None:
        self.failures.append({"file": str(what), "error": in_options(error)})

    def note(self, results: Sequence[_Result], output: Path | None) -> None:
        self.rows += [result.row() for result in results]
        self.records += [result.record(output) for result in results]

    def report(self) -> None:
        """Prints the results to stdout and the rest to stderr."""
        if self.options.json:
            sheet = self.sheet and str(self.sheet)
            content = {"rows": self.records, "contact_sheet": sheet}
            content |= {"remarks": self.remarks, "failures": self.failures}
            tables.write(json.dumps(content), sys.stdout)
        elif not self.options.quiet:
            cells = [[tables.showable(cell, sys.stdout) for cell in row] for row in self.rows]
            for number, line in enumerate(tables.aligned(HEADINGS, cells)):
                tables.say(line, sys.stdout, "" if number else tables.BOLD)
            if self.sheet:
                line, rows = f"contact sheet: {self.sheet}", len(self.rows)
                if self.options.inputs and rows > SHEET_ROWS:
                    line += f", with the first {SHEET_ROWS} of {rows} rows"
                tables.say(line, sys.stdout)
        if not self.options.quiet:
            for remark in self.remarks:
                tables.say(f"dropax: {_line(remark)}", sys.stderr, tables.DIM)
        for failure in self.failures:
            tables.say(f"dropax: {_line(failure)}", sys.stderr, tables.RED)

    def drop(self, name: str, array: np.ndarray, alpha: Any = None, **changes: Any) -> _Result:
        """Drops values of an array, by a program compiled once for each mode, shape and dtype."""
        preset, draw = changes.pop("preset", self.options.preset), changes.pop("draw", 0)
        config = self.config.replace(**changes)
        if preset is not None:
            own = {"image_shape": array.shape[array.ndim == 4 :][:2]} if preset == "cutout" else {}
            kept = {"fill": config.fill, "seed": config.seed}
            config = PRESETS[preset]("image", **own, **kept, **ON_EVERY_IMAGE)
        native = jax.device_put(array.astype(array.dtype.newbyteorder("=")))
        arguments = (config, _file_key(config.seed + draw, name), native)
        kind = (jax.tree.structure(config), native.shape, native.dtype)
        if kind not in self.programs:
            self.programs[kind] = jax.jit(_drop).lower(*arguments).compile()
        jax.block_until_ready(arguments[1:])
        start = time.perf_counter()
        after, mask = jax.block_until_ready(self.programs[kind](*arguments))
        milliseconds = 1000 * (time.perf_counter() - start)
        views = (array, np.asarray(after).astype(array.dtype), np.asarray(mask))
        return _Result(config, name, *views, milliseconds, alpha, preset or str(config.mode))

    def process(self) -> None:
        """Does the inputs one after the other, then the contact sheet."""
        room = SHEET_ROWS
        try:
            require_pillow(SHEET)
        except ImportError as error:  # no failure: the arrays are what was asked for
            self.remarks.append({"file": None, "remark": str(error)})
            room = 0
        jobs: Any = self.jobs()
        with contextlib.suppress(ImportError):
            from tqdm import tqdm

            hidden = self.options.quiet or len(jobs) < 2 or None  # None: on a terminal only
            jobs = tqdm(jobs, unit="file", leave=False, disable=hidden)
        for job in jobs:
            target = Path(self.options.out, job.target)
            try:
                self.refuse_loss(target, job.source)
                results, write, remarks = files.work_on(job.source, job.name, self.drop)
                self.write(target, write)
                self.note(results, target)
                self.strips += [result.strip() for result in results[: room - len(self.strips)]]
                self.remarks += [{"file": str(job.source), "remark": text} for text in remarks]
            except FAILURES as error:
                self.fail(job.source, error)
        what = f"mode {self.config.mode}, rate {_shown(self.config)}"
        headings = ("original", "dropped", "keep mask (white: kept)")
        self.write_sheet(f"preset {self.options.preset}" if self.options.preset else what, headings)

    def demonstrate(self) -> None:
        """Shows modes at several rates, and presets, on the built-in picture with one key."""
        picture, options = sample_picture(), self.options
        rates = BUILT_IN_RATES if options.rate is None else (0.0, self.config.dropout_rate)
        modes: list[Any] = [*MODES] if options.mode is None else [self.config.mode]
        if options.mode is None:
            modes.insert(1, Pixel(per_channel=False))
        rows = [[{"mode": mode, "dropout_rate": rate} for rate in rates] for mode in modes]
        # A preset has its own rate, and is drawn several times instead.
        untouched: dict[str, Any] = {"preset": None, "dropout_rate": 0.0}
        shown = PRESETS if options.rate is options.mode is None else ()
        papers = [
            [untouched, *({"preset": name, "draw": draw} for draw in range(len(rates) - 1))]
            for name in ([options.preset] if options.preset else shown)
        ]
        for kinds in papers if options.preset else rows + papers:
            try:
                cells = [self.drop(BUILT_IN, picture, **kind) for kind in kinds]
            except FAILURES as error:
                return self.fail(BUILT_IN, error)
            self.note([cell for cell in cells if cell.mode == cells[-1].mode], None)
            tiles = tuple(sheets.magnified(cell.after) for cell in cells)
            captions = tuple(f"dropped {cell.realised:.4f}" for cell in cells)
            label = [cells[-1].mode]
            if label[0] in PRESETS:
                label += ["its paper's own rate,", "drawn anew in each"]
            self.strips.append(sheets.Strip(tuple(label), tiles, captions))
        kind, each = ("draw", range(1, len(rates))) if options.preset else ("rate", rates[1:])
        headings = ["original", *(f"{kind} {number:g}" for number in each)]
        return self.write_sheet("the built-in picture", headings)

    def jobs(self) -> list[_Job]:
        """Lists the files to do, without those whose results would get in each other's way."""
        found: dict[tuple[str, str], _Job] = {}  # a file that is named twice is done once
        for text in self.options.inputs:
            try:
                for job in self.jobs_of(text):
                    found.setdefault((os.path.realpath(job.source), job.name), job)
            except (OSError, ValueError) as error:
                self.fail(text, error)
        rivals = collections.Counter(job.target for job in found.values())
        rivals[SHEET] += 1
        for job in found.values():
            if rivals[job.target] > 1:
                why = f"another would be written to {job.target} too"
                self.failures.append({"file": str(job.source), "error": why})
        return [job for job in found.values() if rivals[job.target] == 1]

    def jobs_of(self, text: str) -> list[_Job]:
        listed = ", ".join(SUFFIXES)
        path = Path(text)
        if not stat.S_ISDIR(os.stat(text).st_mode):
            if not path.is_file() or path.suffix.lower() not in SUFFIXES:
                raise ValueError(f"must be a folder or a file whose name ends in one of {listed}")
            return [_Job(path, path.name)]
        sources: list[Path] = []
        closed = len(self.failures)
        own = os.path.realpath(self.options.out)  # what an earlier run wrote is no input
        for folder, below, names in os.walk(text, onerror=lambda e: self.fail(e.filename, e)):
            below[:] = [name for name in below if os.path.realpath(Path(folder, name)) != own]
            inside = (Path(folder, name) for name in names)
            # A pipe would be waited for.
            sources += [p for p in inside if p.suffix.lower() in SUFFIXES and not p.is_fifo()]
        if not sources and len(self.failures) == closed:
            raise ValueError(f"holds no file whose name ends in one of {listed}")
        return [_Job(source, source.relative_to(text).as_posix()) for source in sorted(sources)]

    def refuse_loss(self, target: Path, source: Path) -> None:
        if target.exists() and target.samefile(source):
            raise ValueError("its result would replace it; choose another --out")
        if os.path.lexists(target) and not self.options.overwrite:
            raise ValueError(f"{target} is there already; pass --overwrite to replace it")

    def write(self, target: Path, write: Write) -> None:
        """Writes a file beside its place, then moves it there: it is whole or absent."""
        scratch = target.with_name(f".dropax-{secrets.token_hex(8)}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(scratch, "xb") as file:
                    write(file)
                os.replace(scratch, target)
            except BaseException:  # Ctrl-C too
                scratch.unlink(missing_ok=True)
                raise
        except OSError as error:  # of the result, not of what was read
            raise OSError(f"{target} cannot be written: {in_options(error)}") from error

    def write_sheet(self, title: str, headings: Sequence[str]) -> None:
        target, number = Path(self.options.out, SHEET), 1
        while os.path.lexists(target) and not self.options.overwrite:  # that of an earlier run
            number += 1
            target = target.with_name(f"{Path(SHEET).stem}-{number}.png")
        title = f"{title}, fill {self.config.fill}, seed {self.config.seed}"
        content = (title, headings, self.strips)
        try:
            if self.strips:
                self.write(target, lambda file: sheets.write_contact_sheet(file, *content))
                self.sheet = target
        except FAILURES as error:
            self.fail(SHEET, error)


def _line(said: dict[str, Any]) -> str:
    return ": ".join(text for text in said.values() if text is not None)
