"""Several processes that know of each other's devices make the masks that one makes."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from dropax import as_record_ids
from one_process import IDS, IMAGES, outputs

TESTS = pathlib.Path(__file__).parent
LIMIT = 120  # seconds, for all processes of a run


@pytest.fixture(scope="module")
def expected():
    """What one process makes of the whole batch."""
    return {name: np.asarray(array) for name, array in outputs(IMAGES, as_record_ids(IDS)).items()}


def run_processes(processes, folder):
    """Starts the processes and returns what each wrote. Whatever happens, none is left running."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        "JAX_PLATFORMS": "cpu",
        # Four devices in all, two of each process: the last flag of a name holds.
        "XLA_FLAGS": os.environ["XLA_FLAGS"]
        + f" --xla_force_host_platform_device_count={4 // processes}",
    }
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    files = [folder / f"{rank}.npz" for rank in range(processes)]
    logs = [file.with_suffix(".log") for file in files]
    started = []
    try:
        for rank, (file, log) in enumerate(zip(files, logs, strict=True)):
            command = [sys.executable, TESTS / "one_process.py", port, processes, rank, file]
            with log.open("wb") as stream:
                started.append(
                    subprocess.Popen(
                        list(map(str, command)), env=environment, stdout=stream, stderr=stream
                    )
                )
        deadline = time.monotonic() + LIMIT
        codes = [process.wait(max(0, deadline - time.monotonic())) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert codes == [0] * processes, "\n".join(log.read_text()[-3000:] for log in logs)
    return [dict(np.load(file)) for file in files]


def test_masks_are_the_same_on_two_processes_as_on_one(expected, tmp_path):
    parts = run_processes(2, tmp_path)
    assert all(part.keys() == expected.keys() for part in parts)
    for name, whole in expected.items():
        if "counts" in name:  # every process knows them all
            for part in parts:
                np.testing.assert_array_equal(part[name], whole, name)
        else:
            np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), whole, name)
            assert 0 < (whole == 0).sum() < whole.size


FORKED = """
import os, warnings
import jax, numpy as np
import dropax

warnings.simplefilter("ignore")  # JAX's own of forks


def in_child(call):
    child = os.fork()
    if child == 0:
        try:
            call()
        except RuntimeError as error:
            os._exit(2 if "Start workers by spawn" in str(error) else 3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def drop():
    dropped = dropax.dropout(np.zeros(2, np.uint32), np.ones((4, 4, 3), "f4"), rate=0.5)
    assert 0 < np.asarray(dropped).sum() < 48


assert in_child(drop) == 0  # JAX was not used: the child may
jax.numpy.ones(2).block_until_ready()
assert in_child(drop) == 2  # JAX was used, and dropax only imported
config = dropax.DropoutOperatorConfig(field_key="image", stochastic=True)
operator, batch = dropax.DropoutOperator(config, rngs=0), {"image": np.ones((2, 4, 4, 3), "f4")}
fixed, rngs, key = config.replace(stochastic=False), dropax.Rngs(0), np.zeros(2, np.uint32)
mask, ids = np.ones((2, 4, 4, 3), bool), np.zeros((2, 1), int)
image, saved = {"image": batch["image"][0]}, operator.get_state()
tokens = dropax.keep_tokens(mask[:, 0, 0], 2)
dropax.Box().sample(key, (4, 4, 3), 0.1)  # a program that is known is not traced again
calls = [
    lambda: dropax.apply(fixed, image, {}, {}),
    lambda: dropax.apply(config, image, {}, {}, {"keep_mask": mask[0]}),
    lambda: dropax.generate_random_params(config, key, {"image": (2, 4, 4, 3)}),
    lambda: dropax.Box().sample(key, (4, 4, 3), 0.1),
    lambda: dropax.Rngs(0),
    lambda: rngs(),
    lambda: dropax.dropped_fraction(mask),
    lambda: dropax.expected_dropped_fraction(config, (4, 4, 3)),
    lambda: dropax.visible_fraction(mask, np.ones((2, 1, 4))),
    lambda: dropax.visible_points(mask, np.ones((2, 1, 2))),
    lambda: dropax.box_mask(np.ones((1, 4)), (4, 4)),
    lambda: dropax.length_mask(np.ones(2, int), 4),
    lambda: dropax.patch_mask(mask, 2),
    lambda: dropax.keep_tokens(mask[:, 0, 0], 2),
    lambda: dropax.gather_tokens(mask[:, 0], ids),
    lambda: dropax.scatter_tokens(mask[:, 0, :2], tokens, 0),
    lambda: dropax.init_state(fixed),
    lambda: dropax.load_state(saved),
    lambda: dropax.Batch([dropax.Element(image)]),
    lambda: dropax.DropoutOperator(config, rngs=0),
    lambda: operator.copy(),
    lambda: operator.state,
    lambda: operator.get_statistics(),
    lambda: operator.apply_batch(batch),
    lambda: operator.apply({"image": batch["image"][0]}, {}, {}),
    lambda: dropax.apply_batch(config, operator._state, batch),
    lambda: dropax.dropout(np.zeros(2, np.uint32), batch["image"]),
    lambda: dropax.init_state(config, np.zeros(2, np.uint32)),
]
for call in calls:
    assert in_child(call) == 2


def what_computes_nothing():
    dropax.as_record_ids(np.arange(3))
    dropax.Batch.from_parts(batch, record_ids=np.arange(2))
    dropax.images.to_display(mask[0])
    assert operator.get_operation_stats()["applied_count"] == 0
    assert operator.get_state()["step"] == saved["step"]
    dropax.DropoutOperatorConfig(field_key="image", mode="box").to_dict()


assert in_child(what_computes_nothing) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_worker_works_or_is_told_to_be_spawned_instead_of_hanging():
    subprocess.run([sys.executable, "-c", FORKED], cwd=TESTS.parent, timeout=LIMIT, check=True)


SPAWNED = """
import multiprocessing, warnings
import numpy as np
import dropax

BATCH = {"image": np.ones((2, 4, 4, 3), "f4")}

def work(operator, given):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        operator.apply_batch(BATCH, **given)
    return [str(one.message) for one in caught]

if __name__ == "__main__":
    config = dropax.DropoutOperatorConfig(field_key="image", stochastic=True)
    operator = dropax.DropoutOperator(config, rngs=0)
    ids = {"record_ids": np.arange(2), "epoch": 0}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert "was made in another process" in pool.apply(work, (operator, {}))[0]
        assert pool.apply(work, (operator, ids)) == []
    assert work(operator, {}) == []
"""


def test_an_operator_that_draws_in_another_process_than_its_own_warns(tmp_path):
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    subprocess.run([sys.executable, script], env=environment, timeout=LIMIT, check=True)
