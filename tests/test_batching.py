"""The kit: a batch function out of anybody's two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cases import SHAPE, both_strategies, config_of, refuses
from dropax import OperatorConfig, apply_batch, batched, init_state
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


def test_the_config_says_whether_records_count_as_worked_on(key):
    idle = batched(draw_gain, scale, is_active=lambda config, params: False)
    _, state = idle(OperatorConfig(), new_state(key), IMAGES)
    assert (int(state.applied_count[1]), int(state.skipped_count[1])) == (0, 4)


@both_strategies
@pytest.mark.parametrize("active", [np.ones((4, 2), bool), np.ones(4), np.ones(3, bool), None])
def test_what_counts_records_is_a_bool_for_each(strategy, active, key):
    config = OperatorConfig(batch_strategy=strategy)
    count = batched(draw_gain, scale, is_active=lambda config, params: active)
    with refuses(ValueError, "what is_active returns must be a bool, or bools of shape (4,)"):
        count(config, new_state(key), IMAGES)


def test_statistics_of_a_transform_are_numbers():
    config = OperatorConfig(precomputed_stats={"mean": 2.0, "unit": "m"})
    operate = batched(lambda config, keys, shapes: None, lambda *given: given[1:4])
    with pytest.raises(TypeError, match=r"^apply_batch\.stats must be an array of numbers"):
        operate(config, init_state(config), {"x": jnp.ones((2, 3))})


def test_a_field_of_text_is_refused_by_its_name():
    operate = batched(lambda config, keys, shapes: None, lambda *given: given[1:4])
    batch = {"image": np.ones(SHAPE), "path": np.array(["a.png"] * 4)}
    config = OperatorConfig()
    with refuses(TypeError, "leaf 'data.path' must be an array that JAX takes; got an array"):
        operate(config, init_state(config), batch)


def test_a_rate_of_integers_mixes_with_an_apply_probability(key):
    config = config_of("pixel", dropout_rate=jnp.int32(0), apply_probability=0.5)
    out, _ = apply_batch(config, init_state(config, key), {"image": np.ones(SHAPE, np.float32)})
    np.testing.assert_array_equal(out["image"], 1)


def test_a_concrete_state_captured_under_jit_warns_of_one_mask_for_ever(key):
    config, batch = config_of("pixel"), {"image": jnp.ones((2, 6, 5, 3))}
    state = init_state(config, key)
    with pytest.warns(UserWarning, match="op_state was captured under jit, .*Pass the state as an"):
        jax.jit(lambda batch: apply_batch(config, state, batch)[0])(batch)
    gains = OperatorConfig(stochastic=True)
    with pytest.warns(UserWarning, match="op_state was captured under jit"):
        jax.jit(lambda batch: scale_batch(gains, state, batch)[0])(batch)
    ids = np.arange(2, dtype=np.uint32)  # masks follow the ids, so nothing is baked in
    jax.jit(lambda batch: apply_batch(config, state, batch, record_ids=ids, epoch=3)[0])(batch)
    jax.vmap(lambda image: apply_batch(config, state, {"image": image})[0])(jnp.ones((2, 3, 6, 5)))
