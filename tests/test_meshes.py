"""The same masks on every mesh: over batches, over heights, over both, of either kind of axis."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import dropax
from cases import SHAPE, config_of, every_class, image_of, mesh_of
from dropax import DropoutOperator, apply_batch, as_record_ids, init_state
from dropax.kit.meshes import explicit_mesh

IMAGES = image_of(SHAPE)
IDS = np.array([3, 2**40 + 3, 2**63, 2**32 - 1], np.uint64)
BATCH_AND_HEIGHT = ((2, 3), jax.P("batch", "height"))
HEIGHT = ((1, 3), jax.P(None, "height"))
MESHES = {
    "batch over 4": ((4, 1), jax.P("batch"), AxisType.Auto),
    "height over 3": (*HEIGHT, AxisType.Auto),
    "batch over both": ((2, 2), jax.P(("batch", "height")), AxisType.Auto),
    "explicit, batch over 1": ((1, 1), jax.P("batch"), AxisType.Explicit),
    "explicit, height over 3": (*HEIGHT, AxisType.Explicit),
    "explicit, whole on each": ((2, 3), jax.P(), AxisType.Explicit),
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
    assert_same_on(lying(*mesh), config, key, record_ids=IDS, epoch=1)


@every_class
def test_masks_of_every_mode_are_the_same_over_batch_and_height(mode, key):
    # Modes look their sizes up in tables, which explicit axes refuse: within a call all axes are
    # automatic.
    assert_same_on(lying(*BATCH_AND_HEIGHT, AxisType.Explicit), config_of(mode), key)


def test_a_scan_over_explicit_axes_of_the_batch_is_refused(key):
    config = config_of("pixel", batch_strategy="scan")
    images = jax.device_put(IMAGES, lying((4, 1), jax.P("batch"), AxisType.Explicit))
    text = r"batch_strategy must be 'vmap' if the batch axis is sharded over explicit mesh"
    with pytest.raises(ValueError, match=text):
        apply_batch(config, init_state(config, key), {"image": images})


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


def test_what_lies_on_explicit_axes_counts_as_such():
    for kind, spec, counts in (
        (AxisType.Explicit, jax.P("batch"), True),
        (AxisType.Explicit, jax.P(), True),  # it may be mapped over one of them
        (AxisType.Auto, jax.P("batch"), False),
    ):
        images = jax.device_put(IMAGES, lying((2, 4), spec, kind))
        mesh = explicit_mesh({"a": np.ones(2), "b": images})
        assert (mesh is not None and mesh.axis_names == ("batch", "height")) == counts
    assert explicit_mesh({"a": np.ones(2), "b": 1.0, "c": None, "d": "x"}) is None


# Manual axes: positions are local there.


OVER = jax.P("x")


@pytest.mark.parametrize("how", ["ids", "a folded key"])
def test_over_manual_axes_masks_and_counts_are_those_of_one_device(how, key):
    config = config_of("pixel", apply_probability=0.5)
    state, ids = init_state(config, key), as_record_ids(IDS)

    def step(state, images, ids, place=None):
        own, given = state, {"record_ids": ids, "epoch": 2}
        if how == "a folded key":
            place = jax.lax.axis_index("x") if place is None else place
            own, given = state.replace(key=jax.random.fold_in(state.key, place)), {}
        batch, after = apply_batch(config, own, {"image": images}, **given)
        return batch["image"], after.replace(key=state.key)

    parts = [step(state, IMAGES[n : n + 1], ids[n : n + 1], n)[0] for n in range(4)]
    expected = np.concatenate(parts)
    specs = {"in_specs": (jax.P(), OVER, OVER), "out_specs": (OVER, jax.P())}
    out, after = jax.jit(jax.shard_map(step, mesh=mesh_of(4), **specs))(state, IMAGES, ids)
    np.testing.assert_array_equal(out, expected)
    left_alone = int((expected == IMAGES).all(axis=(1, 2, 3)).sum())
    counts = int(after.applied_count[1]), int(after.skipped_count[1])
    assert counts == (4 - left_alone, left_alone)
    mapped = jax.pmap(step, "x", in_axes=(None, 0, 0))(state, IMAGES[:, None], ids[:, None])
    np.testing.assert_array_equal(mapped[0][:, 0], expected)


SAME = {
    "positions": (
        lambda config, state, images: apply_batch(config, state, {"image": images})[0]["image"],
        r"apply_batch\.op_state\.key must vary over the manual axis 'x' as the data .*axis_index",
    ),
    "ids": (
        lambda config, state, images: apply_batch(
            config, state, {"image": images}, record_ids=np.zeros(1, np.uint32), epoch=1
        )[0]["image"],
        "must vary over the manual axis 'x' as the data does.*Pass each shard's record_ids",
    ),
    "the one-liner": (
        lambda config, state, images: dropax.dropout(state.key, images),
        r"dropout\.key must vary over the manual axis 'x'",
    ),
}


@pytest.mark.parametrize(("drop", "text"), SAME.values(), ids=SAME)
def test_what_would_give_every_shard_the_same_masks_is_refused(drop, text, key):
    config, specs = config_of("pixel"), {"in_specs": (jax.P(), OVER), "out_specs": OVER}
    mapped = jax.shard_map(functools.partial(drop, config), mesh=mesh_of(4), **specs)
    with pytest.raises(ValueError, match=text):
        mapped(init_state(config, key), IMAGES)


@pytest.mark.parametrize("options", [{"share_mask": True}, {"stochastic": False}], ids=str)
def test_shards_share_a_mask_if_that_is_asked_for(options, key):
    config = config_of("pixel", **options)
    state = init_state(config, key if config.stochastic else None)

    def drop(state, images):
        return apply_batch(config, state, {"image": images})[0]["image"]

    specs = {"in_specs": (jax.P(), OVER), "out_specs": OVER}
    out = jax.jit(jax.shard_map(drop, mesh=mesh_of(4), **specs))(state, IMAGES)
    np.testing.assert_array_equal(out, drop(state, IMAGES))
    np.testing.assert_array_equal(out == 0, np.broadcast_to(out[:1] == 0, out.shape))
    assert 0 < int((out == 0).sum()) < out.size


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


@pytest.mark.parametrize("mode", ["box", "block", "grid", dropax.Blocks(1)], ids=str)
def test_records_that_are_mapped_over_an_explicit_axis_draw_as_without(mode, key):
    over = lying((4, 1), jax.P("batch"), AxisType.Explicit)
    keys, images = dropax.record_keys(key, range(4), epoch=0), IMAGES
    config = config_of(mode, extent_key="size", mask_key="kept")
    sizes, ids = np.array([[6, 5], [3, 2], [1, 4], [6, 1]]), np.arange(4, dtype=np.uint32)
    state = init_state(config, key)

    @jax.jit
    @jax.vmap
    def drop(key, image, size, number):
        batch = {"image": image[None], "size": size[None]}
        out, _ = apply_batch(config, state, batch, record_ids=number[None], epoch=0)
        shapes = {"image": (1, *image.shape)}
        params = jax.tree.map(
            lambda x: x[0], dropax.generate_random_params(config, key[None], shapes)
        )
        applied = dropax.apply(config, {"image": image, "size": size}, {}, {}, params)[0]
        return dropax.dropout(key, image, mode=mode), applied, out

    given = (keys, images, sizes, ids)
    out = drop(*(jax.device_put(part, over) for part in given))
    jax.tree.map(np.testing.assert_array_equal, out, drop(*given))
    shapes = {"image": SHAPE}
    params = dropax.generate_random_params(config, jax.device_put(keys, over), shapes)
    expected = dropax.generate_random_params(config, keys, shapes)
    np.testing.assert_array_equal(params["keep_mask"], expected["keep_mask"])
