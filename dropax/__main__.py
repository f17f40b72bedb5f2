"""The command line: drops pixels or channels of pictures and arrays.

Finds the inputs, drops what the options say, writes each result whole or not at all, and prints
what was done. A record's mask depends on the seed and on the record's own name and position, never
on what else is done in the same run.
"""

import argparse
import collections
import dataclasses
import hashlib
import io
import os
import secrets
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NoReturn, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from numpy.lib import format as npy

from dropax import images
from dropax.checks import must
from dropax.config import DropoutOperatorConfig
from dropax.regions import MODES, Channel, Pixel
from dropax.transform import drop, sample_mask

SHEET = "contact_sheet.png"
SHEET_ROWS = 16
SUFFIXES = (*images.PICTURE_SUFFIXES, ".npy", ".npz")

_EXAMPLES = """\
examples:
  python -m dropax                                the modes at several rates, on a picture of its own
  python -m dropax photo.jpg --rate 0.1           writes dropax_out/photo.png and a contact sheet
  python -m dropax photos/ --mode channel         every picture and array below a folder
  python -m dropax batch.npy --fill 0.5 --out dropped --overwrite

Arrays are (H, W), (H, W, C) or (N, H, W, C), and stay in the format and dtype they came in. Pictures
are written as PNG, their alpha channel as it was. The same seed gives the same bytes for a file of
the same name (its path below the input folder), whatever else is done in the same run.
"""

Reader = Callable[["Job"], "tuple[list[Dropped], Callable[[BinaryIO], None]]"]


