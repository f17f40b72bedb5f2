"""The same masks on every mesh: over batches, over heights, over both, of either kind of axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import dropax
from cases import SHAPE, config_of, every_class, image_of
from dropax import DropoutOperator, apply_batch, init_state
from dropax.kit.meshes import explicit_mesh
from small import ONES, det, run

IMAGES = image_of(SHAPE)
BATCH_AND_HEIGHT = ((2, 3), jax.P("batch", "height"))
HEIGHT = ((1, 3), jax.P(None, "height"))
MESHES = {
    "batch over 4": ((4, 1), jax.P("batch"), AxisType.Auto),
    "height over 3": (*HEIGHT, AxisType.Auto),
    "batch over both": ((2, 2), jax.P(("batch", "height")), AxisType.Auto),
    "explicit, batch over 1": ((1, 1), jax.P("batch"), AxisType.Explicit),
    "explicit, height over 3": (*HEIGHT, AxisType.Explicit),
    "explicit, both over 2 x 3": (*BATCH_AND_HEIGHT, AxisType.Explicit),
}


def lying(shape, spec, kind):
    devices = jax.devices()[: np.prod(shape)]
    mesh = jax.make_mesh(shape, ("batch", "height"), axis_types=(kind,) * 2, devices=devices)
    return jax.NamedSharding(mesh, spec)


def assert_same_on(over, config, key, **given):
    state = init_state(config, key)
    expected, after = apply_batch(config, state, {"image": IMAGES}, **given)
    out, state = apply_batch(config, state, {"image": jax.device_put(IMAGES, over)}, **given)
    for name, array in expected.items():
        np.testing.assert_array_equal(out[name], array)
        assert out[name].sharding.is_equivalent_to(over, IMAGES.ndim)
    assert str(state) == str(after)


@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_masks_are_the_same_on_every_mesh_and_what_is_written_lies_as_the_image_does(mesh, key):
    config = config_of("pixel", apply_probability=0.7, target_key="dropped", mask_key="kept")
    assert_same_on(lying(*mesh), config, key)
    ids = np.array([3, 2**40 + 3, 2**63, 2**32 - 1], np.uint64)
    assert_same_on(lying(*mesh), config, key, record_ids=ids, epoch=1)


@every_class
def test_masks_of_every_mode_are_the_same_over_batch_and_height(mode, key):
    # Modes look their sizes up in tables, which explicit axes refuse: within a call all axes are
    # automatic.
    assert_same_on(lying(*BATCH_AND_HEIGHT, AxisType.Explicit), config_of(mode), key)


def test_the_one_liner_works_over_explicit_axes(key):
    images = jax.device_put(IMAGES, lying(*BATCH_AND_HEIGHT, AxisType.Explicit))
    expected = dropax.dropout(key, IMAGES, mode="pixel", rate=0.4, fill="noise")
    out = dropax.dropout(key, images, mode="pixel", rate=0.4, fill="noise")
    np.testing.assert_array_equal(np.asarray(out) == IMAGES, np.asarray(expected) == IMAGES)
    assert out.sharding.is_equivalent_to(images.sharding, out.ndim)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        # Each record looks up a size for a rate of its own.
        ("box", {"dropout_rate": (0.2, 0.6)}),
        ("pixel", {"share_mask": True}),
        ("pixel", {"stochastic": False, "cacheable": True}),
    ],
)
def test_the_operator_works_over_explicit_axes(mode, options):
    images = jax.device_put(IMAGES, lying(*BATCH_AND_HEIGHT, AxisType.Explicit))
    config = config_of(mode, **options)
    rngs = 1 if config.stochastic else None
    operator, twin = (DropoutOperator(config, rngs=rngs) for _ in range(2))
    for _ in range(2):
        out = operator.apply_batch({"image": images})["image"]
        np.testing.assert_array_equal(out, twin.apply_batch({"image": IMAGES})["image"])
        assert out.sharding.is_equivalent_to(images.sharding, out.ndim)


@pytest.mark.filterwarnings("ignore:a concrete op_state was captured under jit")
def test_under_explicit_axes_gradients_and_maps_work_and_lie_as_the_images_do(key):
    config, over = config_of("box"), lying(*BATCH_AND_HEIGHT, AxisType.Explicit)
    images, state = jax.device_put(IMAGES, over), init_state(config, key)

    def drop(images, rate):
        config_now = config.replace(dropout_rate=rate)
        return apply_batch(config_now, state, {"image": images})[0]["image"]

    rates = jnp.asarray([0.1, 0.4])
    expected = np.stack([drop(IMAGES, rate) for rate in rates])
    gradient = jax.jit(jax.grad(lambda x: (drop(x, rates[1]) ** 2).sum()))(images)
    np.testing.assert_array_equal(gradient, 2 * expected[1])
    assert gradient.sharding.is_equivalent_to(over, 4)
    np.testing.assert_array_equal(jax.vmap(drop, in_axes=(None, 0))(images, rates), expected)


def test_only_what_is_cut_over_explicit_axes_counts_as_such():
    for kind, spec, counts in (
        (AxisType.Explicit, jax.P("batch"), True),
        (AxisType.Explicit, jax.P(), False),
        (AxisType.Auto, jax.P("batch"), False),
    ):
        images = jax.device_put(IMAGES, lying((2, 4), spec, kind))
        mesh = explicit_mesh({"a": np.ones(2), "b": images})
        assert (mesh is not None and mesh.axis_names == ("batch", "height")) == counts
    assert explicit_mesh({"a": np.ones(2), "b": 1.0, "c": None, "d": "x"}) is None


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
            config, init_state(config, jax.random.fold_in(key, n)), {"image": IMAGES[n : n + 1]}
        )[0]["image"]
        for n in range(4)
    ]
    state = init_state(config, key)
    mapped = jax.pmap(step, "data", in_axes=(None, 0))(state, IMAGES[:, None])
    np.testing.assert_array_equal(mapped, expected)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    specs = {"in_specs": (jax.P(), jax.P("data")), "out_specs": jax.P("data")}
    sharded = jax.jit(jax.shard_map(step, mesh=mesh, **specs))(state, IMAGES)
    np.testing.assert_array_equal(sharded, np.concatenate(expected))


@pytest.mark.parametrize(
    ("kind", "mode"),
    # Modes look their sizes up in tables, which explicit axes refuse.
    [(AxisType.Auto, "pixel"), (AxisType.Explicit, "box")],
)
def test_ids_decide_where_one_axis_is_manual_and_the_other_is_not(kind, mode, key):
    config, ids = config_of(mode), np.arange(4, dtype=np.uint32)
    state = init_state(config, key)

    def step(state, images, ids):
        return apply_batch(config, state, {"image": images}, record_ids=ids, epoch=2)[0]["image"]

    over = lying(*BATCH_AND_HEIGHT, kind)
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
