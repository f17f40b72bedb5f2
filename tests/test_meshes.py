"""The same masks on every mesh: over batches, over heights, over both, of either kind of axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import dropax
from cases import MODES, REGIONS, REPRESENTATIVES, config_of, image_of
from dropax import (
    DropoutOperator,
    ModalityOperator,
    OperatorConfig,
    apply_batch,
    init_state,
)
from dropax.kit.meshes import explicit_axes
from small import ONES, det, run

IMAGES = image_of((8, 8, 5, 3))
kinds = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=lambda k: k.name)
MESHES = {
    **{f"batch over {n}": ((n, 1), jax.P("batch")) for n in (1, 2, 8)},
    **{f"height over {n}": ((1, n), jax.P(None, "height")) for n in (2, 8)},
    "both over 2 x 4": ((2, 4), jax.P("batch", "height")),
    "batch over both": ((2, 4), jax.P(("batch", "height"))),
}


def lying(shape, spec, kind):
    devices = jax.devices()[: np.prod(shape)]
    mesh = jax.make_mesh(shape, ("batch", "height"), axis_types=(kind,) * 2, devices=devices)
    return jax.NamedSharding(mesh, spec)


@jax.jit
def step(config, state, images):
    return apply_batch(config, state, {"image": images})


def assert_same_on(mesh, kind, config, key):
    state = init_state(config, key)
    expected, after = step(config, state, IMAGES)
    over = lying(*mesh, kind)
    out, state = step(config, state, jax.device_put(IMAGES, over))
    for name, array in expected.items():
        np.testing.assert_array_equal(out[name], array)
        assert out[name].sharding.is_equivalent_to(over, IMAGES.ndim)
    assert str(state) == str(after)


@kinds
@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_masks_are_the_same_on_every_mesh(mesh, kind, key):
    assert_same_on(mesh, kind, config_of("pixel", apply_probability=0.7), key)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *((mode, AxisType.Auto) for mode in REPRESENTATIVES),
        # Regions look their sizes up in tables, which explicit axes refuse.
        *((mode, AxisType.Explicit) for mode in REGIONS),
    ],
)
def test_masks_of_every_region_are_the_same_over_batch_and_height(mode, kind, key):
    config = config_of(MODES[mode], dropout_rate=(0.2, 0.6))
    assert_same_on(MESHES["both over 2 x 4"], kind, config, key)


@kinds
@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_masks_of_other_keys_are_the_same_over_batch_and_height(impl, kind):
    key = jax.random.key(2, impl=impl)
    assert_same_on(MESHES["both over 2 x 4"], kind, config_of("block"), key)


@kinds
def test_what_is_written_beside_the_image_lies_as_the_image_does(kind, key):
    config = config_of("pixel", target_key="dropped", mask_key="kept")
    assert_same_on(MESHES["both over 2 x 4"], kind, config, key)


@kinds
def test_the_one_liner_and_the_operator_work_on_every_mesh(kind, key):
    over = lying(*MESHES["both over 2 x 4"], kind)
    images, mode = jax.device_put(IMAGES, over), "box"
    expected = dropax.dropout(key, IMAGES, mode=mode, rate=0.4, fill="noise")
    out = dropax.dropout(key, images, mode=mode, rate=0.4, fill="noise")
    np.testing.assert_array_equal(out == images, expected == IMAGES)
    assert out.sharding.is_equivalent_to(over, out.ndim)
    for options in ({}, {"share_mask": True}, {"stochastic": False, "cacheable": True}):
        operator, twin = (DropoutOperator(config_of(mode, **options), rngs=1) for _ in range(2))
        for _ in range(2):
            out = operator.apply_batch({"image": images})["image"]
            np.testing.assert_array_equal(out, twin.apply_batch({"image": IMAGES})["image"])
            assert out.sharding.is_equivalent_to(over, out.ndim)


@pytest.mark.filterwarnings("ignore:a concrete op_state was captured under jit")
def test_under_explicit_axes_gradients_and_maps_work_and_lie_as_the_images_do(key):
    config, over = config_of("box"), lying(*MESHES["both over 2 x 4"], AxisType.Explicit)
    images, state = jax.device_put(IMAGES, over), init_state(config, key)

    def drop(images, rate):
        config_now = config.replace(dropout_rate=rate)
        return apply_batch(config_now, state, {"image": images})[0]["image"]

    gradient = jax.jit(jax.grad(lambda x: (drop(x, 0.4) ** 2).sum()))(images)
    np.testing.assert_array_equal(gradient, 2 * drop(IMAGES, 0.4))
    assert gradient.sharding.is_equivalent_to(over, 4)
    rates = jnp.asarray([0.1, 0.4])
    each = jax.vmap(drop, in_axes=(None, 0))(images, rates)
    np.testing.assert_array_equal(each, jnp.stack([drop(IMAGES, rate) for rate in rates]))


def test_the_kit_works_over_explicit_axes(key):
    table = jnp.asarray([0.5, 2.0, 3.0])

    class Look(ModalityOperator):
        """Makes another field, of another shape, from a table."""

        def generate_random_params(self, rng, data_shapes):
            return {"gain": table[jax.vmap(lambda key: jax.random.randint(key, (), 0, 3))(rng)]}

        def apply(self, data, state, metadata, random_params=None, stats=None):
            gain = random_params["gain"] * stats["scale"]
            return {"image": data["image"] * gain, "gain": gain[None]}, state, metadata

    over = lying(*MESHES["both over 2 x 4"], AxisType.Explicit)
    config = OperatorConfig(stochastic=True)
    stats = {"scale": jnp.float32(2)}
    out = Look(config, rngs=lambda: key).apply_batch({"image": jax.device_put(IMAGES, over)}, stats)
    expected = Look(config, rngs=lambda: key).apply_batch({"image": IMAGES}, stats)
    for name in ("image", "gain"):
        np.testing.assert_array_equal(out[name], expected[name])
    assert out["image"].sharding.is_equivalent_to(over, 4)
    assert out["gain"].sharding.spec[0] == "batch"


def test_only_what_is_cut_over_explicit_axes_counts_as_such():
    for kind, spec, axes in (
        (AxisType.Explicit, jax.P("batch"), ("batch", "height")),
        (AxisType.Explicit, jax.P(), ()),
        (AxisType.Auto, jax.P("batch"), ()),
    ):
        images = jax.device_put(IMAGES, lying((2, 4), spec, kind))
        assert explicit_axes({"a": np.ones(2), "b": images}) == axes
    assert explicit_axes({"a": np.ones(2), "b": 1.0, "c": None, "d": "x"}) == ()


def test_statistics_may_hold_what_is_no_array(key):
    config = config_of("pixel", fill="stats_mean")
    state = init_state(config, key).replace(statistics={"mean": 3.0, "of": "train"})
    out, after = apply_batch(config, state, {"image": IMAGES})
    assert (out["image"] == 3).sum() > 100
    assert after.statistics == state.statistics


# Manual axes: positions are local there.


def test_shards_that_fold_in_their_place_draw_masks_of_their_own(key):
    config = config_of("pixel")

    def step(state, images):
        place = jax.lax.axis_index("data")
        own = state.replace(key=jax.random.fold_in(state.key, place))
        return apply_batch(config, own, {"image": images})[0]["image"]

    expected = [
        apply_batch(
            config, init_state(config, jax.random.fold_in(key, n)), {"image": IMAGES[2 * n :][:2]}
        )[0]["image"]
        for n in range(4)
    ]
    state = init_state(config, key)
    mapped = jax.pmap(step, "data", in_axes=(None, 0))(state, IMAGES.reshape(4, 2, 8, 5, 3))
    np.testing.assert_array_equal(mapped, jnp.stack(expected))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    sharded = jax.shard_map(
        step, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P("data")
    )(state, IMAGES)
    np.testing.assert_array_equal(sharded, jnp.concatenate(expected))


@kinds
def test_ids_decide_where_one_axis_is_manual_and_the_other_is_not(kind, key):
    config, state = config_of("box"), init_state(config_of("box"), key)
    ids = np.arange(8, dtype=np.uint32)

    def step(state, images, ids):
        return apply_batch(config, state, {"image": images}, record_ids=ids, epoch=2)[0]["image"]

    over = lying(*MESHES["both over 2 x 4"], kind)
    mapped = jax.jit(
        jax.shard_map(
            step,
            mesh=over.mesh,
            in_specs=(jax.P(), jax.P("batch"), jax.P("batch")),
            out_specs=jax.P("batch"),
            axis_names={"batch"},
        )
    )
    with jax.set_mesh(over.mesh):
        cut = jax.device_put(ids, jax.NamedSharding(over.mesh, jax.P("batch")))
        out = mapped(state, jax.device_put(IMAGES, over), cut)
    np.testing.assert_array_equal(out, step(state, IMAGES, ids))


def test_a_fixed_pattern_is_that_of_every_shard():
    mesh, over = jax.make_mesh((8,), ("b",), axis_types=(AxisType.Auto,)), jax.P("b")
    config, state = det().config, det().state

    def drop(data):
        return apply_batch(config, state, data)[0]

    shards = jax.jit(jax.shard_map(drop, mesh=mesh, in_specs=over, out_specs=over))
    np.testing.assert_array_equal(shards({"image": ONES})["image"], run(det()))
