"""How things are timed: side by side, after warm-up, beside a copy.

Contenders take turns, in another order in each round, so that whatever else the machine does falls
on all of them alike, and each finds the caches as another one left them. Only ratios within one
such run mean anything.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

REPETITIONS = 20  # at the least
SECONDS = 1.0  # and so long, where the contenders are quick,
MOST_REPETITIONS = 500  # but no more than this
WARM_UPS = 3

Call = Callable[[], Any]
Row = dict[str, Any]


class Contender(NamedTuple):
    """Something to time.

    Attributes:
      name: whose it is: "dropax", a peer, "copy".
      case: what it does.
      call: does it once. None where the contender refuses.
      facts: what is known without timing it; these become part of the row.
      mode: dropax's name of what is dropped; peers are compared with dropax of the same mode.
      in_turn: True where it would disturb the others. It is then timed after them, alone, and its
        floor is a copy timed alone as well.
    """

    name: str
    case: str
    call: Call | None
    facts: Mapping[str, Any] = {}
    mode: str = ""
    in_turn: bool = False


class Timing(NamedTuple):
    """Median, tenth and ninetieth percentile, in seconds."""

    median: float
    p10: float
    p90: float
    repetitions: int


def compile_function(function: Callable[..., Any], *arguments: Any, elements: int) -> Any:
    """Compiles a function for its arguments, apart from running it.

    Args:
      function: to compile.
      *arguments: what it is compiled for.
      elements: how many elements the image has.

    Returns:
      (compiled, facts): what runs, and its compile time, temporaries and operations an element.
    """
    jax.clear_caches()  # or what was traced and compiled before would be free
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    facts = {"compile_s": time.perf_counter() - start}
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    if memory is not None:
        facts["temporaries_per_element"] = memory.temp_size_in_bytes / elements
    if cost:
        facts["operations_per_element"] = cost.get("flops", 0.0) / elements
    return compiled, facts


def compiled_contender(
    name: str, case: str, function: Callable[..., Any], *arguments: Any, images: Any, mode: str = ""
) -> Contender:
    """Makes a contender of a function under its own jit."""
    compiled, facts = compile_function(function, *arguments, elements=images.size)
    return Contender(name, case, lambda: compiled(*arguments), facts, mode)


def random_images(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Makes images: floats in [0, 1), or integers of all values."""
    rng = np.random.default_rng(0)
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.asarray(rng.random(shape, np.float32)).astype(dtype)
    return jnp.asarray(rng.integers(0, 256, shape, np.uint8)).astype(dtype)


def _copy(images: jax.Array) -> jax.Array:
    return images + 1


def _select(images: jax.Array) -> jax.Array:
    return jnp.where(images > 2, 0, images)


FLOORS = {"x + 1": _copy, "where(x > 2, 0, x)": _select}
"""A jitted copy and a jitted select. The faster of the two, in the same run, is the floor."""


def floors(images: jax.Array) -> list[Contender]:
    """Makes the contenders that the floor is taken from."""
    return [
        compiled_contender("copy", case, function, images, images=images)
        for case, function in FLOORS.items()
    ]


def interleave(
    calls: Mapping[Any, Call], *, prepare: Call = lambda: None, seconds: float = SECONDS
) -> dict[Any, Timing]:
    """Times calls in turns.

    Args:
      calls: by any name.
      prepare: called before each timed call, untimed.
      seconds: goes on for so long where the least number of repetitions takes less.

    Returns:
      For each name, the statistics of at least `REPETITIONS` repetitions.
    """
    for call in calls.values():
        for _ in range(WARM_UPS):
            jax.block_until_ready(call())
    taken: dict[Any, list[float]] = {name: [] for name in calls}
    end, rounds = time.perf_counter() + seconds, 0
    turns, shuffle = list(calls.items()), random.Random(0).shuffle
    while rounds < REPETITIONS or (time.perf_counter() < end and rounds < MOST_REPETITIONS):
        shuffle(turns)
        for name, call in turns:
            prepare()
            start = time.perf_counter()
            result = jax.block_until_ready(call())
            taken[name].append(time.perf_counter() - start)
            del result  # freed before the next one starts
        rounds += 1
    return {
        name: Timing(*np.percentile(times, [50, 10, 90]).tolist(), rounds)
        for name, times in taken.items()
    }


def measure(
    contenders: Sequence[Contender], shape: tuple[int, ...], dtype: Any, **options: Any
) -> list[Row]:
    """Times contenders on the same images.

    Args:
      contenders: among them those called "copy", which the floor is taken from.
      shape: of the images.
      dtype: of the images.
      **options: for `interleave`.

    Returns:
      One row for each contender, in their order.
    """
    calls = {n: c.call for n, c in enumerate(contenders) if c.call is not None}
    copies = [n for n in calls if contenders[n].name == "copy"]
    alone = [n for n in calls if contenders[n].in_turn]
    timings = interleave({n: call for n, call in calls.items() if n not in alone}, **options)
    floor = dict.fromkeys(timings, _faster([timings[n] for n in copies]))
    if alone:
        # Alone, caches stay warm; so does the copy's that these are compared with.
        copy_alone = _faster([interleave({n: calls[n]}, **options)[n] for n in copies])
        for n in alone:
            timings |= interleave({n: calls[n]}, **options)
            floor[n] = copy_alone

    nbytes = 2 * int(np.prod(shape)) * jnp.dtype(dtype).itemsize
    rows = []
    for n, contender in enumerate(contenders):
        row: Row = {
            "contender": contender.name,
            "case": contender.case,
            "mode": contender.mode,
            "shape": list(shape),
            "dtype": jnp.dtype(dtype).name,
        }
        if n in timings:
            timing = timings[n]
            row |= {
                "repetitions": timing.repetitions,
                "median_ms": timing.median * 1e3,
                "p10_ms": timing.p10 * 1e3,
                "p90_ms": timing.p90 * 1e3,
                "ratio_to_floor": timing.median / floor[n].median,
                "p10_ratio_to_floor": timing.p10 / floor[n].p10,
                "gb_per_s": nbytes / timing.median / 1e9,
            }
        rows.append(row | dict(contender.facts))
    _compare_with_peers(rows)
    return rows


def _faster(timings: Sequence[Timing]) -> Timing:
    """Returns the least of each statistic."""
    return Timing(*map(min, zip(*timings, strict=True)))


def _compare_with_peers(rows: list[Row]) -> None:
    """Adds to each of dropax's rows how many times its time each peer of the same mode takes."""
    for row in rows:
        if row["contender"] == "dropax" and row["mode"]:
            row["peers"] = {
                peer["contender"]: peer["ratio_to_floor"] / row["ratio_to_floor"]
                if "ratio_to_floor" in peer
                else "refuses"
                for peer in rows
                if peer["contender"] != "dropax" and peer["mode"] == row["mode"]
            }
