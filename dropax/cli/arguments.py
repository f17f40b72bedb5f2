"""The command line's arguments."""

import argparse
import contextlib
import math
from collections.abc import Callable, Sequence
from typing import NoReturn

from dropax import __version__, presets
from dropax.cli.modes import parse_mode
from dropax.config import DropoutOperatorConfig
from dropax.modes import MODES, Mode

EPILOG = """\
examples:
  python -m dropax                                the modes at several rates, on a built-in picture
  python -m dropax photo.jpg --rate 0.1           writes dropax_out/photo.png and a contact sheet
  python -m dropax photos/ --mode channel         every picture and array below a folder
  python -m dropax photo.jpg --mode 'Box(count=3)'    options of a mode, as in Python
  python -m dropax --mode box --mode 'Grid(16)'   several modes, on the built-in picture
  python -m dropax photo.jpg --preset cutout      with the parameters of a paper
  python -m dropax photos/ --json > done.json     what was done, for another program
  python -m dropax photos/ --quiet && next_step   nothing but errors is printed

inputs and outputs:
  Arrays, (H, W), (H, W, C) or (N, H, W, C), keep their format and dtype. Pictures become PNG and
  keep their alpha channel. The same seed gives the same bytes for a file of the same name (its path
  below the input folder), whatever else is done in the same run. In an .npz every numeric array
  with 2 to 4 axes is dropped, and the others are copied. Nothing is ever unpickled. A file in a
  folder that is neither a picture nor an array is skipped with a remark.

exit status:
  0 all was done; 1 something could not be done, though the rest was; 2 the command line is wrong;
  130 interrupted. Errors and remarks go to stderr. Colors are for terminals, unless NO_COLOR is
  set.
"""
PRESETS: dict[str, Callable[..., DropoutOperatorConfig]] = {
    "cutout": presets.cutout,
    "random_erasing": presets.random_erasing,
    "gridmask": presets.gridmask,
    "dropblock": presets.dropblock,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exits with one line instead of the whole usage."""
        self.exit(2, f"dropax: {message}; see {self.prog} --help\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options that a command line asks for.

    Args:
      argv: the arguments, or None for those of the process.

    Raises:
      SystemExit: with code 2 if an argument is wrong, and with 0 after `--help` and `--version`.
    """
    parser = _Parser(
        prog="python -m dropax",
        description="Drop pixels, channels or regions of pictures (PNG, JPEG, WebP) and arrays.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="a file, or a folder of them")
    add = parser.add_argument_group("what is dropped").add_argument
    modes, names = ", ".join(MODES), ", ".join(PRESETS)
    help_ = (
        f"what drops together: {modes}; or with options, such as 'Box(count=3)' (default: pixel). "
        "Without inputs it may come several times"
    )
    add("--mode", type=_mode, action="append", dest="modes", metavar="MODE", help=help_)
    help_ = f"a paper's parameters, instead of a mode and a rate: {names}"
    add("--preset", type=_preset, choices=[*PRESETS], metavar="NAME", help=help_)
    add("--rate", type=float, help="expected fraction that is dropped (default: 0.2)")
    help_ = "what dropped values become: a number, mean, or noise (default: 0)"
    add("--fill", type=_fill, default=0, help=help_)
    add("--seed", type=int, default=0, help="same seed, same masks (default: 0)")
    group = parser.add_argument_group("output")
    add = group.add_argument
    add("--out", metavar="DIR", default="dropax_out", help="output folder (default: dropax_out)")
    add("--overwrite", action="store_true", help="replace files that already exist")
    add = group.add_mutually_exclusive_group().add_argument
    add("--json", action="store_true", help="print the table as JSON")
    add("--quiet", action="store_true", help="print errors only")
    parser.add_argument("--version", action="version", version=f"dropax {__version__}")
    options = parser.parse_args(argv)
    if options.rate is not None and not 0 <= options.rate <= 1:
        parser.error(f"argument --rate: must be in [0, 1]; got {options.rate}")
    if not 0 <= options.seed < 2**32:
        parser.error(f"argument --seed: must be in [0, {2**32}); got {options.seed}")
    options.mode = options.modes[0] if options.modes else None
    if options.inputs and options.modes and len(options.modes) > 1:
        parser.error("argument --mode: may come several times only without inputs")
    for name in ("mode", "rate"):
        if options.preset and getattr(options, name) is not None:
            parser.error(f"argument --{name}: not allowed with --preset, which sets it")
    return options


def _mode(text: str) -> str | Mode:
    if text in PRESETS:
        raise argparse.ArgumentTypeError(f"{text} is a preset; pass --preset {text}")
    if text == "whole_pixel":
        raise argparse.ArgumentTypeError("pass --mode 'Pixel(per_channel=False)'")
    return parse_mode(text)


def _preset(text: str) -> str:
    if text in MODES:
        raise argparse.ArgumentTypeError(f"{text} is a mode; pass --mode {text}")
    return text


def _fill(text: str) -> int | float | str:
    if text in ("mean", "noise"):
        return text
    for kind in (int, float):
        with contextlib.suppress(ValueError, OverflowError):
            if math.isfinite(kind(text)):
                return kind(text)
    raise argparse.ArgumentTypeError(f"must be a finite number, mean or noise; got {text!r}")
