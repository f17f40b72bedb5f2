"""Scores over seeds: intervals, tables and a chart."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.report import Report
from benchmarks.timing import Row

CONFIDENCE = 0.95

NOTES = """\
Each score is the mean over seeds with a two-sided 95% confidence interval by Student's t. In
brackets, the difference from "none" with an interval of its own, taken seed by seed: both had the
same training set, initial weights and batches. It is **bold** where it does not reach zero; the
intervals are not corrected for their number, so of forty that mean nothing two are bold by chance.
Of several rates, the first table has the one that was best on clean validation images; test images
had no say. "clean" are test images as they are. "disc" hides a disc, "pixels" single pixels, of a
quarter of the area, in black, drawn in NumPy; no mode drops discs, but "pixel" and "whole pixel"
train on what "pixels" tests.
Modes at the input leave kept values as they are (augmentation), those on features rescale them
(regularisation layer). What is dropped is 0.
"""


def interval(samples: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and half the width of its confidence interval, by Student's t.

    Args:
      samples: independent, two or more.

    Returns:
      (mean, half width).
    """
    from scipy import stats

    count = len(samples)
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
    return float(np.mean(samples)), float(quantile * np.std(samples, ddof=1) / math.sqrt(count))


def best_rates(rows: Sequence[Row]) -> list[Row]:
    """Returns, of the rows that differ in nothing but the rate, the best on validation images."""
    best: dict[Any, Row] = {}
    for row in rows:
        name = (row["task"], row["place"], row["mode"])
        if name not in best or _mean(row, "validation") > _mean(best[name], "validation"):
            best[name] = row
    return list(best.values())


def _mean(row: Row, condition: str) -> float:
    return float(np.mean(row["scores"][condition]))


def table(rows: Sequence[Row], baselines: Sequence[Row]) -> str:
    """Returns a table in Markdown.

    Args:
      rows: of one task.
      baselines: among them the one of that task without dropping.

    Returns:
      One line for each row.
    """
    (baseline,) = (row for row in baselines if row["task"] == rows[0]["task"] and not row["place"])
    columns = [
        ("place", [row["place"] for row in rows]),
        ("mode", [row["mode"] for row in rows]),
        ("rate", ["" if row["rate"] is None else f"{row['rate']:g}" for row in rows]),
    ]
    for condition in _conditions(baseline):
        cells = [_cell(row, baseline, condition) for row in rows]
        columns.append((f"{condition}, {baseline['unit']}", cells))
    return report.table(columns)


def _conditions(row: Row) -> list[str]:
    return [condition for condition in row["scores"] if condition != "validation"]


def _cell(row: Row, baseline: Row, condition: str) -> str:
    scores = row["scores"][condition]
    mean, half = interval(scores)
    digits = 1 if half >= 0.1 else 2
    text = f"{mean:.{digits}f} ± {half:.{digits}f}"
    if row is baseline:
        return text
    mean, half = interval(np.subtract(scores, baseline["scores"][condition]))
    mean_shown = round(mean, digits) + 0.0  # no minus before a zero
    difference = f"{mean_shown:+.{digits}f} ± {half:.{digits}f}"
    return f"{text} ({f'**{difference}**' if abs(mean) > half else difference})"


def to_markdown(results: Report) -> str:
    """Returns a whole report in Markdown."""
    rows = results["rows"]
    parts = ["# Does dropping help?\n", report.header(results), NOTES]
    tables = {"at the rate that validation images chose": best_rates(rows), "at all rates": rows}
    for title, chosen in tables.items():
        for task in dict.fromkeys(row["task"] for row in rows):
            own = [row for row in chosen if row["task"] == task]
            parts.append(f"## {task}, {title}\n\n{own[0]['about']}\n\n{table(own, rows)}")
    return "\n".join(parts)


def save(results: Report, path: Path) -> Path:
    """Writes JSON to a file, and Markdown beside it; returns the latter's path."""
    path.write_text(json.dumps(results, indent=1) + "\n")
    beside = path.with_suffix(".md")
    beside.write_text(to_markdown(results))
    return beside


_TESTED = {"clean": "clean", "disc": "with a disc hidden", "pixels": "with pixels hidden"}


def plot(results: Report, path: Path) -> None:
    """Draws all scores with their intervals, a panel for each place and condition.

    Raises:
      ImportError: if matplotlib is not installed.
    """
    Figure = report.require_matplotlib()  # noqa: N806
    rows = results["rows"]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["place"]:
            groups.setdefault((row["task"], row["place"]), []).append(row)
    baselines = {row["task"]: row for row in rows if not row["place"]}
    rates = sorted({row["rate"] for row in rows if row["place"]})
    across = max(len(_conditions(row)) for row in baselines.values())
    heights = [len({row["mode"] for row in group}) + 2.5 for group in groups.values()]
    figure = Figure(figsize=(3.6 * across + 1, 0.3 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(groups), across, squeeze=False, height_ratios=heights)
    for line, ((task, place), group) in zip(panels, groups.items(), strict=True):
        for panel, condition in zip(line, _conditions(baselines[task]), strict=True):
            _draw(panel, group, baselines[task], condition, rates)
            title = f"{task}, {place}: tested {_TESTED[condition]}"
            panel.set_title(title, fontsize=8)
            panel.set_xlabel(baselines[task]["unit"], fontsize=8)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    figure.savefig(path, dpi=120)


def _draw(
    panel: Any, rows: Sequence[Row], baseline: Row, condition: str, rates: Sequence[float]
) -> None:
    import matplotlib

    modes = list(dict.fromkeys(row["mode"] for row in rows))
    shades = matplotlib.colormaps["viridis_r"](np.linspace(0.15, 0.9, len(rates)))
    mean, half = interval(baseline["scores"][condition])
    panel.axvspan(mean - half, mean + half, color="0.85", linewidth=0)
    panel.axvline(mean, color="0.4", linewidth=0.8, label="nothing dropped, with its interval")
    for place, (rate, shade) in enumerate(zip(rates, shades, strict=True)):
        own = [row for row in rows if row["rate"] == rate]
        shift = 0.22 * (place - (len(rates) - 1) / 2)
        heights = [modes.index(row["mode"]) + shift for row in own]
        means, halves = zip(*(interval(row["scores"][condition]) for row in own), strict=True)
        style = {"fmt": "o", "markersize": 3.5, "linewidth": 1.2, "color": shade}
        panel.errorbar(means, heights, xerr=halves, label=f"rate {rate:g}", **style)
    panel.set_yticks(range(len(modes)), modes, fontsize=8)
    panel.set_ylim(len(modes) - 0.5, -0.5)
    panel.tick_params(axis="x", labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="x", color="0.92")
    panel.set_axisbelow(True)
