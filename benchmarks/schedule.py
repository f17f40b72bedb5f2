"""A rate that is scheduled, in one compilation: DropBlock's linear ramp on a small network.

`python -m benchmarks.schedule --help`
"""

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dropax
from benchmarks import calls, report, tasks
from benchmarks.timing import Row

SHOWN = 9  # steps in the table
SIZE = 3  # side of a block, on feature maps of 8x8


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.schedule",
        description="Trains on digits while DropBlock's rate rises step by step from 0, and counts "
        "the compilations of the training step. More than one is a failure.",
    )
    parser.add_argument("--steps", metavar="N", type=int, default=200, help="200 if left out")
    last = "of the last step; 0.25 if left out"
    parser.add_argument("--rate", metavar="RATE", type=float, default=0.25, help=last)
    options = parser.parse_args(argv)
    try:
        if options.steps < 2:
            raise ValueError(f"--steps must be at least 2; got {options.steps}.")
        if not 0 <= options.rate <= 1:
            raise ValueError(f"--rate must be in [0, 1]; got {options.rate}.")
        tasks.require_packages()
    except (ImportError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2

    jax.config.update("jax_enable_compilation_cache", False)
    results = report.make_report([], [], [])
    results["versions"]["optax"] = importlib.metadata.version("optax")
    print(report.header(results))
    rows, compilations = run(options.steps, options.rate)
    shown = np.unique(np.linspace(0, len(rows) - 1, SHOWN).round().astype(int))
    columns = {
        "step": [str(number) for number in shown],
        "rate": [f"{rows[number]['rate']:.4f}" for number in shown],
        "dropped": [f"{rows[number]['dropped']:.4f}" for number in shown],
        "loss": [f"{rows[number]['loss']:.3f}" for number in shown],
    }
    print(report.table(columns.items()))
    rates = len({row["rate"] for row in rows})
    print(f"{rates} rates, {len(rows)} steps, compilations of the step: {compilations}")
    if compilations != 1:
        print(f"the step must be compiled once; got {compilations}.", file=sys.stderr)
        return 1
    return 0


def run(steps: int, last_rate: float) -> tuple[list[Row], int]:
    """Trains on digits while the rate goes from 0 to its last value.

    Args:
      steps: how many.
      last_rate: of the last step.

    Returns:
      (rows, compilations): of each step the rate that was asked for, the fraction that dropped and
      the loss; and how often the step was compiled.
    """
    import optax

    task, data = tasks.DIGITS, tasks.DIGITS.load()
    ramp = optax.linear_schedule(0.0, last_rate, steps - 1)
    optimizer = optax.adam(task.learning_rate)
    config = dropax.presets.dropblock("features", block_size=SIZE, mask_key="kept")

    @jax.jit
    def step(config: Any, weights: Any, moments: Any, drop_state: Any, rows: jax.Array) -> Any:
        def loss(weights: Any) -> Any:
            seen: dict[str, Any] = {}

            def hide(features: jax.Array) -> jax.Array:
                batch, seen["state"] = dropax.apply_batch(
                    config, drop_state, {"features": features}
                )
                seen["dropped"] = dropax.dropped_fraction(batch["kept"]).mean()
                return batch["features"]

            outputs = task.forward(weights, data.images[rows], hide)
            return task.loss(outputs, data.targets[rows]), seen

        (value, seen), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
        updates, moments = optimizer.update(gradients, moments)
        weights = optax.apply_updates(weights, updates)
        return weights, moments, seen["state"], {"dropped": seen["dropped"], "loss": value}

    rng = np.random.default_rng(0)
    init_key, mask_key = jax.random.split(jax.random.key(0))
    weights = task.init(init_key)
    moments, drop_state = optimizer.init(weights), dropax.init_state(config, mask_key)
    batches = [
        jnp.asarray(rng.choice(len(data.images), task.batch_size, replace=False))
        for _ in range(steps)
    ]
    rates = [float(ramp(number)) for number in range(steps)]

    counter = calls.compilations()
    before = counter.total
    results = []
    for rate, rows in zip(rates, batches, strict=True):
        # The rate is a leaf of the config: each step is given another config, none is compiled.
        weights, moments, drop_state, seen = step(
            config.replace(dropout_rate=rate), weights, moments, drop_state, rows
        )
        results.append({"rate": rate, **seen})
    count = counter.total - before
    return [jax.device_get(row) for row in results], count


if __name__ == "__main__":
    sys.exit(main())
