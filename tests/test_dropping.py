"""What a mask does to the fields of an element: the image, and those that go along."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cases import MODES, config_of, image_of
from dropax import Pixel, apply, apply_batch, init_state
from dropax.dropping import Fields, drop_record


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ([1, 2], TypeError, r"field 'image' must be an array; got \[1, 2\]\."),
        (np.array(["a"]), TypeError, r"field 'image' must have a numeric or bool dtype; got an"),
        (np.array([None]), TypeError, r"field 'image' must have a numeric or bool dtype; got an"),
    ],
)
def test_a_field_that_is_no_image_is_refused(value, error, text):
    with pytest.raises(error, match=text):
        apply(config_of("pixel", stochastic=False), {"image": value}, {}, {})


def test_data_that_is_no_dict_is_refused():
    config = config_of("pixel", stochastic=False)
    with pytest.raises(TypeError, match=r"apply\.data must be a dict of arrays; got an array of"):
        apply(config, jnp.ones(3), {}, {})


def test_a_fill_past_the_range_of_the_dtype_is_a_domain_constraint():
    image = jnp.ones((4, 4, 3), jnp.float16)
    config = config_of("pixel", fill=1e6)
    with pytest.raises(
        ValueError, match=r"fill must be within the range of dtype float16; got 1000"
    ):
        drop_record(config, Fields(image), {"keep_mask": np.zeros((4, 4, 3), bool)})
    unchecked = config.replace(validate_domain_constraints=False)
    out = drop_record(unchecked, Fields(image), {"keep_mask": np.zeros((4, 4, 3))})
    assert bool(jnp.isinf(out.image).all())


def test_auxiliary_fields_drop_where_the_image_drops(key):
    config = config_of(Pixel(per_channel=False), auxiliary_fields=["depth", "seg.map", "logits"])
    data = {
        "image": image_of((4, 6, 5, 3)),
        "depth": image_of((4, 6, 5)),
        "seg": {"map": image_of((4, 6, 5), np.uint8)},
        "logits": image_of((4, 6, 5, 7)),
    }
    out, _ = apply_batch(config, init_state(config, key), data)
    gone = np.asarray(out["image"] == 0).all(-1)
    assert 0 < gone.sum() < gone.size
    np.testing.assert_array_equal(out["depth"] == 0, gone)
    np.testing.assert_array_equal(out["seg"]["map"] == 0, gone)
    np.testing.assert_array_equal((out["logits"] == 0).all(-1), gone)
    assert out["seg"]["map"].dtype == jnp.uint8


def test_auxiliary_fields_of_the_images_shape_follow_every_mode(key):
    for mode in MODES.values():
        config = config_of(mode, auxiliary_fields=["twin"])
        image = image_of((4, 6, 5, 3))
        out, _ = apply_batch(config, init_state(config, key), {"image": image, "twin": image})
        np.testing.assert_array_equal(out["twin"], out["image"])


@pytest.mark.parametrize("name", ["whole pixel", "block", "box", "boxes, clipped", "patch", "band"])
def test_auxiliary_fields_at_a_fraction_of_the_resolution_drop_with_any_of_their_pixels(name, key):
    config = config_of(
        MODES[name],
        auxiliary_fields=["map", "features"],
        auxiliary_fill=(-1, 0.5),
        mask_key="kept",
        dropout_rate=0.2,
    )
    data = {
        "image": image_of((16, 6, 9, 3)),
        "map": image_of((16, 2, 3), np.int8),
        "features": image_of((16, 2, 3, 5)),
    }
    for each in (config, config.replace(batch_strategy="scan")):
        out, _ = jax.jit(apply_batch)(each, init_state(each, key), data)
        kept = np.asarray(out["kept"]).reshape(16, 2, 3, 3, 3, 3).all(axis=(2, 4, 5))
        assert 0 < kept.sum() < kept.size
        np.testing.assert_array_equal(out["map"], np.where(kept, data["map"], -1))
        np.testing.assert_array_equal(
            out["features"], np.where(kept[..., None], data["features"], 0.5)
        )
        assert out["map"].dtype == jnp.int8


def test_auxiliary_fields_can_be_left_out(key):
    config = config_of("pixel", auxiliary_fields=["seg.map"], preserve_auxiliary=False)
    data = {"image": image_of((4, 6, 5, 3)), "seg": {"map": image_of((4, 6, 5)), "id": jnp.ones(4)}}
    out, _ = apply_batch(config, init_state(config, key), data)
    assert out["seg"].keys() == {"id"}
    assert data["seg"].keys() == {"map", "id"}


@pytest.mark.parametrize("mode", ["pixel", "channel"])
def test_a_label_map_cannot_follow_channels_that_drop_on_their_own(mode, key):
    config = config_of(mode, auxiliary_fields=["map"])
    data = {"image": image_of((4, 6, 5, 3)), "map": image_of((4, 6, 5))}
    with pytest.raises(
        ValueError,
        match=r"auxiliary field 'map' must have the image's own shape .*"
        r"Drop whole pixels instead: mode=Pixel\(per_channel=False\)\.",
    ):
        apply_batch(config, init_state(config, key), data)
    with pytest.raises(ValueError, match=r"'map' must have the spatial axes \(6, 5\) of the image"):
        apply_batch(config, init_state(config, key), {**data, "map": image_of((4, 6))})


@pytest.mark.parametrize("name", ["target_key", "mask_key"])
def test_no_new_field_takes_the_place_of_a_dict_of_others(name, key):
    config = config_of("pixel", **{name: "camera"}).replace(field_key="camera.rgb")
    data = {"camera": {"rgb": image_of((4, 6, 5, 3)), "depth": jnp.ones(4)}}
    with pytest.raises(ValueError, match="take the place") as refused:
        apply_batch(config, init_state(config, key), data)
    assert str(refused.value) == (
        f"DropoutOperatorConfig.{name} must not take the place of a dict with 'rgb', 'depth'; got "
        "'camera'."
    )
    # A name with a dot in it is no path.
    flat = {"camera.rgb": data["camera"]["rgb"]}
    out, _ = apply_batch(config, init_state(config, key), flat)
    assert out.keys() == {"camera.rgb", "camera"}
