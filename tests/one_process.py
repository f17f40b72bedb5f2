"""One process of several, each with its own part of a global batch: `test_processes.py` starts it.

It writes what it holds of each output, so that the test can put the parts together. That test runs
the same steps in one process.
"""

import sys

import jax
import numpy as np

from cases import config_of
from dropax import DropoutOperator, apply_batch, as_record_ids, init_state

RECORDS = 8
IDS = np.array([5, 1, 2**33, 7, 2**50, 9, 11, 2], np.uint64)
IMAGES = (np.arange(RECORDS * 6 * 5 * 3).reshape(RECORDS, 6, 5, 3) + 1).astype(np.float32)


def outputs(images, ids):
    """Runs a step by position and one by ids, and an operator."""
    config = config_of("pixel", apply_probability=0.7)

    @jax.jit
    def steps(state, images, ids):
        first, state = apply_batch(config, state, {"image": images})
        second, state = apply_batch(config, state, {"image": images}, record_ids=ids, epoch=3)
        return first["image"], second["image"], state

    first, second, state = steps(init_state(config, jax.random.key(7)), images, ids)
    counts = jax.numpy.stack([state.applied_count, state.skipped_count])
    found = {"by position": first, "by id": second, "counts": counts}
    operator = DropoutOperator(config_of("box"), rngs=7)
    found["operator"] = operator.apply_batch({"image": images})["image"]
    saved = operator.get_state()
    found["operator's counts"] = np.array([saved["applied_count"], saved["skipped_count"]])
    return found


def main(port, processes, rank, file):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"127.0.0.1:{port}",
        processes,
        rank,
        initialization_timeout=60,
        heartbeat_timeout_seconds=60,
    )
    assert jax.process_count() == processes
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    over = jax.NamedSharding(mesh, jax.P("data"))
    own = slice(rank * RECORDS // processes, (rank + 1) * RECORDS // processes)
    images = jax.make_array_from_process_local_data(over, IMAGES[own])
    ids = jax.make_array_from_process_local_data(over, as_record_ids(IDS)[own])
    assert images.shape == IMAGES.shape
    assert not images.is_fully_addressable
    parts = {}
    for name, array in outputs(images, ids).items():
        if isinstance(array, jax.Array) and not array.is_fully_replicated:
            assert array.sharding.is_equivalent_to(over, array.ndim)
            shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start)
            array = np.concatenate([shard.data for shard in shards])
        parts[name] = np.asarray(array)
    np.savez(file, **parts)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4])
