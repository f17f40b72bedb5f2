"""The command line of the benchmarks on accelerators."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import dropax
from benchmarks import report
from benchmarks.accelerators import compilers, devices, programs
from benchmarks.timing import Row

NOTES = """\
Read off compiled programs, not timed. Kernels are the launches of one call on a GPU; instructions
are those of one call on a TPU, about 100 of them scalar ones that derive the key of dropax's step.
Those of a loop count once for each of its steps, and a `sort` counts as one. A GPU program waits
for the host at a conditional, and in a loop of unknown length (?). Copies are XLA's estimate of
cycles, divided by that of a jitted `where(x > 2, 0, x)`; there is none for `sort` and for scalar
instructions. MB are temporaries. Residuals are what JAX keeps from forward to backward, and masks
those of booleans.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerators",
        description="Compiles dropax for an H200 and a TPU v5e, without having one, and reads the "
        "programs; or times it on the GPU or TPU that is there.",
    )
    parser.add_argument("--platform", choices=tuple(compilers.DEVICES), help="both if left out")
    parser.add_argument("--only", metavar="NAME", default="", help="rows `TABLE: ROW` with NAME")
    parser.add_argument("--quick", action="store_true", help="a subset that takes a minute")
    parser.add_argument("--time", action="store_true", help="time on the device of this machine")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write the Markdown there too")
    options = parser.parse_args(argv)
    failed = False
    if options.time:
        text = devices.to_markdown(options.only, options.quick)
    else:
        platforms = [options.platform] if options.platform else list(compilers.DEVICES)
        try:
            versions = compilers.versions(platforms)
        except ImportError as error:
            print(error, file=sys.stderr)
            return 2
        rows: list[Row] = []
        failed = not all([compile_rows(platform, options, rows) for platform in platforms])
        text = to_markdown(rows, versions) if rows else ""
    if not text and not failed:
        print(f"--only must be part of a row; got {options.only!r}.", file=sys.stderr)
        return 2
    print(text)
    if options.save and text:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(text)
    return int(failed)  # what was compiled before is reported nevertheless


def compile_rows(platform: str, options: argparse.Namespace, rows: list[Row]) -> bool:
    """Appends the rows of a platform, from a process of its own; False if that process fails."""
    command = [sys.executable, "-m", "benchmarks.accelerators.rows"]
    command += [platform, options.only, str(options.quick)]
    # Compilers that find no device print many warnings, so these are shown only on failure.
    with tempfile.TemporaryFile("w+") as messages:
        with subprocess.Popen(
            command,
            env=compilers.environment(platform),
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
        ) as child:
            for line in child.stdout:
                rows.append(json.loads(line))
                print(platform, rows[-1]["table"], rows[-1]["name"], file=sys.stderr, sep="; ")
        if child.returncode:
            messages.seek(0)
            print(messages.read(), file=sys.stderr)
    return child.returncode == 0


def to_markdown(rows: Sequence[Row], versions: dict[str, str]) -> str:
    """Returns the report of compiled programs."""
    text = "# dropax on accelerators: compiled programs\n\n"
    text += ", ".join(f"{name} {version}" for name, version in versions.items())
    text += f", dropax {dropax.__version__}.\n\n{NOTES}"
    text += _summary(rows)
    for title in dict.fromkeys(row["table"] for row in rows):
        text += f"\n## {title}\n\n" + _table([row for row in rows if row["table"] == title])
    return text


def _summary(rows: Sequence[Row]) -> str:
    """Returns the figures that the README files show, as far as they are there."""
    found = {(row["table"].partition(" (")[0], row["name"], row["platform"]): row for row in rows}
    names = dict.fromkeys(name for table, name, _ in found if table == "images, float32")

    def cells(heading: str, table: str, platform: str) -> list[str]:
        show = _COLUMNS[platform][heading]
        return [show(found.get((table, name, platform), {})) for name in names]

    columns = [
        ("(256, 224, 224, 3)", list(names)),
        *(
            (f"H200: {heading}", cells(heading, "images, float32", "cuda"))
            for heading in ("kernels", "conditionals", "loops")
        ),
        *(
            (f"TPU v5e: copies, {dtype}", cells("cycles", f"images, {dtype}", "tpu"))
            for dtype in programs.DTYPES
        ),
    ]
    columns = [(heading, column) for heading, column in columns if any(column)]
    return "\n## Modes\n\n" + report.table(columns) if names else ""


def _table(rows: Sequence[Row]) -> str:
    """Returns one table: the columns of each platform beside those of the other."""
    names = dict.fromkeys(row["name"] for row in rows)
    columns = [("", list(names))]
    for platform, device in compilers.DEVICES.items():
        found = {row["name"]: row for row in rows if row["platform"] == platform}
        for heading, show in _COLUMNS[platform].items():
            heading = rows[0]["in_units"] if heading == "cycles" else heading
            cells = [show(found.get(name, {})) for name in names]
            columns.append((f"{device}: {heading}", cells))
    facts = {row["name"]: row for row in rows}
    for heading in ("residuals", "masks"):
        columns.append((f"{heading}, MB", [_megabytes(heading)(facts[name]) for name in names]))
    return report.table((heading, cells) for heading, cells in columns if any(cells))


def _whole(key: str) -> Callable[[Row], str]:
    return lambda row: f"{row[key]:,}" if key in row else ""


def _megabytes(key: str) -> Callable[[Row], str]:
    return lambda row: f"{row[key] / 1e6:.2f}" if key in row else ""


def _loops(row: Row) -> str:
    steps = ["?" if steps is None else str(steps) for steps in row.get("loops", ())]
    return " + ".join(steps) or ("0" if row else "")


_SHARED = {
    "conditionals": _whole("conditionals"),
    "loops": _loops,
    "MB": _megabytes("temporaries"),
}
_COLUMNS = {
    "cuda": {"kernels": _whole("kernels"), **_SHARED},
    "tpu": {
        "cycles": lambda row: f"{row['cycles'] / row['unit']:.2f}" if row else "",
        "instructions": _whole("kernels"),
        **_SHARED,
    },
}


if __name__ == "__main__":
    sys.exit(main())
