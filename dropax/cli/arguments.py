"""The command line's arguments.

Given the words of a command line, returns the options and the config that they ask for, or says in
terms of these words what is wrong.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from dropax import presets
from dropax.config import DropoutOperatorConfig
from dropax.kit.errors import require_choice
from dropax.regions import MODES

EPILOG = """\
examples:
  python -m dropax                                the modes at several rates, on a built-in picture
  python -m dropax photo.jpg --rate 0.1           writes dropax_out/photo.png and a contact sheet
  python -m dropax photos/ --mode channel         every picture and array below a folder
  python -m dropax photo.jpg --preset cutout      with the parameters of a paper
  python -m dropax photos/ --json > done.json     what was done, for another program
  python -m dropax photos/ --quiet && next_step   nothing but errors is printed

inputs and outputs:
  Arrays, (H, W), (H, W, C) or (N, H, W, C), stay in their format and dtype. Pictures become PNG,
  with their alpha channel as it was. The same seed gives the same bytes for a file of the same name
  (its path below the input folder), whatever else is done in the same run. In an .npz every array
  of numbers with 2 to 4 axes is dropped, the others are carried along. Nothing is ever unpickled.

exit status:
  0 all was done; 1 something could not be done, though the rest was; 2 the command line is wrong;
  130 interrupted. Errors and remarks go to stderr. Colours are for terminals, unless NO_COLOR is
  set.
"""
PRESETS: dict[str, Callable[..., DropoutOperatorConfig]] = {
    "cutout": presets.cutout,
    "random_erasing": presets.random_erasing,
    "gridmask": presets.gridmask,
    "dropblock": presets.dropblock,
}
# The config's wording, in terms of the command line.
_WORDINGS = {"DropoutOperatorConfig.": "--", "--dropout_": "--", " or a real scalar array": ""}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, DropoutOperatorConfig]:
    """Reads the arguments.

    Args:
      argv: the arguments, or None for those of the process.

    Returns:
      The options, and the config of an operator on a field `image`.

    Raises:
      OverflowError: if a number is too large for what it is.
      SystemExit: after `--help` and `--version`.
      TypeError: if an argument is of another kind.
      ValueError: if there is no such argument, or it is out of range.
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
    add("--mode", metavar="MODE", help=f"what drops together: {', '.join(MODES)} (default: pixel)")
    listed = ", ".join(PRESETS)
    add("--preset", metavar="NAME", help=f"a paper's parameters, instead of a mode: {listed}")
    add("--rate", type=_number, help="expected fraction that is dropped (default: 0.2)")
    add(
        "--fill",
        type=_number,
        default=0,
        help="what dropped values become: a number, mean, or noise (default: 0)",
    )
    add("--seed", type=_number, default=0, help="same seed, same masks (default: 0)")
    group = parser.add_argument_group("what comes out")
    add = group.add_argument
    add("--out", metavar="DIR", default="dropax_out", help="output folder (default: dropax_out)")
    add("--overwrite", action="store_true", help="replace files that are there already")
    add = group.add_mutually_exclusive_group().add_argument
    add("--json", action="store_true", help="print the table as JSON")
    add("--quiet", action="store_true", help="print errors only")
    # The package is loaded before its __main__; importing it by name would go up the floors.
    version = f"dropax {sys.modules['dropax'].__version__}"
    parser.add_argument("--version", action="version", version=version)
    options = parser.parse_args(argv)
    if options.preset is not None:
        require_choice("--preset", options.preset, PRESETS)
        for name in ("mode", "rate"):
            if getattr(options, name) is not None:
                raise ValueError(
                    f"--{name} must be left out where there is a --preset, which says it"
                )
    if options.fill == "stats_mean":
        raise ValueError("--fill must not be 'stats_mean': there are no statistics here")
    config = DropoutOperatorConfig(
        field_key="image",
        stochastic=True,
        dropout_rate=0.2 if options.rate is None else options.rate,
        mode="pixel" if options.mode is None else options.mode,
        fill=options.fill,
        seed=options.seed,
    )
    return options, config


def in_options(error: BaseException) -> str:
    """Says what an error says, in terms of the command line."""
    message = str(getattr(error, "strerror", None) or str(error) or type(error).__name__)
    for wording, here in _WORDINGS.items():
        message = message.replace(wording, here)
    return message


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text  # the config says what it should be
