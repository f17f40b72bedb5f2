"""Options beside the mode: rates and draws of a record's own, masks, rescaling, other fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from bounds import assert_counts
from cases import MODES, ONES, SHAPE, both_kinds, config_of, image_of, make, refuses
from dropax import DropoutOperator, apply, apply_batch, dropout, init_state
from dropax.dropping import Fields, drop_record

MANY = (64, 6, 5, 3)


def drop(config, key, data):
    return apply_batch(config, init_state(config, key), data)


def params_of(config, key, shape=SHAPE):
    return dropax.generate_random_params(config, key, {"image": shape})


def test_each_record_draws_its_rate_from_the_range(key):
    config = config_of("pixel", dropout_rate=(0.2, 0.6))
    params = params_of(config, key, (4096, 4, 4, 3))
    rates = np.asarray(params["rate"], np.float64)
    assert (rates.min() >= 0.2 - 2**-23, rates.max() <= 0.6 + 2**-23) == (True, True)
    for quantile in (0.25, 0.5, 0.75):
        assert_counts((rates < 0.2 + 0.4 * quantile).sum(), rates.size, quantile)
    fractions = 1 - np.asarray(params["keep_mask"]).reshape(4096, -1).mean(axis=1)
    assert_counts(fractions.sum(), 4096, 0.4)
    assert np.corrcoef(rates, fractions)[0, 1] > 0.5


@pytest.mark.parametrize(("mode", "strategy"), [("pixel", "vmap"), ("channel", "scan")])
def test_a_record_is_left_as_it_is_with_the_probability_that_is_left(mode, strategy, key):
    config = config_of(
        mode,
        dropout_rate=0.9,
        apply_probability=0.3,
        rescale=True,
        clip_range=(0.0, 50.0),
        mask_key="kept",
        fill=-1.0,
        batch_strategy=strategy,
    )
    image = np.asarray(image_of((512, 6, 5, 3)))
    out, state = drop(config, key, {"image": image})
    found, kept = np.asarray(out["image"]), np.asarray(out["kept"])
    alone = (found == image).all(axis=(1, 2, 3))
    assert alone.sum() == int(state.skipped_count[1])
    assert int(state.applied_count[1]) == 512 - alone.sum()
    assert_counts(alone.sum(), 512, 0.7)
    assert kept[alone].all()
    assert found[~alone].max() <= 50
    operator = DropoutOperator(config, rngs=lambda: key)
    np.testing.assert_array_equal(operator.apply_batch({"image": image})["image"], found)
    assert operator.get_operation_stats()["skipped_count"] == alone.sum()


@pytest.mark.parametrize("one", [1.0, jnp.float32(1)], ids=["number", "array"])
def test_no_probability_says_always_and_one_draws_the_same_masks(key, one):
    always = config_of("pixel", apply_probability=one)
    plain, drawn = params_of(config_of("pixel"), key), params_of(always, key)
    assert (set(plain), set(drawn)) == ({"keep_mask"}, {"keep_mask", "applied"})
    np.testing.assert_array_equal(plain["keep_mask"], drawn["keep_mask"])
    assert bool(drawn["applied"].all())


def test_auxiliary_fields_of_a_record_left_alone_stay_too(key):
    config = config_of(
        "box", apply_probability=0.5, auxiliary_fields=["map"], auxiliary_fill=255, rescale=True
    )
    image = np.asarray(image_of(MANY))
    out, _ = drop(config, key, {"image": image, "map": np.ones(MANY[:3], np.uint8)})
    alone = (np.asarray(out["image"]) == image).all(axis=(1, 2, 3))
    assert 0 < alone.sum() < 64
    np.testing.assert_array_equal((np.asarray(out["map"]) == 1).all(axis=(1, 2)), alone)


@pytest.mark.parametrize(
    ("mode", "strategy"), [("pixel", "scan"), ("channel", "vmap"), ("block", "scan")]
)
def test_a_shared_mask_is_that_of_the_first_record(mode, strategy, key):
    own = config_of(mode, dropout_rate=(0.2, 0.6), mask_key="kept", batch_strategy=strategy)
    shared, state = own.replace(share_mask=True), init_state(own, key)
    one_by_one = params_of(own, state.next_key())["keep_mask"]
    drawn = params_of(shared, state.next_key())
    assert drawn["rate"].shape == (4,)
    first = np.broadcast_to(one_by_one[:1], one_by_one.shape)
    np.testing.assert_array_equal(drawn["keep_mask"], first)
    kept = drop(shared, key, {"image": image_of(SHAPE)})[0]["kept"]
    first = first[:, None, None] if mode == "channel" else first
    np.testing.assert_array_equal(kept, np.broadcast_to(first, SHAPE))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kept_values_are_divided_by_the_kept_fraction(dtype, key):
    config = config_of("pixel", rescale=True, dropout_rate=0.25, fill=-5.0)
    image = image_of(SHAPE, dtype)
    out = np.asarray(drop(config, key, {"image": image})[0]["image"], np.float64)
    expected = np.asarray(image, np.float64) / 0.75
    kept = out != -5
    spacing = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(out[kept], expected[kept], rtol=spacing)


def test_integers_are_not_rescaled(key):
    text = r"Config\.rescale must be False for dtype uint8; got True\. Convert the image to a float"
    with pytest.raises(TypeError, match=text):
        drop(config_of("pixel", rescale=True), key, {"image": image_of(SHAPE, jnp.uint8)})


def test_the_mask_is_written_where_it_is_asked_for(key):
    config = config_of("channel", mask_key="masks.image", target_key="out")
    data = {"image": image_of(SHAPE)}
    out, _ = drop(config, key, data)
    assert out["masks"]["image"].dtype == jnp.bool_
    np.testing.assert_array_equal(out["masks"]["image"], np.asarray(out["out"]) != 0)
    np.testing.assert_array_equal(out["image"], data["image"])


def test_an_auxiliary_fill_that_a_field_cannot_hold_is_refused(key):
    config = config_of("box", auxiliary_fields=["map"], auxiliary_fill=256)
    data = {"image": image_of(SHAPE), "map": jnp.ones(SHAPE[:3], jnp.uint8)}
    text = r"Config\.auxiliary_fill of field 'map' must be exact in dtype uint8; got 256\."
    with pytest.raises(ValueError, match=text):
        drop(config, key, data)


RANGE = {"rescale": True, "dropout_rate": (0.1, 0.2)}
MISSING = [
    (RANGE, "'rate' if rescale is True and dropout_rate is a range"),
    ({"fill": "noise"}, "'fill_key' if a fill needs a key"),
]


@pytest.mark.parametrize(("options", "what"), MISSING)
def test_random_params_that_cannot_be_known_must_be_given(options, what, key):
    config = config_of("pixel", **options)
    data, mask = {"image": image_of((4, 4, 3))}, jnp.ones((4, 4, 3), bool)
    with refuses(KeyError, f"apply.random_params must hold {what}; got 'keep_mask'."):
        apply(config, data, {}, {}, {"keep_mask": mask})
    drawn = jax.tree.map(lambda leaf: leaf[0], params_of(config, key, (1, 4, 4, 3)))
    apply(config, data, {}, {}, drawn)


def test_a_given_record_that_is_left_alone_stays(key):
    image = image_of((4, 4, 3))
    params = {"keep_mask": jnp.zeros((4, 4, 3), bool), "applied": False}
    out, _, _ = apply(config_of("pixel", mask_key="m"), {"image": image}, {}, {}, params)
    np.testing.assert_array_equal(out["image"], image)
    assert bool(out["m"].all())
    config = config_of("pixel")
    for name in ("applied", "rate"):
        for value, error, text in (
            (jnp.ones(2), ValueError, "a scalar; got"),
            ("x", TypeError, "an array of real numbers or bools; got"),
        ):
            with pytest.raises(error, match=rf"random_params\['{name}'\] must be {text}"):
                apply(config, {"image": image}, {}, {}, {**params, name: value})


def test_the_one_liner_takes_the_same_options(key):
    images = np.asarray(image_of(SHAPE))
    options = {"fill": "mean", "rescale": True, "clip_range": (3, 90), "mode": MODES["whole pixel"]}
    first = np.moveaxis(images, -1, 1)
    out = np.moveaxis(dropout(key, first, rate=(0.2, 0.5), channel_axis=0, **options), 1, -1)
    params = params_of(config_of(dropout_rate=(0.2, 0.5), **options), key)
    rates = np.asarray(params["rate"])[:, None, None, None]
    means = images.mean(axis=(1, 2), keepdims=True)
    expected = np.where(params["keep_mask"], images / (1 - rates), means).clip(3, 90)
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_a_fill_past_the_range_of_the_dtype_is_a_domain_constraint():
    image = jnp.ones((4, 4, 3), jnp.float16)
    config = config_of("pixel", fill=1e6)
    with pytest.raises(ValueError, match="fill must be within the range of dtype float16; got 1"):
        drop_record(config, Fields(image), {"keep_mask": np.zeros((4, 4, 3), bool)})
    unchecked = config.replace(validate_domain_constraints=False)
    out = drop_record(unchecked, Fields(image), {"keep_mask": np.zeros((4, 4, 3))})
    assert bool(jnp.isinf(out.image).all())


@pytest.mark.parametrize("mode", ["pixel", "channel"])
def test_auxiliary_fields_of_the_images_shape_follow_it_and_others_are_left_alone(mode, key):
    config = config_of(mode, auxiliary_fields=["twin"])
    data = {"image": image_of(SHAPE), "twin": image_of(SHAPE), "other": np.array([*"abcd"])}
    out, _ = apply_batch(config, init_state(config, key), data)
    np.testing.assert_array_equal(out["twin"], out["image"])
    assert out["other"] is data["other"]


# A mask with all of the image's pixels, and one that is the same along an axis.
@pytest.mark.parametrize(("name", "strategy"), [("block", "vmap"), ("band", "scan")])
def test_auxiliary_fields_at_a_fraction_of_the_resolution_drop_with_any_of_their_pixels(
    name, strategy, key
):
    config = config_of(
        MODES[name],
        auxiliary_fields=["map", "features"],
        auxiliary_fill=(-1, 0.5),
        mask_key="kept",
        dropout_rate=0.2,
        batch_strategy=strategy,
    )
    data = {
        "image": image_of((16, 6, 9, 3)),
        "map": image_of((16, 2, 3), np.int8),
        "features": image_of((16, 2, 3, 5)),
    }
    out, _ = apply_batch(config, init_state(config, key), data)
    kept = np.asarray(out["kept"]).reshape(16, 2, 3, 3, 3, 3).all(axis=(2, 4, 5))
    assert 0 < kept.sum() < kept.size
    np.testing.assert_array_equal(out["map"], np.where(kept, data["map"], -1))
    np.testing.assert_array_equal(out["features"], np.where(kept[..., None], data["features"], 0.5))
    assert out["map"].dtype == jnp.int8


def test_auxiliary_fields_can_be_left_out(key):
    config = config_of("pixel", auxiliary_fields=["seg.map"], preserve_auxiliary=False)
    data = {"image": image_of(SHAPE), "seg": {"map": image_of(SHAPE[:3]), "id": np.ones(4)}}
    out, _ = apply_batch(config, init_state(config, key), data)
    assert out["seg"].keys() == {"id"}
    assert data["seg"].keys() == {"map", "id"}


def test_no_new_field_takes_the_place_of_a_dict_of_others(key):
    data = {"camera": {"rgb": image_of(SHAPE), "depth": np.ones(4)}}
    for name in ("mask_key", "target_key"):
        config = config_of("pixel", **{name: "camera"}).replace(field_key="camera.rgb")
        text = "field 'camera' must not take the place of a dict with 'rgb', 'depth'; got 'camera'."
        with refuses(ValueError, text):
            apply_batch(config, init_state(config, key), data)
    # A name with a dot in it is no path.
    flat = {"camera.rgb": data["camera"]["rgb"]}
    out, _ = apply_batch(config, init_state(config, key), flat)
    assert out.keys() == {"camera.rgb", "camera"}


@both_kinds
def test_other_fields_are_kept_and_a_target_leaves_its_source(stochastic):
    data = {"photo": ONES[0], "label": np.int32(3), "text": "cat"}
    operator = make(stochastic, field_key="photo", target_key="dropped")
    out, state, metadata = operator.apply(data, {"n": 1}, "a.png")
    assert (out["label"], out["text"], state, metadata) == (3, "cat", {"n": 1}, "a.png")
    assert out["photo"] is data["photo"]
    assert 0 < (np.asarray(out["dropped"]) == 0).mean() < 1
    assert sorted(data) == ["label", "photo", "text"]
