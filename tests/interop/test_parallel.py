"""dropax in steps over several devices; without returning its state, each step drops the same.

Every form draws the masks of one device: a record's mask follows from its id and the epoch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax

CONFIG = dropax.DropoutOperatorConfig(
    field_key="image", dropout_rate=0.5, apply_probability=0.75, stochastic=True
)
RECORDS, DEVICES = 16, 4
BATCH = {"image": jnp.ones((RECORDS, 4, 4, 3))}
IDS = np.arange(100, 100 + RECORDS, dtype=np.uint32)
MESH = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

pytestmark = pytest.mark.skipif(
    jax.device_count() < DEVICES, reason="needs XLA_FLAGS=--xla_force_host_platform_device_count=4"
)


def drop(state, batch, ids, epoch):
    return dropax.apply_batch(CONFIG, state, batch, record_ids=ids, epoch=epoch)


def run(step, state):
    """Three epochs of one batch; returns the images of each, and the state."""
    seen = []
    for epoch in range(3):
        batch, state = step(state, BATCH, IDS, np.uint32(epoch))
        seen.append(np.asarray(batch["image"]).reshape(RECORDS, 4, 4, 3))
    return np.stack(seen), state


@pytest.fixture
def state(key):
    return dropax.init_state(CONFIG, key)


@pytest.fixture
def expected(state):
    return run(jax.jit(drop), state)


def assert_same(got, expected):
    np.testing.assert_array_equal(got[0], expected[0])
    for name in ("step", "applied_count", "skipped_count"):
        np.testing.assert_array_equal(getattr(got[1], name), getattr(expected[1], name))


def test_jit_with_shardings(state, expected):
    rows, all_of_it = jax.NamedSharding(MESH, jax.P("data")), jax.NamedSharding(MESH, jax.P())
    step = jax.jit(
        drop, in_shardings=(all_of_it, rows, rows, all_of_it), out_shardings=(rows, all_of_it)
    )
    assert_same(run(step, state), expected)


def test_shard_map_counts_the_records_of_all_shards(state, expected):
    step = jax.jit(
        jax.shard_map(
            drop,
            mesh=MESH,
            in_specs=(jax.P(), jax.P("data"), jax.P("data"), jax.P()),
            out_specs=(jax.P("data"), jax.P()),
        )
    )
    assert_same(run(step, state), expected)


def test_pmap_returns_a_state_for_each_device(state, expected):
    def split(tree):
        return jax.tree.map(lambda leaf: leaf.reshape(DEVICES, -1, *leaf.shape[1:]), tree)

    mapped = jax.pmap(drop, axis_name="data", in_axes=(0, 0, 0, None))
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * DEVICES), state)
    got, states = run(lambda state, *rest: mapped(state, *split(rest[:2]), rest[2]), states)
    np.testing.assert_array_equal(got, expected[0])
    # Each device counts its own records; their sum is the count of all.
    for name in ("applied_count", "skipped_count"):
        total = np.asarray(getattr(states, name)).sum(axis=0)
        np.testing.assert_array_equal(total, getattr(expected[1], name))
