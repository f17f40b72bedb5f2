"""Does dropping help? Small networks on real images, with each mode and without.

`python -m benchmarks.regularization --help`
"""

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import dropax
from benchmarks import report, scores, tasks
from benchmarks.timing import Row

RATES, QUICK_RATES = (0.1, 0.2, 0.4), (0.2,)
SEEDS, QUICK_SEEDS = 20, 4
STEPS, QUICK_STEPS = 400, 150

# Modes scaled to the images: 8x8 digits and 16x16 photographs.
MODES: dict[str, dict[str, Any]] = {
    "digits": {
        "pixel": "pixel",
        "whole pixel": dropax.Pixel(per_channel=False),
        "channel": "channel",
        "block": dropax.Block(size=3),
        "patch": dropax.Patch(size=2),
        "box": "box",
        "grid": dropax.Grid(unit=4),
        "band": "band",
    },
    "photographs": {
        "pixel": "pixel",
        "whole pixel": dropax.Pixel(per_channel=False),
        "channel": "channel",
        "block": dropax.Block(size=5),
        "patch": dropax.Patch(size=4),
        "box": "box",
        "grid": dropax.Grid(unit=8),
        "band": "band",
    },
}
ONE_CHANNEL = ("whole pixel", "channel")
"""What is left out of grey images: it is "pixel" once more, and the whole image or nothing."""

ABOUT = {
    "digits": "Scikit-learn's digits, 8x8 grey: {size} to train on, 899 to test with; {steps} "
    "steps of Adam on batches of {batch}, {seeds} seeds.",
    "photographs": "Pieces (16x16, RGB) of scikit-learn's two photographs, with noise of standard "
    "deviation 0.1 that is to be removed: {size} to train on, 128 to test with, from the right of "
    "the photographs; {steps} steps of Adam on batches of {batch}, {seeds} seeds. The score is the "
    "peak signal-to-noise ratio.",
}


class Contender(NamedTuple):
    """A network that is trained with a mode, or without: then place and mode are empty."""

    task: tasks.Task
    place: str
    mode: str

    @property
    def name(self) -> str:
        """By which `--only` finds it."""
        return "/".join(filter(None, (self.task.name, self.place, self.mode.replace(" ", "-"))))


def contenders() -> Iterator[Contender]:
    """Yields the contenders of each task, the one without dropping first."""
    for task, places in ((tasks.DIGITS, ("input", "features")), (tasks.PHOTOGRAPHS, ("input",))):
        yield Contender(task, "", "")
        for place in places:
            for mode in MODES[task.name]:
                if (task.name, place) != ("digits", "input") or mode not in ONE_CHANNEL:
                    yield Contender(task, place, mode)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.regularization",
        description="Trains small networks on real images, with each mode of dropax and without.",
    )
    quick = "few seeds and steps, one rate, digits alone: under a minute"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--only", metavar="NAME", default="", help="what has NAME in its name")
    parser.add_argument("--seeds", metavar="N", type=int, help=f"how many; {SEEDS} if left out")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write JSON, and Markdown beside")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the scores (PNG, SVG, PDF)")
    parser.add_argument("--list", action="store_true", help="print the names, and run nothing")
    options = parser.parse_args(argv)

    named = [contender for contender in contenders() if options.only in contender.name]
    if options.quick:
        named = [contender for contender in named if contender.task is tasks.DIGITS]
    # What a contender is compared with is run too.
    chosen = [c for c in contenders() if c in named or any(_is_baseline(c, n) for n in named)]
    if options.list:
        print("\n".join(contender.name for contender in named))
        return 0
    seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    try:
        # What would fail at the end, fails now.
        if not any(contender.place for contender in chosen):
            raise ValueError(f"--only must be part of a mode's name; got {options.only!r}.")
        if options.seeds is not None and options.seeds < 2:
            raise ValueError(f"--seeds must be at least 2; got {options.seeds}.")
        tasks.require_packages()
        if options.plot:
            report.require_matplotlib()
        report.prepare_outputs(options.save, options.plot)
    except (ImportError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2

    start = time.perf_counter()
    rates, steps = (QUICK_RATES, QUICK_STEPS) if options.quick else (RATES, STEPS)
    results = report.make_report(_run(chosen, seeds, steps, rates), [], [])
    for package in ("optax", "scikit-learn"):
        results["versions"][package] = importlib.metadata.version(package)
    results["seconds"] = round(time.perf_counter() - start)
    print(f"\n{scores.to_markdown(results)}\n{results['seconds']} s")
    if options.save:
        print(f"saved {options.save} and {scores.save(results, options.save)}")
    if options.plot:
        scores.plot(results, options.plot)
        print(f"drew {options.plot}")
    return 0


def _is_baseline(contender: Contender, other: Contender) -> bool:
    return contender.task is other.task and not contender.place


def _run(
    chosen: Sequence[Contender], count: int, steps: int, rates: Sequence[float]
) -> Iterator[Row]:
    from benchmarks import training

    for task in dict.fromkeys(contender.task for contender in chosen):
        data = task.load()
        seeds = training.make_seeds(task, data, count, steps)
        facts = {"size": task.train_size, "batch": task.batch_size, "steps": steps, "seeds": count}
        about = ABOUT[task.name].format(**facts)
        for contender in (contender for contender in chosen if contender.task is task):
            dropping = None
            if contender.place:
                mode = MODES[task.name][contender.mode]
                dropping = training.Dropping(contender.place, mode)
            train = training.make_trainer(task, dropping)
            for rate in rates if dropping else (None,):
                start = time.perf_counter()
                reached = jax.device_get(train(seeds, data, rate))
                took = time.perf_counter() - start
                row = {
                    "task": task.name,
                    "place": contender.place,
                    "mode": contender.mode or "none",
                    "rate": rate,
                    "unit": task.unit,
                    "about": about,
                    "scores": {name: values.tolist() for name, values in reached.items()},
                }
                shown = ", ".join(f"{name} {values.mean():.2f}" for name, values in reached.items())
                label = contender.name if rate is None else f"{contender.name} at {rate:g}"
                print(f"{label}: {shown} ({took:.1f} s)", flush=True)
                yield row


if __name__ == "__main__":
    sys.exit(main())
