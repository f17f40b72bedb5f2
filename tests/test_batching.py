"""The kit: a batch function out of anybody's two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cases import config_of
from dropax import Batch, Element, OperatorConfig, apply_batch, batched, init_state
from dropax.kit.state import new_state


def draw_gain(config, keys, data_shapes):
    assert data_shapes["image"][0] == keys.shape[0]
    return {"gain": jax.vmap(lambda key: jax.random.uniform(key, ()))(keys)}


def scale(config, data, state, metadata, random_params=None, stats=None):
    gain = 2.0 if random_params is None else random_params["gain"]
    offset = 0.0 if stats is None else stats["offset"]
    data = {**data, "image": data["image"] * gain + offset, "gain": jnp.asarray(gain)}
    return data, {**state, "seen": jnp.bool_(True)}, metadata


scale_batch = batched(draw_gain, scale)
IMAGES = {"image": np.ones((4, 3, 2), np.float32)}


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_each_record_draws_from_its_own_key(strategy, key):
    config = OperatorConfig(stochastic=True, batch_strategy=strategy)
    out, state = scale_batch(config, new_state(key), IMAGES)
    step_key = jax.random.fold_in(key, 0)
    expected = [jax.random.uniform(jax.random.fold_in(step_key, i), ()) for i in range(4)]
    np.testing.assert_array_equal(out["gain"], expected)
    again, state = scale_batch(config, state, IMAGES)
    assert not np.isin(again["gain"], out["gain"]).any()
    assert int(state.step) == 2
    assert int(state.applied_count[1]) == 8


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_a_deterministic_config_draws_nothing(strategy, key):
    config = OperatorConfig(batch_strategy=strategy)
    out, state = scale_batch(config, new_state(key), IMAGES)
    np.testing.assert_array_equal(out["image"], np.full((4, 3, 2), 2.0))
    np.testing.assert_array_equal(out["gain"], np.full(4, 2.0))
    assert int(state.step) == 0


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_data_and_states_may_grow(strategy, key):
    config = OperatorConfig(batch_strategy=strategy)
    batch = Batch([Element({"image": jnp.ones(3)}, {"n": i}, i) for i in range(3)])
    out, _ = scale_batch(config, new_state(key), batch)
    assert out.states.keys() == {"n", "seen"}
    assert out.states["seen"].shape == (3,)
    assert out.metadata_list == [0, 1, 2]


def test_statistics_come_from_the_state_unless_they_are_given(key):
    state = new_state(key, {"offset": jnp.float32(10.0)})
    out, state = scale_batch(OperatorConfig(), state, IMAGES)
    assert float(out["image"][0, 0, 0]) == 12.0
    assert float(state.statistics["offset"]) == 10.0
    out, _ = scale_batch(OperatorConfig(), state, IMAGES, {"offset": jnp.float32(1.0)})
    assert float(out["image"][0, 0, 0]) == 3.0


def test_the_config_says_whether_records_count_as_worked_on(key):
    idle = batched(draw_gain, scale, is_active=lambda config, params: False)
    _, state = idle(OperatorConfig(), new_state(key), IMAGES)
    assert (int(state.applied_count[1]), int(state.skipped_count[1])) == (0, 4)


def test_a_batch_sharded_over_explicit_axes_runs_at_once_or_not_at_all(key):
    mesh = jax.make_mesh((4,), ("shard",), axis_types=(jax.sharding.AxisType.Explicit,))
    config, state = OperatorConfig(stochastic=True), new_state(key)
    expected, _ = scale_batch(config, state, IMAGES)
    with jax.set_mesh(mesh):
        images = {"image": jax.device_put(IMAGES["image"], jax.P("shard"))}
        out, _ = scale_batch(config, state, images)
        np.testing.assert_array_equal(out["image"], expected["image"])
        text = r"batch_strategy must be 'vmap' where the batch axis is sharded over explicit mesh"
        with pytest.raises(ValueError, match=text):
            scale_batch(OperatorConfig(stochastic=True, batch_strategy="scan"), state, images)


def shard_mesh():
    return jax.make_mesh((4,), ("shard",), axis_types=(jax.sharding.AxisType.Auto,))


def test_local_positions_would_repeat_masks_and_are_refused(key):
    config, state = OperatorConfig(stochastic=True), new_state(key)

    def local(state, images):
        return scale_batch(config, state, {"image": images})[0]["gain"]

    sharded = jax.shard_map(
        local,
        mesh=shard_mesh(),
        in_specs=(jax.P(), jax.P("shard")),
        out_specs=jax.P("shard"),
    )
    text = r"op_state\.key must vary over the manual axis 'shard' as the data does; .*axis_index"
    with pytest.raises(ValueError, match=text):
        jax.jit(sharded)(state, jnp.ones((8, 3, 2)))

    def keyed(state, images):
        own = jax.random.fold_in(state.key, jax.lax.axis_index("shard"))
        return local(state.replace(key=own), images)

    sharded = jax.shard_map(
        keyed, mesh=shard_mesh(), in_specs=(jax.P(), jax.P("shard")), out_specs=jax.P("shard")
    )
    gains = np.asarray(jax.jit(sharded)(state, jnp.ones((8, 3, 2))))
    assert len(np.unique(gains)) == 8


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_numpy_arrays_may_be_constants_of_a_jitted_function(strategy, key):
    config = config_of("pixel", batch_strategy=strategy)
    state, images = init_state(config, key), np.ones((4, 6, 5, 3), np.float32)
    baked = jax.jit(lambda state: apply_batch(config, state, {"image": images}))(state)[0]
    passed = jax.jit(apply_batch)(config, state, {"image": images})[0]
    np.testing.assert_array_equal(baked["image"], passed["image"])


def test_a_batch_of_nothing_comes_back_and_draws_nothing(key):
    config, batch = OperatorConfig(stochastic=True), Batch([])
    state = init_state(config, key)
    out, after = batched(None, None)(config, state, batch)
    assert out is batch
    assert after is state
