"""A training run that can be killed and started again: `test_restart.py` does both.

Each step appends a digest of its masks to a log. Every few steps the state is saved, the way a user
would: a NumPy file, written beside the old one and put in its place when it is whole.
"""

import hashlib
import os
import pathlib
import signal
import sys

import jax
import numpy as np

from cases import config_of
from dropax import Batch, DropoutOperator

STEPS, SAVE_EVERY, EPOCH, BATCH = 14, 3, 6, 4
RECORDS = EPOCH * BATCH


def save(path, operator, step):
    """Writes a checkpoint whole or not at all."""
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        np.savez(file, train_step=step, **operator.get_state())
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def restore(path, operator):
    """Returns the step to go on from."""
    with np.load(path) as saved:
        state = dict(saved)
    step = int(state.pop("train_step"))
    operator.set_state(state)
    return step


def operators(seed):
    """One that draws by the step, and one that draws by records' ids."""
    config = config_of("pixel", apply_probability=0.8)
    return DropoutOperator(config, rngs=seed), DropoutOperator(config, rngs=seed + 1)


def batch_of(step):
    """A shuffled loader's batch: every epoch has an order of its own."""
    epoch, number = divmod(step, EPOCH)
    order = np.random.default_rng(epoch).permutation(RECORDS)[number * BATCH :][:BATCH]
    images = np.ones((BATCH, 6, 5, 3), np.float32)
    return epoch, Batch.from_parts({"image": images}, record_ids=order)


def train(folder, seed, kill_at):
    """Runs to the end, or to the step at which it is killed before it has saved."""
    by_step, by_id = operators(seed)
    files = folder / "by_step.npz", folder / "by_id.npz"
    step = 0
    if files[1].exists():
        step = restore(files[0], by_step)
        assert restore(files[1], by_id) == step
    with (folder / "log").open("a") as log:
        for now in range(step, STEPS):
            epoch, batch = batch_of(now)
            for dropped in (by_step.apply_batch(batch.data), by_id.apply_batch(batch, epoch=epoch)):
                mask = np.asarray(dropped["image"]) != 0
                print(now, hashlib.sha256(mask.tobytes()).hexdigest(), file=log, flush=True)
            if now + 1 == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if (now + 1) % SAVE_EVERY == 0:
                save(files[0], by_step, now + 1)
                save(files[1], by_id, now + 1)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    train(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
