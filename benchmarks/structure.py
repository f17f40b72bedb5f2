"""How many functions of dropax a call passes: `python -m benchmarks.structure`.

Counted are the named functions of the package that run, with `sys.setprofile`; a lambda or a
comprehension belongs to the function around it. "Traced" is `jax.make_jaxpr` of a function that
nothing was traced of before, on a batch of two fields; "eager" is a second call, compiled before.
"""

import argparse
import collections
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np

import dropax
from benchmarks.cases import MODES, make_config

_ROOT = str(Path(dropax.__file__).parent)
_IMAGES = np.ones((8, 32, 32, 3), np.float32)
_BATCH = {"image": _IMAGES, "label": np.arange(8)}


def count_calls(call: Callable[[], Any]) -> dict[tuple[str, str], int]:
    """Returns how often each named function of dropax runs: {(file, function): calls}."""
    calls: collections.Counter[tuple[str, str]] = collections.Counter()

    def see(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        inside = event == "call" and code.co_filename.startswith(_ROOT)
        if inside and not code.co_name.startswith("<"):
            calls[code.co_filename[len(_ROOT) + 1 :], code.co_qualname] += 1

    sys.setprofile(see)
    try:
        call()
    finally:
        sys.setprofile(None)
    return calls


def entry_points(mode: str) -> dict[str, Callable[[], Any]]:
    """Returns a call of each way into dropax, by name."""
    config, key = make_config(mode), jax.random.key(0)
    state, shapes = dropax.init_state(config, key), {"image": _IMAGES.shape}
    params = jax.tree.map(lambda leaf: leaf[0], dropax.generate_random_params(config, key, shapes))
    element = {"image": _IMAGES[0]}
    operator = dropax.DropoutOperator(config, rngs=0)
    fixed = config.replace(stochastic=False)
    constant = dropax.DropoutOperator(fixed.replace(cacheable=True), rngs=None)
    return {
        "apply_batch, traced": lambda: jax.make_jaxpr(dropax.apply_batch)(config, state, _BATCH),
        "apply_batch, deterministic, traced": lambda: jax.make_jaxpr(dropax.apply_batch)(
            fixed, state, _BATCH
        ),
        "dropout, traced": lambda: jax.make_jaxpr(
            lambda key, images: dropax.dropout(key, images, mode=MODES[mode])
        )(key, _IMAGES),
        "generate_random_params, traced": lambda: jax.make_jaxpr(
            lambda key: dropax.generate_random_params(config, key, shapes)
        )(key),
        "apply, traced": lambda: jax.make_jaxpr(
            lambda data: dropax.apply(config, data, {}, {}, params)[0]
        )(element),
        "op.apply_batch, eager": lambda: operator.apply_batch(_BATCH),
        "op.apply_batch, cached constant, eager": lambda: constant.apply_batch(_BATCH),
        "op.apply, eager": lambda: operator.apply(element, {}, {}),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structure", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the functions of apply_batch too")
    options = parser.parse_args(argv)
    print(f"{'mode':12}{'entry point':42}{'functions':>10}{'files':>7}{'calls':>7}")
    for mode in MODES:
        for name, call in entry_points(mode).items():
            # Nothing traced before, or everything compiled before.
            jax.clear_caches() if name.endswith("traced") else call()
            calls = count_calls(call)
            files = len({file for file, _ in calls})
            print(f"{mode:12}{name:42}{len(calls):10}{files:7}{sum(calls.values()):7}")
            if options.list and mode == "pixel" and name == "apply_batch, traced":
                for (file, function), number in calls.items():
                    print(f"{'':14}{number:3} {file}: {function}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
