"""What a call of dropax costs around its loop: eager dispatch, the first call, compilations."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

import dropax
from benchmarks.cases import LARGE, MODES, RATE, Experiment, make_config, make_step, shape_name
from benchmarks.peers import Peer
from benchmarks.timing import FLOORS, Call, Contender, Row, floors, measure, random_images

TINY = (1, 8, 8, 3)
RATES, BATCHES = 100, 10


def run_eager(peers: Sequence[Peer]) -> list[Row]:
    """Times eager calls on a tiny image, each beside a jitted function of the same work."""
    del peers
    images, config = random_images(TINY, "float32"), make_config("pixel")
    state, key = dropax.init_state(config, jax.random.key(0)), jax.random.key(0)
    operator = dropax.DropoutOperator(config, rngs=0)
    batch, element = {"image": images}, {"image": images[0]}

    @jax.jit
    def jitted_apply(state: dropax.OperatorState, element: dict[str, jax.Array]) -> Any:
        params = dropax.generate_random_params(config, state.next_key(), {"image": TINY})
        first = {"keep_mask": params["keep_mask"][0]}
        return dropax.apply(config, element, {}, {}, first)[0], state.advance()

    jitted_batch = jax.jit(functools.partial(dropax.apply_batch, config))
    jitted_dropout = jax.jit(functools.partial(dropax.dropout, rate=RATE))
    pairs: dict[str, tuple[Call, Call]] = {
        "apply_batch": (
            lambda: jitted_batch(state, batch),
            lambda: dropax.apply_batch(config, state, batch),
        ),
        "op.apply_batch": (
            lambda: jitted_batch(state, batch),
            lambda: operator.apply_batch(batch),
        ),
        "op.apply": (
            lambda: jitted_apply(state, element),
            lambda: operator.apply(element, {}, {}),
        ),
        "dropout": (
            lambda: jitted_dropout(key, images),
            lambda: dropax.dropout(key, images, rate=RATE),
        ),
    }
    contenders = floors(images)
    for case, (jitted, eager) in pairs.items():
        contenders.append(Contender("dropax", f"{case}, jitted", jitted))
        contenders.append(Contender("dropax", f"{case}, eager", eager))
    rows = measure(contenders, TINY, "float32")
    for jitted, eager in zip(rows[2::2], rows[3::2], strict=True):
        eager["overhead_us"] = 1e3 * (eager["median_ms"] - jitted["median_ms"])
    for row in rows:
        del row["gb_per_s"]  # of a dispatch it says nothing
    return rows


def run_first_call(mode: str, peers: Sequence[Peer]) -> list[Row]:
    """Times calls that find nothing compiled. The floor is the first call of a jitted copy."""
    del peers
    images, config = random_images(LARGE, "float32"), make_config(mode)
    state, key = dropax.init_state(config, jax.random.key(0)), jax.random.key(0)
    operator, batch = dropax.DropoutOperator(config, rngs=0), {"image": images}
    calls: dict[tuple[str, str], Call] = {
        ("copy", case): functools.partial(jax.jit(function), images)
        for case, function in FLOORS.items()
    }
    calls["dropax", "jitted apply_batch"] = functools.partial(
        jax.jit(make_step(config)), state, images
    )
    calls["dropax", "op.apply_batch"] = lambda: operator.apply_batch(batch)
    calls["dropax", "dropout"] = lambda: dropax.dropout(key, images, rate=RATE, mode=MODES[mode])
    contenders = [
        Contender(name, f"{mode}, {case}" if name == "dropax" else case, call)
        for (name, case), call in calls.items()
    ]
    rows = measure(contenders, LARGE, "float32", prepare=jax.clear_caches, seconds=0.0)
    for row in rows:
        del row["gb_per_s"]
    return rows


def run_compilations(peers: Sequence[Peer]) -> list[Row]:
    """Counts compilations for many rates and several batches of one shape."""
    del peers
    rates = np.linspace(0.0, 1.0, RATES).tolist()
    configs = [make_config("pixel").replace(dropout_rate=rate) for rate in rates]
    state = dropax.init_state(configs[0], jax.random.key(0))
    operators = [dropax.DropoutOperator(config, rngs=0) for config in configs]
    batches = [{"image": random_images(TINY, "float32")} for _ in range(BATCHES)]
    key, jitted = jax.random.key(0), jax.jit(dropax.apply_batch)
    calls = {
        "jitted apply_batch": lambda n, batch: jitted(configs[n], state, batch),
        "op.apply_batch": lambda n, batch: operators[n].apply_batch(batch),
        "dropout": lambda n, batch: dropax.dropout(key, batch["image"], rate=rates[n]),
    }
    rows = []
    for case, call in calls.items():
        jax.clear_caches()
        before = compilations().total
        for n in range(RATES):
            for batch in batches:
                jax.block_until_ready(call(n, batch))
        row = {"contender": "dropax", "case": f"{case}, {RATES} rates, {BATCHES} batches each"}
        row |= {"shape": list(TINY), "dtype": "float32", "mode": ""}
        rows.append(row | {"compilations": compilations().total - before})
    return rows


class _Compilations:
    """Counts what XLA compiles in this process, from its making on."""

    def __init__(self) -> None:
        self.total = 0
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration: float, **details: Any) -> None:
        self.total += event == "/jax/core/compile/backend_compile_duration"


compilations = functools.cache(_Compilations)


def experiments() -> Iterator[Experiment]:
    """Yields the experiments of this file."""
    yield Experiment(f"eager/{shape_name(TINY)}", run_eager, quick=True)
    for mode in MODES:
        name = f"first-call/{mode.replace(' ', '-')}"
        yield Experiment(name, functools.partial(run_first_call, mode), quick=mode == "pixel")
    yield Experiment("compilations", run_compilations, quick=True)
