"""What was measured, as tables, as JSON, beside an earlier run, and as a chart."""

import json
import math
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib
import numpy as np

import dropax
from benchmarks import bars
from benchmarks.peers import Peer
from benchmarks.timing import Row

Report = dict[str, Any]

NOTES = """\
Medians, with 10th to 90th percentile, of at least 20 repetitions. Contenders took turns, in another
order in each round, after warm-up. "x floor" is the time beside that of the faster of a jitted
`x + 1` and a jitted `where(x > 2, 0, x)` in the same run, by medians; "its p10" the same by 10th
percentiles. "x apart" is the time beside that of two compiled functions, of which one draws the
masks and the other applies them. GB/s counts the image, read and written. Temporaries (bytes) and
operations are XLA's own figures, an element of the image; the body of a loop, so one record of a
scan, is counted once. Compiling was timed apart from running, with nothing cached. What ran in
turn, alone, has a floor that did so too. Only ratios within one run mean anything.
"""


class _Column(NamedTuple):
    heading: str
    show: Callable[[Row], str]


def make_report(rows: Sequence[Row], peers: Sequence[Peer], missing: Sequence[str]) -> Report:
    """Puts versions and hardware beside the rows."""
    versions = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": np.__version__,
        "dropax": dropax.__version__,
    }
    versions |= {peer.package: peer.version for peer in peers}
    hardware = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
    }
    return {
        "versions": versions,
        "hardware": hardware,
        "peers_missing": list(missing),
        "rows": list(rows),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


# Tables.


def header(report: Report) -> str:
    """Returns what the run was made with, in Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    hardware = report["hardware"]
    text = f"{hardware['cpu']}, {hardware['cores']} cores; {hardware['backend']} device"
    text += f" {hardware['device']}.\n{versions}.\n"
    if report["peers_missing"]:
        text += f"Not installed, so left out: {', '.join(report['peers_missing'])}.\n"
    return text


def to_markdown(report: Report) -> str:
    """Returns a whole report in Markdown."""
    parts = ["# Benchmarks of dropax\n", header(report), NOTES]
    names = dict.fromkeys(row["experiment"] for row in report["rows"])
    for name in names:
        parts.append(section([row for row in report["rows"] if row["experiment"] == name]))
    if any(name.startswith("modes/") for name in names):
        parts.append("## Bars\n\n" + bars.to_markdown(report["rows"], table))
    return "\n".join(parts)


def section(rows: Sequence[Row]) -> str:
    """Returns the tables of one experiment in Markdown."""
    columns = [(column.heading, [column.show(row) for row in rows]) for column in _COLUMNS]
    text = f"## {rows[0]['experiment']}\n\n"
    text += table([(heading, cells) for heading, cells in columns if any(cells)])
    compared = [row for row in rows if row.get("peers")]
    if compared:
        names = dict.fromkeys(name for row in compared for name in row["peers"])
        columns = [("times of dropax", [row["case"] for row in compared])]
        columns += [
            (name, [_peer_cell(row["peers"].get(name)) for row in compared]) for name in names
        ]
        text += "\n" + table(columns)
    return text


def table(columns: Iterable[tuple[str, list[str]]]) -> str:
    """Returns a table in Markdown.

    Args:
      columns: a heading and its cells, for each column.

    Returns:
      Its lines.
    """
    columns = [[heading, *cells] for heading, cells in columns]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in zip(*columns, strict=True)
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def _number(key: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(key) is None else _short(row[key])


def _short(value: float) -> str:
    """Returns three digits, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


def _spread(row: Row) -> str:
    if "p10_ms" not in row:
        return ""
    return f"{_short(row['p10_ms'])} to {_short(row['p90_ms'])}"


def _peer_cell(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else _short(value)


_COLUMNS = (
    _Column("contender", lambda row: row["contender"]),
    _Column("case", lambda row: row["case"]),
    _Column("shape", lambda row: "x".join(map(str, row["shape"]))),
    _Column("dtype", lambda row: row["dtype"]),
    _Column("median ms", _number("median_ms")),
    _Column("p10 to p90", _spread),
    _Column("x floor", _number("ratio_to_floor")),
    _Column("its p10", _number("p10_ratio_to_floor")),
    _Column("GB/s", _number("gb_per_s")),
    _Column("temp B/el", _number("temporaries_per_element")),
    _Column("ops/el", _number("operations_per_element")),
    _Column("compile s", _number("compile_s")),
    _Column("overhead us", _number("overhead_us")),
    _Column("x apart", _number("ratio_to_apart")),
    _Column("compiles", lambda row: str(row.get("compilations", ""))),
    _Column("note", lambda row: row.get("note", "")),
)


# Files.


def save(report: Report, path: Path) -> Path:
    """Writes JSON to a file, and Markdown beside it; returns the latter's path."""
    path.write_text(json.dumps(report, indent=1) + "\n")
    beside = path.with_suffix(".md")
    beside.write_text(to_markdown(report))
    return beside


def load(path: Path) -> Report:
    """Reads a report that `save` wrote.

    Raises:
      ValueError: if the file holds none.
      OSError: if it cannot be read.
    """
    report = json.loads(path.read_text())
    if not isinstance(report, dict) or not {"versions", "hardware", "rows"} <= report.keys():
        raise ValueError(f"--compare must name a file that --save wrote; got {path}.")
    return report


def compare(then: Report, now: Report) -> str:
    """Returns, row by row, the ratios to the floor of two runs."""
    earlier = {_identity(row): row for row in then["rows"]}
    lines, new = [], 0
    for row in now["rows"]:
        before = earlier.get(_identity(row), {}).get("ratio_to_floor")
        if row.get("ratio_to_floor") is None or row["contender"] == "copy":
            continue
        if before is None:
            new += 1
            continue
        after = row["ratio_to_floor"]
        cells = (row["experiment"], row["contender"], row["case"])
        lines.append((*cells, _short(before), _short(after), _short(after / before)))
    text = ""
    for what in ("versions", "hardware"):
        for name in then[what] | now[what]:
            old, current = then[what].get(name), now[what].get(name)
            if old is not None and current is not None and old != current:
                text += f"{name} was {old}, is {current}.\n"
    if lines:
        headings = ("experiment", "contender", "case", "x floor then", "now", "now / then")
        columns = zip(headings, map(list, zip(*lines, strict=True)), strict=True)
        text += "\n" + table(columns)
    return text + f"\n{len(lines)} rows compared, {new} with nothing to compare with.\n"


def _identity(row: Row) -> tuple[Any, ...]:
    return row["experiment"], row["contender"], row["case"], row["dtype"], tuple(row["shape"])


def plot(report: Report, path: Path) -> None:
    """Draws the modes' ratios to the copy floor as bars, on a log axis.

    Raises:
      ImportError: if matplotlib is not installed.
    """
    Figure = require_matplotlib()  # noqa: N806
    groups: dict[str, list[Row]] = {}
    for row in report["rows"]:
        if row["experiment"].startswith("modes/") and row.get("ratio_to_floor"):
            groups.setdefault(row["experiment"], []).append(row)
    across = min(3, len(groups))
    down = math.ceil(len(groups) / across)
    tallest = max(map(len, groups.values()))
    figure = Figure(figsize=(6.5 * across, (0.26 * tallest + 1.2) * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flat
    for panel, (name, rows) in zip(panels, groups.items(), strict=False):
        ratios = [row["ratio_to_floor"] for row in rows]
        kinds = {"dropax": "tab:blue", "copy": "tab:gray"}
        colours = [kinds.get(row["contender"], "tab:orange") for row in rows]
        labels = [f"{row['contender']}: {row['case']}" for row in rows]
        bars = panel.barh(range(len(rows)), ratios, color=colours)
        panel.bar_label(bars, [f" {_short(ratio)}" for ratio in ratios], fontsize=7)
        panel.set_yticks(range(len(rows)), labels, fontsize=7)
        panel.invert_yaxis()
        panel.set_xscale("log")
        panel.set_xlim(0.7 * min(ratios), 2.5 * max(ratios))
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_title(name.removeprefix("modes/"), fontsize=9)
    for panel in list(panels):
        panel.set_axis_off()
    device = report["hardware"]["device"]
    figure.supxlabel(f"time, in copies ({device}, jax {report['versions']['jax']})", fontsize=9)
    figure.savefig(path, dpi=120)


def prepare_outputs(saved: Path | None, plotted: Path | None) -> None:
    """Makes the folders of what will be written, so that what would fail at the end fails now.

    Raises:
      OSError: if a folder cannot be made.
      ValueError: if the JSON would take the name of the table beside it.
    """
    for path in filter(None, (saved, plotted)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if saved and saved.suffix == ".md":
        raise ValueError(f"--save must not end in .md, the table's suffix; got {saved}.")


def require_matplotlib() -> Any:
    """Returns matplotlib's figure class.

    Raises:
      ImportError: if matplotlib is not installed, with the cure.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install matplotlib") from error
    return Figure
