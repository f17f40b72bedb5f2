"""Times the programs on the device that JAX finds."""

import functools
import random
import time
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

import dropax
from benchmarks import report
from benchmarks.accelerators import programs
from benchmarks.timing import FLOORS, WARM_UPS, Call, Row

IN_FLIGHT, ROUNDS = 20, 15
_CPU_SHAPE = (4, 32, 32, 3)

NOTES = f"""\
Medians of {ROUNDS} turns of {IN_FLIGHT} calls in flight, for one call. Copies are its time divided
by that of a jitted `x + 1` or a jitted `where(x > 2, 0, x)` in the same run, whichever is faster.
The time to enqueue is the host's; a call in which the host waits for the device shows there.
"""


class Timing(NamedTuple):
    """Medians for one call, in seconds: until the device is done, and until the host is."""

    done: float
    enqueued: float


def time_in_flight(calls: Mapping[str, Call], in_flight: int = IN_FLIGHT) -> dict[str, Timing]:
    """Times calls in turns, each so many times in flight.

    A host that runs ahead of the device hides what it does itself; one that waits for the device in
    each call shows it by the time to enqueue.
    """
    for call in calls.values():
        for _ in range(WARM_UPS):
            jax.block_until_ready(call())
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    turns, shuffle = list(calls.items()), random.Random(0).shuffle
    for _ in range(ROUNDS):
        shuffle(turns)
        for name, call in turns:
            start = time.perf_counter()
            for _ in range(in_flight):
                result = call()
            enqueued = time.perf_counter()
            jax.block_until_ready(result)  # the last: a device runs its calls in order
            taken[name].append((time.perf_counter() - start, enqueued - start))
            del result
    return {
        name: Timing(*(np.median(times, axis=0) / in_flight).tolist())
        for name, times in taken.items()
    }


def measure(shape: tuple[int, ...], dtype: str, only: str) -> list[Row]:
    """Times each mode, plain JAX and a copy on images of one shape.

    Args:
      shape: of the images.
      dtype: of the images.
      only: what the names of rows have in them.

    Returns:
      A row for each program, or none if no name matches.
    """
    table = programs.make_table(f"images, {dtype}", shape, dtype)
    chosen = [program for program in table.programs if only in f"{table.name}: {program.name}"]
    copies = [table.unit._replace(name=name, step=step) for name, step in FLOORS.items()]

    def compiled(program: programs.Program) -> Call:
        arguments = program.make()
        return functools.partial(jax.jit(program.step).lower(*arguments).compile(), *arguments)

    if not chosen:
        return []
    timings = time_in_flight({program.name: compiled(program) for program in (*copies, *chosen)})
    copy = min(timings[name].done for name in FLOORS)
    return [
        {
            "": name,
            "ms": f"{timing.done * 1e3:.3f}",
            "copies": f"{timing.done / copy:.2f}",
            "us to enqueue": f"{timing.enqueued * 1e6:.0f}",
        }
        for name, timing in timings.items()
    ]


def to_markdown(only: str, quick: bool) -> str:
    """Returns the times of all dtypes, or of the first; "" if no name of a row matches."""
    device = jax.devices()[0]
    text = f"# dropax on {device.device_kind}: times\n\n{NOTES}\n"
    text += f"jax {jax.__version__}, dropax {dropax.__version__}, {device.platform} device.\n"
    shape = programs.IMAGES
    if device.platform == "cpu":
        shape = _CPU_SHAPE
        text += "\nA CPU is no accelerator: images are small, only to see that everything runs.\n"
    rows = []
    for dtype in programs.DTYPES[:1] if quick else programs.DTYPES:
        rows = measure(shape, dtype, only)
        if rows:
            columns = [(heading, [row[heading] for row in rows]) for heading in rows[0]]
            text += f"\n## images, {dtype} {shape}\n\n{report.table(columns)}"
    return text if rows else ""
