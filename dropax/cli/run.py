"""The command line: one contact sheet and one table of what modes and presets drop."""

import argparse
import inspect
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dropax import DropoutOperatorConfig, apply_batch, init_state
from dropax.cli.arguments import parse
from dropax.cli.sheet import TILE, Row, write_sheet
from dropax.images import display_span, sample_picture, to_display
from dropax.kit.errors import must
from dropax.presets import PRESETS

RECORDS = 5
HEADINGS = ("file", "shape", "dtype", "mode", "rate", "dropped", "of each record")
Configs = tuple[DropoutOperatorConfig, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, 1 if something could not be done, or 130 after Ctrl-C."""
    options = parse(argv)
    try:
        with jax.enable_x64(True), warnings.catch_warnings():  # 64-bit arrays stay what they are
            warnings.showwarning = lambda message, *_: _complain(str(message))
            return _run(options)
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130


def _run(options: argparse.Namespace) -> int:
    table: list[Sequence[str]] = [HEADINGS]
    rows: list[Row] = []
    failures: dict[str, None] = {}  # in order; what several modes have in common is said once
    for number, file in enumerate(options.files or [None], 1):
        if number % 20 == 0:  # each program takes some 50 of a process's 65,530 memory mappings
            jax.clear_caches()
        name = "built-in" if file is None else _printable(file)
        try:
            image = sample_picture(options.size) if file is None else read_image(file, options.size)
        except Exception as error:  # decoders raise SyntaxError, struct.error, EOFError, ...
            failures[f"{name}: {_reason(error)}"] = None
            continue
        shape, dtype = "x".join(map(str, image.shape)), str(image.dtype)
        for kind, configs in _kinds(options, image.shape):
            try:
                tiles, fractions = _draw(image, configs, options.seed)
            except (MemoryError, TypeError, ValueError, jax.errors.JaxRuntimeError) as error:
                failures[f"{name}: {_reason(error)}"] = None
                continue
            rate, mean = _shown_rate(configs), f"{np.mean(fractions):.4f}"
            each = [f"{fraction:.4f}" for fraction in fractions]
            table.append((name, shape, dtype, kind, rate, mean, " ".join(each)))
            captions = [_shown_part(image), *(f"dropped {fraction}" for fraction in each)]
            rows.append(Row((name, kind, f"rate {rate}"), tiles, captions))
    if rows:
        path, lines = os.path.join(options.out, "contact_sheet.png"), _aligned(table)
        headings = ["original", *(f"record {number}" for number in range(RECORDS))]
        try:
            write_sheet(path, f"fill {options.fill}, seed {options.seed}", headings, rows)
            lines.append(f"contact sheet: {_printable(path)}")
        except ImportError as error:  # the table needs no Pillow
            _complain(f"no contact sheet: {_reason(error)}")
        except OSError as error:
            failures[f"{_printable(path)}: {_reason(error)}"] = None
        if failure := _print(lines):
            failures[f"standard output: {failure}"] = None
    for failure in failures:
        _complain(failure)
    return 1 if failures else 0


def read_image(path: str, size: int) -> np.ndarray:
    """Reads one image: a `.npy` file, or a picture, scaled down to `size` on its longest side.

    A picture has shape (H, W) if it is gray and else (H, W, 3), and is uint8, or int32 or float32
    if it is gray of more bits. A ValueError if an array is no image; or whatever a decoder raises.
    """
    if path.endswith(".npy"):
        with open(path, "rb") as file:
            image = np.lib.format.read_array(file, allow_pickle=False)
        if image.ndim not in (2, 3) or not image.size or image.dtype.kind not in "biufc":
            constraint = "hold numbers of shape (height, width) or (height, width, channels)"
            cure = "Of a batch, save one record."
            raise ValueError(must("the array", constraint, image, cure))
        return image.astype(image.dtype.newbyteorder("="))
    from PIL import Image, ImageOps

    with warnings.catch_warnings(), Image.open(path) as opened:
        warnings.simplefilter("ignore")  # of metadata
        picture = ImageOps.exif_transpose(opened)
        modes = {"1": "L", "L": "L", "F": "F", "I": "I"}  # the last of 16 bits too, as "I;16"
        picture = picture.convert(modes.get(picture.mode.partition(";")[0], "RGB"))
        picture.thumbnail((size, size))
        return np.array(picture)


def _kinds(options: argparse.Namespace, shape: tuple[int, ...]) -> list[tuple[str, Configs]]:
    """Returns what is to be dropped: its name, and the configs to apply one after the other."""
    kinds: list[tuple[str, Configs]] = []
    for mode in options.modes:
        for rate in options.rates:
            config = DropoutOperatorConfig(
                stochastic=True, field_key="image", mode=mode, dropout_rate=rate, fill=options.fill
            )
            kinds.append((mode, (config,)))
    for name in options.presets:
        preset = PRESETS[name]
        taken = inspect.signature(preset).parameters.keys()
        given: dict[str, Any] = dict.fromkeys(
            {"image_shape", "spectrogram_shape"} & taken, shape[:2]
        )
        if "time_mask_max_share" in taken:  # a picture may be smaller than a band of time
            given["time_mask_max_share"] = 0.9
        made = preset("image", fill=options.fill, **given)
        kinds.append((name, getattr(made, "configs", (made,))))
    return kinds


def _draw(image: np.ndarray, configs: Configs, seed: int) -> tuple[list[np.ndarray], list[float]]:
    """Returns tiles of an image and of its draws, and the fraction that each draw dropped."""
    batch: dict[str, Any] = {"image": np.stack([image] * RECORDS)}
    kept = np.array(True)
    for number, config in enumerate(configs):
        # A rescale would change what is kept, and integers have none.
        config = config.replace(mask_key="keep_mask", rescale=False)
        state = init_state(config, jax.random.key(seed + number))
        batch, _ = apply_batch(config, state, batch)
        kept = kept & batch.pop("keep_mask")
    span, step = display_span(image), _step(image)
    views = [view[::step, ::step] for view in (image, *np.asarray(batch["image"]))]
    factor = max(1, TILE // max(views[0].shape[:2]))
    tiles = [to_display(view, span).repeat(factor, 0).repeat(factor, 1) for view in views]
    return tiles, [1 - float(mask.mean()) for mask in kept]


def _step(image: np.ndarray) -> int:
    """Returns which pixels a tile shows: a smaller copy would blur what is dropped."""
    return -(-max(image.shape[:2]) // TILE)


def _shown_part(image: np.ndarray) -> str:
    parts = [f"1 pixel of {_step(image)}x{_step(image)}"] * (_step(image) > 1)
    return ", ".join([*parts, *["first 3 channels"] * (image.ndim == 3 and image.shape[2] > 3)])


def _shown_rate(configs: Configs) -> str:
    """Shows the rates of configs, each a number or a range."""
    rates = [config.dropout_rate for config in configs]
    ranges = dict.fromkeys(rate if isinstance(rate, tuple) else (rate,) for rate in rates)
    return ", ".join("-".join(f"{bound:.3g}" for bound in each) for each in ranges)


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "Pillow is missing; pip install 'dropax[image]'"
    return _printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _complain(text: str) -> None:
    print(f"dropax: {text}", file=sys.stderr)


def _print(lines: Sequence[str]) -> str:
    """Prints lines; returns why they could not be, or nothing. Ignores BrokenPipeError."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = "\n".join(lines).encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(text, flush=True)
    except OSError as error:
        # What is still buffered must not raise at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "" if isinstance(error, BrokenPipeError) else _reason(error)
    return ""
