"""The command line's arguments."""

import argparse
import ast
import contextlib
import os
from collections.abc import Sequence
from typing import Any, NoReturn

import dropax
from dropax import DropoutOperatorConfig, presets
from dropax.modes import MODES

EPILOG = """\
examples:
  python -m dropax                                  every mode and preset, on a built-in picture
  python -m dropax photo.jpg                        every mode, on a picture of your own
  python -m dropax photo.jpg features.npy --mode block --rate 0.1 --rate 0.3
  python -m dropax --mode 'Box(count=3)' --fill noise --seed 7
  python -m dropax --preset cutout --size 32

Each row of the sheet and of the table is one mode or preset, on one picture, at one rate: the
picture, and the records of one batch of it, each with a draw of its own. An array is (height,
width) or (height, width, channels), of any dtype, and keeps its size.

exit status: 0, or 1 if something could not be done, 2 if an argument is wrong, 130 after Ctrl-C.
"""
# Presets that take one picture, and no video.
PRESETS = [name for name in presets.PRESETS if name != "videomae"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exits with one line instead of the whole usage."""
        self.exit(2, f"dropax: {message.rstrip('.')}; see {self.prog} --help\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options of a command line, and makes the output folder; exits if one is wrong."""
    parser = _Parser(
        prog="python -m dropax",
        description="Show what dropax drops: a contact sheet, and a table of dropped fractions.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    several: dict[str, Any] = {"action": "append", "default": []}
    add("files", nargs="*", metavar="FILE", help="a picture or a .npy array (the built-in picture)")
    help_ = (
        f"{', '.join(MODES)}, or one with options as in Python, such as 'Box(count=3)' (default: "
        "every mode); may be repeated"
    )
    add("--mode", type=_mode, dest="modes", metavar="MODE", help=help_, **several)
    help_ = f"a paper's parameters: {', '.join(PRESETS)}; may be repeated"
    add("--preset", choices=PRESETS, dest="presets", metavar="NAME", help=help_, **several)
    help_ = "expected dropped fraction, of modes (default: 0.25); may be repeated"
    add("--rate", type=_rate, dest="rates", metavar="RATE", help=help_, **several)
    help_ = "what dropped values become: a number, '(1, 2, 3)' for channels, mean or noise (0)"
    add("--fill", type=_fill, default=0, help=help_)
    add("--seed", type=_seed, default=0, help="same seed, same masks (0)")
    help_ = "longest side in pixels that pictures are scaled down to, as for a network (160)"
    add("--size", type=_size, default=160, help=help_)
    help_ = "folder of contact_sheet.png, which is replaced (dropax_out)"
    add("--out", metavar="DIR", default="dropax_out", help=help_)
    add("--version", action="version", version=f"dropax {dropax.__version__}")
    options = parser.parse_args(argv)
    if options.rates and options.presets and not options.modes:
        parser.error("argument --rate: presets have rates of their own; pass --mode instead")
    if not options.modes and not options.presets:
        first, *others = MODES
        options.modes = [first, "Pixel(per_channel=False)", *others]
        options.presets = [] if options.files else PRESETS
    options.rates = options.rates or [0.25]
    try:
        os.makedirs(options.out, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --out: {error.filename!r}: {error.strerror}; pass another folder")
    return options


def _mode(text: str) -> Any:
    if text in PRESETS:
        raise argparse.ArgumentTypeError(f"{text} is a preset; pass --preset {text}")
    return _checked("mode", text)


def _size(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0; got {text!r}")
    return int(text)


def _fill(text: str) -> Any:
    fill = _literal(text)
    if isinstance(fill, str) and fill not in ("mean", "noise"):
        raise argparse.ArgumentTypeError(f"must be numbers, mean or noise; got {text!r}")
    return _checked("fill", fill)


def _rate(text: str) -> Any:
    return _checked("dropout_rate", _literal(text))


def _seed(text: str) -> Any:
    return _checked("seed", _literal(text))


def _literal(text: str) -> Any:
    """Returns the number or tuple that a text stands for, or the text itself."""
    with contextlib.suppress(SyntaxError, ValueError):
        return ast.literal_eval(text)
    return text


def _checked(name: str, value: Any) -> Any:
    """Returns an argument of the config that its constructor accepts."""
    try:
        DropoutOperatorConfig(stochastic=True, field_key="image", **{name: value})
    except (TypeError, ValueError) as error:
        why = str(error).removeprefix(f"DropoutOperatorConfig.{name}").lstrip()
        raise argparse.ArgumentTypeError(why) from None
    return value