class BadOptionError(Exception):
    """What is wrong with the command line, in one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadOptionError(message)


@dataclasses.dataclass(frozen=True)
class Job:
    """One file to do.

    Attributes:
      source: where it is.
      name: its POSIX path below the input folder, which identifies its records.
    """

    source: Path
    name: str

    @property
    def target(self) -> str:
        """Where the result goes, below the output folder."""
        path = PurePosixPath(self.name)
        is_picture = path.suffix.lower() in images.PICTURE_SUFFIXES
        return str(path.with_suffix(".png") if is_picture else path)


@dataclasses.dataclass(frozen=True)
class Dropped:
    """One array before and after.

    Attributes:
      name: the record's identity.
      before: shape (H, W), (H, W, C) or (N, H, W, C).
      after: the same with values dropped.
      keep_mask: bool; broadcasts to it.
      milliseconds: how long the compiled call took.
      alpha: opacity that goes with a picture, or None.
    """

    name: str
    before: np.ndarray
    after: np.ndarray
    keep_mask: np.ndarray
    milliseconds: float
    alpha: np.ndarray | None = None

    @property
    def realised(self) -> float:
        """The fraction of the values that was dropped."""
        return 1 - np.count_nonzero(self.keep_mask) / self.keep_mask.size

    def row(self, name: str, mode: str, rate: float) -> tuple[str, ...]:
        """Returns the cells of the table."""
        shape = "x".join(map(str, self.before.shape)) + ("+alpha" if self.alpha is not None else "")
        numbers = (f"{rate:g}", f"{self.realised:.4f}", f"{self.milliseconds:.2f}")
        return (_printable(name), shape, str(self.before.dtype), mode, *numbers)


class Dropper:
    """Drops values of arrays, by programs compiled once for each mode, shape and dtype."""

    def __init__(self, seed: int) -> None:
        self._key = jax.random.key(seed, impl="threefry2x32")
        self._programs: dict[Any, Any] = {}

    def __call__(
        self, config: DropoutOperatorConfig, name: str, array: np.ndarray, alpha: Any = None
    ) -> Dropped:
        """Drops values of one array.

        Args:
          config: what to drop.
          name: identifies the array; its records are told apart by position.
          array: shape (H, W), (H, W, C) or (N, H, W, C).
          alpha: carried along.

        Returns:
          The array before and after.

        Raises:
          ValueError: if the dtype cannot hold `config.fill`.
        """
        image = jax.device_put(array.astype(array.dtype.newbyteorder("=")))
        arguments = (config, record_key(self._key, name), image)
        kind = (config.mode, config.fill, image.shape, image.dtype)
        if kind not in self._programs:
            self._programs[kind] = jax.jit(_drop).lower(*arguments).compile()
        jax.block_until_ready(arguments[1:])
        start = time.perf_counter()
        after, mask = jax.block_until_ready(self._programs[kind](*arguments))
        milliseconds = 1000 * (time.perf_counter() - start)
        after = np.asarray(after).astype(array.dtype)
        return Dropped(name, array, after, np.asarray(mask), milliseconds, alpha)


def record_key(key: jax.Array, name: str) -> jax.Array:
    """Returns the key of a file's records, of which record i draws from `fold_in(that, i)`.

    Args:
      key: the seed's.
      name: the record's identity. The first eight bytes of its SHA-256 are folded in, as two
        big-endian words.

    Returns:
      One typed key.
    """
    digest = hashlib.sha256(os.fsencode(name)).digest()
    for word in np.frombuffer(digest[:8], ">u4").astype(np.uint32):
        key = jax.random.fold_in(key, word)
    return key


def _drop(
    config: DropoutOperatorConfig, key: jax.Array, array: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def one(index: Any, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        mask = sample_mask(config, jax.random.fold_in(key, index), image.shape)
        return drop(config, {"image": image}, mask)["image"], mask

    if array.ndim < 4:
        return one(np.uint32(0), array)
    return jax.vmap(one)(jnp.arange(array.shape[0], dtype=jnp.uint32), array)


class Report:
    """What was done, what was not, and the pictures of it."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.strips: list[images.Strip] = []
        self.notes: list[str] = []
        self.failures: list[str] = []
        self.remarks: list[str] = []

    def fail(self, what: Any, error: BaseException | str) -> None:
        """Keeps one line on what went wrong."""
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        self.failures.append(f"{what}: {_as_option(why)}")

    def say(self) -> None:
        """Prints the table and the notes on stdout, and what went wrong on stderr."""
        if self.rows:
            header = ("file", "shape", "dtype", "mode", "rate asked", "rate realised", "ms")
            for line in _aligned([header, *self.rows]):
                _say(line, sys.stdout)
        for note in self.notes:
            _say(note, sys.stdout)
        for line in self.failures + self.remarks:
            _say(f"dropax: {line}", sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: the arguments, or None for those of the process.

    Returns:
      The exit code: 0, or 2 where anything was refused, or 130 after Ctrl-C.
    """
    try:
        options, config = _parse(argv)
    except BadOptionError as error:
        _say(f"dropax: {_as_option(str(error))}", sys.stderr)
        return 2
    report = Report()
    run = _process if options.inputs else _demonstrate
    try:
        with jax.enable_x64(True):  # or 64-bit arrays would come out in 32 bits
            run(options, config, report)
    except KeyboardInterrupt:
        report.failures.append("interrupted: the files in the table are done, the others are not")
        return 130
    finally:
        report.say()
    return 2 if report.failures else 0


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, DropoutOperatorConfig]:
    parser = _Parser(
        prog="python -m dropax",
        description="Drops pixels or channels of pictures (PNG, JPEG, WebP) and arrays (.npy, .npz).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="a file, or a folder of them")
    add("--mode", metavar="|".join(MODES), help="what drops together (default: pixel)")
    add("--rate", type=float, help="expected fraction that is dropped (default: 0.2)")
    add("--seed", type=int, default=0, help="same seed, same masks (default: 0)")
    add("--fill", type=_number, default=0, help="what dropped values become (default: 0)")
    add("--out", metavar="DIR", default="dropax_out", help="output folder (default: dropax_out)")
    add("--overwrite", action="store_true", help="replace files that are there already")
    # The package is loaded before its __main__; importing it by name would be against the floors.
    version = sys.modules["dropax"].__version__
    add("--version", action="version", version=f"dropax {version}")
    options = parser.parse_args(argv)
    try:
        config = DropoutOperatorConfig(
            field_key="image",
            stochastic=True,
            dropout_rate=0.2 if options.rate is None else options.rate,
            mode="pixel" if options.mode is None else options.mode,
            fill=options.fill,
            seed=options.seed,
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise BadOptionError(str(error)) from error
    return options, config


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _as_option(message: str) -> str:
    """Names the option where the config's own message names the attribute."""
    message = message.replace("DropoutOperatorConfig.dropout_rate", "--rate")
    return message.replace("DropoutOperatorConfig.", "--")
