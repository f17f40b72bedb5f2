"""The command line of the benchmarks."""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from benchmarks import calls, cases, report
from benchmarks.peers import Peer, load_peers
from benchmarks.timing import Row


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Times dropax beside a copy, and beside its peers."
    )
    parser.add_argument("--quick", action="store_true", help="a subset that takes about a minute")
    parser.add_argument("--only", metavar="NAME", default="", help="what has NAME in its name")
    parser.add_argument("--peers", action="store_true", help="time other libraries too")
    parser.add_argument("--save", metavar="FILE", type=Path, help="write JSON, and Markdown beside")
    parser.add_argument("--compare", metavar="FILE", type=Path, help="with what --save wrote")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the modes (PNG, SVG, PDF)")
    parser.add_argument("--list", action="store_true", help="print the names, and run nothing")
    options = parser.parse_args(argv)

    chosen = [
        experiment
        for experiment in itertools.chain(cases.experiments(), calls.experiments())
        if options.only in experiment.name and (experiment.quick or not options.quick)
    ]
    if options.list:
        print("\n".join(experiment.name for experiment in chosen))
        return 0
    try:
        # What would fail at the end, fails now.
        if not chosen:
            raise ValueError(f"--only must be part of a name (see --list); got {options.only!r}.")
        then = report.load(options.compare) if options.compare else None
        if options.plot:
            report.require_matplotlib()
            if not any(experiment.name.startswith("modes/") for experiment in chosen):
                raise ValueError(f"--plot must have modes to draw; got --only {options.only!r}.")
        report.prepare_outputs(options.save, options.plot)
    except (ImportError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2

    # A compilation that comes out of a cache is none.
    jax.config.update("jax_enable_compilation_cache", False)
    peers, missing = load_peers() if options.peers else ([], [])
    print(report.header(report.make_report([], peers, missing)), report.NOTES, sep="\n")
    now = report.make_report(_run(chosen, peers), peers, missing)
    if options.save:
        print(f"saved {options.save} and {report.save(now, options.save)}")
    if then:
        print(report.compare(then, now))
    if options.plot:
        report.plot(now, options.plot)
        print(f"drew {options.plot}")
    return 0


def _run(chosen: Sequence[cases.Experiment], peers: Sequence[Peer]) -> list[Row]:
    rows = []
    start = time.perf_counter()
    for experiment in chosen:
        new = [{"experiment": experiment.name, **row} for row in experiment.run(peers)]
        print(report.section(new), flush=True)
        rows += new
    print(f"{len(chosen)} experiments, {time.perf_counter() - start:.0f} s\n")
    return rows


if __name__ == "__main__":
    sys.exit(main())
