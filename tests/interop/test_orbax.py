"""Checkpoints of dropax in Orbax: what is restored draws the very masks that would have come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax

ocp = pytest.importorskip(
    "orbax.checkpoint", reason="orbax-checkpoint is missing: pip install '.[interop]'"
)

CONFIG = dropax.DropoutOperatorConfig(
    field_key="image", dropout_rate=0.5, apply_probability=0.75, stochastic=True
)
BATCH = {"image": np.ones((16, 4, 4, 3), np.float32)}


def test_an_operator_s_state_goes_on_where_it_was(tmp_path):
    operator = dropax.DropoutOperator(CONFIG, rngs=0)
    operator.set_statistics({"mean": np.array([0.5, 0.25, 0.125], np.float32)})
    for _ in range(3):
        operator(BATCH)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(3, args=ocp.args.PyTreeSave(operator.get_state()))
        manager.wait_until_finished()
        saved = manager.restore(3, args=ocp.args.PyTreeRestore())
    restored = dropax.DropoutOperator(CONFIG, rngs=99)
    restored.set_state(saved)
    np.testing.assert_array_equal(restored.get_statistics()["mean"], [0.5, 0.25, 0.125])
    for _ in range(3):
        np.testing.assert_array_equal(restored(BATCH)["image"], operator(BATCH)["image"])
    assert restored.get_operation_stats() == operator.get_operation_stats()


def test_an_operator_state_is_saved_beside_the_weights(tmp_path, key):
    run = jax.jit(lambda state: dropax.apply_batch(CONFIG, state, BATCH))
    state = dropax.init_state(CONFIG, key)
    _, state = run(state)
    tree = {"weights": jnp.arange(3.0), "drop_state": state}
    blank = {"weights": jnp.zeros(3), "drop_state": dropax.init_state(CONFIG, jax.random.key(99))}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "tree", tree)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "tree", blank)["drop_state"]
    assert isinstance(restored, dropax.OperatorState)
    for _ in range(3):
        (expected, state), (got, restored) = run(state), run(restored)
        np.testing.assert_array_equal(got["image"], expected["image"])
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), state, restored))
