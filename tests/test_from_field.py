"""`FromField`: fills that are read from another field of the record."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cases import MODES, SHAPE, config_of, image_of
from dropax import (
    FromField,
    apply,
    apply_batch,
    dropout,
    init_state,
)

STATE = init_state(config_of("pixel"), jax.random.key(0))


def dropped(config, image, other):
    return apply_batch(config, STATE, {"image": image, "other": other})[0]


def config_with(mode="pixel", **options):
    return config_of(mode, fill=FromField("other"), mask_key="kept", **options)


@pytest.mark.parametrize(
    ("mode", "dtype"),
    [("box", "float32"), ("channel", "bfloat16"), ("pixel", "uint8"), ("pixel", "bool")],
)
def test_dropped_values_are_those_of_the_other_field_bit_for_bit(mode, dtype, rng):
    image = rng.integers(0, 256, SHAPE).astype(jnp.dtype(dtype))
    other = ~image if dtype == "bool" else image[::-1] + np.ones((), image.dtype)
    out = dropped(config_with(MODES[mode]), image, other)
    assert out["image"].dtype == image.dtype
    np.testing.assert_array_equal(out["image"], np.where(out["kept"], image, other))
    np.testing.assert_array_equal(out["other"], other)


@pytest.mark.parametrize(
    ("shape", "strategy"),
    [((3,), "vmap"), ((6, 1, 1), "vmap"), ((6, 5, 1), "scan"), ((), "scan")],
    ids=str,
)
def test_it_broadcasts_to_the_image(shape, strategy, rng):
    other = rng.random((4, *shape), np.float32)
    out = dropped(config_with(batch_strategy=strategy), image_of(SHAPE), other)
    spread = other.reshape(4, *[1] * (3 - len(shape)), *shape)
    expected = np.where(out["kept"], image_of(SHAPE), spread)
    np.testing.assert_array_equal(out["image"], expected)


def test_kept_values_are_rescaled_and_all_are_clipped():
    config = config_with(rescale=True, clip_range=(10.0, 150.0), dropout_rate=0.5)
    image, other = np.asarray(image_of(SHAPE)), np.full(SHAPE, 200, np.float32)
    out = dropped(config, image, other)
    expected = np.clip(np.where(out["kept"], 2 * image, other), 10, 150)
    np.testing.assert_array_equal(out["image"], expected)


def test_gradients_reach_a_learned_token_from_what_it_fills_and_nothing_else():
    config, image = config_with(), image_of(SHAPE)

    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def gradients(token, image):
        out = dropped(config, image, jnp.broadcast_to(token, (4, 1, 1, 3)))
        return out["image"].sum(), out["kept"]

    (of_token, of_image), kept = gradients(np.zeros(3, np.float32), image)
    gone = (~np.asarray(kept)).sum((0, 1, 2))
    np.testing.assert_allclose(of_token, gone, rtol=1e-6)
    np.testing.assert_array_equal(of_image, kept)
    assert (gone > 0).all()


def test_nan_of_the_other_field_stays_where_values_are_kept_in_values_and_gradients():
    config = config_with(rescale=True, clip_range=(0.0, 500.0))
    kept = np.asarray(dropped(config, image_of(SHAPE), np.zeros(SHAPE, np.float32))["kept"])
    image = np.where(kept, image_of(SHAPE), np.float32(np.nan))
    other = np.where(kept, np.float32(np.nan), np.float32(1))

    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def gradients(image, other):
        out = dropped(config, image, other)["image"]
        return out.sum(), out

    (of_image, of_other), out = gradients(image, other)
    assert np.isfinite(out).all()
    assert np.isfinite(of_image).all()
    np.testing.assert_array_equal(of_other, ~kept)


def test_it_is_read_from_nested_dicts_as_it_came_in():
    config = config_of(
        MODES["whole pixel"],
        field_key="views.rgb",
        fill=FromField("views.blurred"),
        auxiliary_fields=["views.blurred"],
        stochastic=False,
        dropout_rate=1.0,
    )
    data = {"views": {"rgb": jnp.zeros((2, 2, 1)), "blurred": jnp.ones((2, 2, 1))}}
    out = apply(config, data, {}, {})[0]["views"]
    assert out["rgb"].sum() == 4
    assert out["blurred"].sum() == 0  # dropped as an auxiliary field


# What is refused, by name.


@pytest.mark.parametrize(
    ("other", "error", "text"),
    [
        (jnp.ones((4, 3), jnp.bfloat16), TypeError, "'other', a fill, must have the image's dtype"),
        (np.ones((4, 3), np.int32), TypeError, "dtype float32; got an array of .* Convert it"),
        (jnp.ones((4, 5)), ValueError, r"'other', a fill, must broadcast to the element's shape"),
        (jnp.ones((4, 1, 6, 5, 3)), ValueError, r"'other', a fill, must broadcast to the element"),
        (jnp.ones(3), ValueError, "must have 4 records along its leading axis"),
    ],
    ids=lambda value: str(getattr(value, "shape", "")),
)
def test_a_field_that_does_not_fit_is_refused_by_name(other, error, text):
    with pytest.raises(error, match=text):
        dropped(config_with(), image_of(SHAPE), other)


def test_the_other_field_must_be_there_and_have_a_name():
    for name in ("other", "images"):
        with pytest.raises(TypeError, match=r"dropout\.fill must be computed from the image"):
            dropout(jax.random.key(0), jnp.ones((4, 4, 3)), fill=FromField(name))
    with pytest.raises(KeyError, match="field 'other' not found: the data has 'image'"):
        apply_batch(config_with(), STATE, {"image": image_of(SHAPE)})
    for field, error in (("", ValueError), (None, TypeError)):
        with pytest.raises(error, match=r"FromField\.field must"):
            FromField(field)
