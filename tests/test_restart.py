"""A run that was killed goes on with the very masks of one that was not."""

import io
import os
import pathlib
import signal
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

import training
from cases import config_of
from dropax import DropoutOperator

TESTS = pathlib.Path(__file__).parent
IMAGES = np.ones((4, 6, 5, 3), np.float32)


def run(folder, seed, kill_at=0):
    """Runs the training in a process of its own and returns how it ended."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    command = [sys.executable, TESTS / "training.py", folder, seed, kill_at]
    return subprocess.run(list(map(str, command)), env=environment, timeout=120).returncode


def masks_of(folder):
    """Which masks each step met, and at which steps."""
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    return [int(step) for step, _ in lines[::2]], [digest for _, digest in lines]


def test_a_killed_run_resumes_with_the_masks_of_one_that_was_not(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    training.train(whole, 5, 0)
    steps, expected = masks_of(whole)
    assert steps == list(range(training.STEPS))
    assert len(set(expected)) == 2 * training.STEPS, "every step and every id has masks of its own"

    # Killed in the middle of the second epoch, two steps after a checkpoint.
    assert run(broken, 5, kill_at=11) == -signal.SIGKILL
    assert masks_of(broken)[0] == list(range(11))
    # What goes on is another process, and an operator that was made with another seed.
    assert run(broken, 99) == 0
    steps, found = masks_of(broken)
    assert steps == [*range(11), *range(9, training.STEPS)]
    assert found == expected[:22] + expected[18:]
    for name in ("by_step.npz", "by_id.npz"):
        with np.load(broken / name) as one, np.load(whole / name) as other:
            assert one.files == other.files
            assert all((one[entry] == other[entry]).all() for entry in one.files)


def test_a_file_that_was_cut_short_is_refused_and_the_operator_stays_as_it_was():
    operator, other = (DropoutOperator(config_of("pixel"), rngs=seed) for seed in (0, 3))
    other.apply_batch({"image": IMAGES})
    file = io.BytesIO()
    np.savez(file, **other.get_state())

    def restore(size):
        with np.load(io.BytesIO(file.getvalue()[:size])) as saved:
            operator.set_state(dict(saved))

    before, whole = str(operator.get_state()), file.tell()
    for size in range(0, whole, 7):
        with pytest.raises((ValueError, OSError, EOFError, zipfile.BadZipFile)):
            restore(size)
        assert str(operator.get_state()) == before
    restore(whole)
    assert str(operator.get_state()) == str(other.get_state())


def test_a_state_is_small():
    operator = DropoutOperator(config_of("pixel"), rngs=jax.random.key(0, impl="rbg"))
    operator.apply_batch({"image": IMAGES})
    state = operator.state.replace(key=jax.random.key_data(operator.state.key))
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state)) <= 28
    saved = jax.tree.leaves(operator.get_state())
    sizes = [leaf.nbytes if isinstance(leaf, np.ndarray) else len(str(leaf)) for leaf in saved]
    assert sum(sizes) <= 200
    statistics = {"mean": np.ones(1000, np.float32)}
    operator.set_statistics(statistics)
    held = jax.tree.leaves(operator.state.statistics)
    assert [leaf.nbytes for leaf in held] == [4000]
