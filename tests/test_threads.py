"""Threads that share one operator, one `Rngs` or one function: what comes is what one would get."""

import copy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from cases import config_of, through_pickle
from dropax import DropoutOperator, ModalityOperator, OperatorConfig, Rngs

THREADS, CALLS, SIZE = 8, 25, 4
often = pytest.mark.usefixtures("eager_switches")
BATCH = {"image": np.ones((SIZE, 6, 5, 3), np.float32)}


@pytest.fixture
def eager_switches():
    """Lets the interpreter change threads as often as it can.

    For what dropax itself keeps. Many threads in one jitted function are JAX's own business, and in
    jaxlib 0.10.2 that function's cache does not always survive as many changes as these.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def from_threads(call, times=CALLS):
    """Calls a function from all threads, which start together, and returns what came."""
    start = threading.Barrier(THREADS)

    def work(_):
        start.wait(timeout=60)
        return [call() for _ in range(times)]

    with ThreadPoolExecutor(THREADS) as pool:
        return [result for results in pool.map(work, range(THREADS)) for result in results]


def as_multiset(arrays):
    return sorted(np.asarray(array).tobytes() for array in arrays)


@often
def test_no_draw_of_a_shared_operator_is_repeated_and_no_count_lost():
    operator = DropoutOperator(config_of("pixel"), rngs=0)
    alone = operator.clone()
    together = from_threads(lambda: operator.apply_batch(BATCH)["image"])
    one_by_one = [alone.apply_batch(BATCH)["image"] for _ in range(THREADS * CALLS)]
    assert as_multiset(together) == as_multiset(one_by_one)
    assert operator.get_operation_stats()["applied_count"] == THREADS * CALLS * SIZE
    assert repr(operator) == repr(alone)
    element, first = {"image": BATCH["image"][0]}, int(operator.state.step)
    drawn = from_threads(lambda: operator.apply(element, {}, {})[0]["image"])
    assert len(set(as_multiset(drawn))) == THREADS * CALLS == int(operator.state.step) - first


@often
def test_statistics_and_resets_of_other_threads_are_not_undone():
    operator = DropoutOperator(config_of("pixel", fill="stats_mean"), rngs=0)
    operator.set_statistics({"mean": 0.5})
    numbers = iter(range(THREADS * CALLS))

    def call():
        operator.apply_batch(BATCH)
        operator.set_statistics({"mean": float(next(numbers))})
        return operator.get_statistics()

    assert all(statistics is not None for statistics in from_threads(call))
    assert int(operator.state.step) == THREADS * CALLS


@often
def test_no_key_of_shared_rngs_comes_twice():
    rngs, alone = Rngs(0, other=1), Rngs(0, other=1)
    together = from_threads(lambda: jax.random.key_data(rngs.other()))
    one_by_one = [jax.random.key_data(alone.other()) for _ in range(THREADS * CALLS)]
    assert as_multiset(together) == as_multiset(one_by_one)
    assert repr(rngs) == repr(alone)


def test_pure_functions_give_every_thread_the_same(key):
    mode = "block"
    config = config_of(mode)
    state = dropax.init_state(config, key)
    jitted = jax.jit(lambda state, batch: dropax.apply_batch(config, state, batch))

    def call():
        out, after = jitted(state, BATCH)
        bare = dropax.dropout(key, BATCH["image"], mode=mode, rate=0.4)
        return np.concatenate([out["image"], bare]), int(after.step)

    call()  # compiles
    results = from_threads(call, times=3)
    assert len({array.tobytes() for array, _ in results}) == 1
    assert {step for _, step in results} == {1}
    expected, _ = dropax.apply_batch(config, state, BATCH)
    np.testing.assert_array_equal(results[0][0][:SIZE], expected["image"])


@often
@pytest.mark.parametrize(
    "again",
    [
        *(DropoutOperator.copy, DropoutOperator.clone, copy.copy, copy.deepcopy, through_pickle),
        lambda operator: jax.tree.map(jnp.asarray, operator),
    ],
)
def test_copies_wait_for_nobody_but_themselves(again):
    operator = DropoutOperator(config_of("pixel"), rngs=Rngs(0, augment=3))
    alone = operator.clone()
    operator.apply_batch(BATCH)
    twin = again(operator)
    with operator._lock, ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: (twin.apply_batch(BATCH), twin.set_state(twin.get_state())))
        out, _ = other.result(timeout=60)
    expected = [alone.apply_batch(BATCH)["image"] for _ in range(2)]
    np.testing.assert_array_equal(out["image"], expected[1])
    assert from_threads(lambda: twin.apply_batch(BATCH)["image"].shape, times=2)
    assert int(twin.state.step) == 2 + 2 * THREADS
    assert int(operator.state.step) == 1
    assert twin != operator


@often
def test_an_operator_may_call_itself_and_others():
    inner = DropoutOperator(config_of("pixel"), rngs=0)

    class Twice(ModalityOperator):
        def generate_random_params(self, rng, data_shapes):
            del rng, data_shapes
            self.set_statistics({"calls": 1})

        def apply(self, data, state, metadata, random_params=None, stats=None):
            return {**data, "again": self.get_statistics()["calls"]}, state, metadata

        def apply_batch(self, batch, *arguments, **options):
            return super().apply_batch(inner.apply_batch(batch), *arguments, **options)

    outer = Twice(OperatorConfig(stochastic=True), rngs=0)
    from_threads(lambda: outer.apply_batch(BATCH), times=3)
    assert int(outer.state.step) == int(inner.state.step) == 3 * THREADS
