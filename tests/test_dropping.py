"""What a mask does to the fields of an element: the image, and those that go along."""

import jax.numpy as jnp
import numpy as np
import pytest

from cases import MODES, SHAPE, config_of, image_of
from dropax import apply_batch, init_state
from dropax.dropping import Fields, drop_record
from small import ONES, both_kinds, both_modes, det, make, run


def test_a_fill_past_the_range_of_the_dtype_is_a_domain_constraint():
    image = jnp.ones((4, 4, 3), jnp.float16)
    config = config_of("pixel", fill=1e6)
    with pytest.raises(ValueError, match="fill must be within the range of dtype float16; got 1"):
        drop_record(config, Fields(image), {"keep_mask": np.zeros((4, 4, 3), bool)})
    unchecked = config.replace(validate_domain_constraints=False)
    out = drop_record(unchecked, Fields(image), {"keep_mask": np.zeros((4, 4, 3))})
    assert bool(jnp.isinf(out.image).all())


@both_modes
def test_auxiliary_fields_of_the_images_shape_follow_it_and_others_are_left_alone(mode, key):
    config = config_of(mode, auxiliary_fields=["twin"])
    data = {"image": image_of(SHAPE), "twin": image_of(SHAPE), "other": np.arange(4)}
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


@both_modes
def test_a_label_map_cannot_follow_channels_that_drop_on_their_own(mode, key):
    config = config_of(mode, auxiliary_fields=["map"])
    data = {"image": image_of(SHAPE), "map": image_of(SHAPE[:3])}
    with pytest.raises(ValueError, match="auxiliary field 'map' must have the image's own shape"):
        apply_batch(config, init_state(config, key), data)


def test_no_new_field_takes_the_place_of_a_dict_of_others(key):
    data = {"camera": {"rgb": image_of(SHAPE), "depth": np.ones(4)}}
    for name in ("mask_key", "target_key"):
        config = config_of("pixel", **{name: "camera"}).replace(field_key="camera.rgb")
        with pytest.raises(ValueError, match="take the place") as refused:
            apply_batch(config, init_state(config, key), data)
        assert str(refused.value) == (
            "field 'camera' must not take the place of a dict with 'rgb', 'depth'; got 'camera'."
        )
    # A name with a dot in it is no path.
    flat = {"camera.rgb": data["camera"]["rgb"]}
    out, _ = apply_batch(config, init_state(config, key), flat)
    assert out.keys() == {"camera.rgb", "camera"}


@both_modes
def test_of_the_fixed_pattern_too_kept_values_stay_and_rates_of_zero_and_one_are_exact(mode):
    images = np.resize(np.float32([np.nan, np.inf, -np.inf, 1.0, 2.0]), ONES.shape)
    out = run(det(mode=mode), images)
    gone = out == 0
    assert 0 < gone.mean() < 1
    np.testing.assert_array_equal(out[~gone], images[~gone])
    np.testing.assert_array_equal(run(det(mode=mode, dropout_rate=0.0), images), images)
    assert not run(det(mode=mode, dropout_rate=1.0), images).any()


@both_kinds
def test_other_fields_are_kept_and_a_target_leaves_its_source(stochastic):
    data = {"photo": ONES[0], "label": np.int32(3), "text": "cat"}
    operator = make(stochastic, field_key="photo", target_key="dropped")
    out, state, metadata = operator.apply(data, {"n": 1}, "a.png")
    assert (out["label"], out["text"], state, metadata) == (3, "cat", {"n": 1}, "a.png")
    assert out["photo"] is data["photo"]
    assert 0 < (np.asarray(out["dropped"]) == 0).mean() < 1
    assert sorted(data) == ["label", "photo", "text"]


@pytest.mark.parametrize(("mode", "stochastic"), [("pixel", True), ("channel", False)])
def test_sizes_of_zero_are_no_trouble(mode, stochastic):
    for shape in ((2, 4, 4, 0), (2, 0, 4, 3)):
        assert run(make(stochastic, mode=mode), np.ones(shape, np.float32)).shape == shape
