"""The kit: a batch function out of anybody's two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cases import SHAPE, config_of
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


def test_a_batch_sharded_over_explicit_axes_runs_at_once_or_not_at_all(key):
    mesh = jax.make_mesh((4,), ("shard",), axis_types=(jax.sharding.AxisType.Explicit,))
    config, state = OperatorConfig(stochastic=True), new_state(key)
    expected, _ = scale_batch(config, state, IMAGES)
    with jax.set_mesh(mesh):
        images = {"image": jax.device_put(IMAGES["image"], jax.P("shard"))}
        out, _ = scale_batch(config, state, images)
        np.testing.assert_array_equal(out["image"], expected["image"])
        text = r"batch_strategy must be 'vmap' if the batch axis is sharded over explicit mesh"
        with pytest.raises(ValueError, match=text):
            scale_batch(OperatorConfig(stochastic=True, batch_strategy="scan"), state, images)


def shard_mesh():
    return jax.make_mesh((4,), ("shard",), axis_types=(jax.sharding.AxisType.Auto,))


def test_local_positions_would_repeat_masks_and_are_refused(key):
    config, state = OperatorConfig(stochastic=True), new_state(key)

    def local(state, images):
        return scale_batch(config, state, {"image": images})[0]["gain"]

    sharded = jax.shard_map(
        local, mesh=shard_mesh(), in_specs=(jax.P(), jax.P("shard")), out_specs=jax.P("shard")
    )
    text = r"op_state\.key must vary over the manual axis 'shard' as the data does; .*axis_index"
    with pytest.raises(ValueError, match=text):
        jax.jit(sharded)(state, jnp.ones((8, 3, 2)))


def test_statistics_of_a_transform_are_numbers():
    config = OperatorConfig(precomputed_stats={"mean": 2.0, "unit": "m"})
    operate = batched(lambda config, keys, shapes: None, lambda *given: given[1:4])
    with pytest.raises(TypeError, match=r"^apply_batch\.stats must be an array of numbers"):
        operate(config, init_state(config), {"x": jnp.ones((2, 3))})


def test_numpy_arrays_may_be_constants_of_a_jitted_function(key):
    config = config_of("pixel")
    state, images = init_state(config, key), np.ones(SHAPE, np.float32)
    baked = jax.jit(lambda state: apply_batch(config, state, {"image": images}))(state)[0]
    passed = jax.jit(apply_batch)(config, state, {"image": images})[0]
    np.testing.assert_array_equal(baked["image"], passed["image"])


def manual(function, out_specs, **options):
    """`function(state, images, ids)` over four shards of images and ids."""
    specs = {"in_specs": (jax.P(), jax.P("shard"), jax.P("shard")), "out_specs": out_specs}
    return jax.jit(jax.shard_map(function, mesh=shard_mesh(), **specs, **options))


@pytest.mark.parametrize(
    ("how", "options"), [("ids", {"apply_probability": 0.5}), ("a folded key", {})], ids=str
)
def test_counts_are_summed_over_manual_axes_and_the_state_goes_out_whole(options, how, key):
    config = config_of("pixel", **options)
    state, images, ids = (
        init_state(config, key),
        np.ones((8, 6, 5, 3), np.float32),
        jnp.arange(8).astype("u4"),
    )

    def step(state, images, ids):
        given = {"record_ids": ids, "epoch": 0} if how == "ids" else {}
        own = state
        if how != "ids":
            own = state.replace(key=jax.random.fold_in(state.key, jax.lax.axis_index("shard")))
        batch, after = apply_batch(config, own, {"image": images}, **given)
        return batch["image"], after.replace(key=state.key)

    out, after = manual(step, (jax.P("shard"), jax.P()))(state, images, ids)
    left_alone = int((np.asarray(out) == 1).all(axis=(1, 2, 3)).sum())
    assert int(after.applied_count[1]) == 8 - left_alone
    assert int(after.skipped_count[1]) == left_alone


def test_shards_share_a_mask_if_that_is_asked_for(key):
    config = config_of("pixel", share_mask=True)

    def step(state, images, ids):
        return apply_batch(config, state, {"image": images})[0]["image"]

    out = manual(step, jax.P("shard"))(
        init_state(config, key), np.ones((8, 6, 5, 3), np.float32), jnp.ones(8)
    )
    np.testing.assert_array_equal(out, np.broadcast_to(out[:1], out.shape))
    assert 0 < np.asarray(out).mean() < 1


def test_a_shared_mask_of_an_empty_batch_is_none(key):
    config = config_of("pixel", share_mask=True)
    out, _ = apply_batch(config, init_state(config, key), {"image": jnp.ones((0, 6, 5, 3))})
    assert out["image"].shape == (0, 6, 5, 3)


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
    jax.jit(lambda batch, epoch: apply_batch(config, state, batch, record_ids=ids, epoch=epoch)[0])(
        batch, 3
    )
    jax.vmap(lambda image: apply_batch(config, state, {"image": image})[0])(jnp.ones((2, 3, 6, 5)))
