"""Fills as objects: names, text and users' own, of the image, of auxiliary fields, of others."""

import dataclasses
import functools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from cases import MODES, SHAPE, config_of, image_of, through_json, through_pickle
from dropax import FromField, Mean, Noise, StatsMean, apply_batch, dropout, init_state

WHOLE = dropax.Pixel(per_channel=False)
IMAGES = np.asarray(image_of(SHAPE))


@dataclasses.dataclass(frozen=True)
class Largest:
    """A fill of a user's own."""

    factor: float = 1.0

    def fill(self, key, image, keep_mask):
        assert key is None
        return (image.max() * self.factor).astype(image.dtype)


@dataclasses.dataclass(frozen=True)
class Random:
    """One that draws, and asks for all there is."""

    needs: ClassVar[tuple[str, ...]] = ("key", "channel_axis", "where", "stats")

    def fill(self, key, image, keep_mask, channel_axis, where, stats):
        assert (channel_axis, where) == (image.ndim - 1, None)
        return jax.random.uniform(key, image.shape) + stats["mean"]


def run(config, key, **fields):
    return apply_batch(config, init_state(config, key), {"image": IMAGES, **fields})[0]


@pytest.mark.parametrize("kind", [Mean, Noise, StatsMean])
def test_a_name_stands_for_its_object(kind, key):
    name = {Mean: "mean", Noise: "noise", StatsMean: "stats_mean"}[kind]
    options = {"precomputed_stats": {"mean": 0.5}, "auxiliary_fields": ["a"]}
    configs = [
        config_of(WHOLE, fill=fill, auxiliary_fill=each, **options)
        for fill, each in ((name, [name]), (kind(), (kind(),)), (f"{kind.__name__}()", (name,)))
    ]
    assert isinstance(kind(), dropax.Fill)
    assert [config.fill for config in configs] == [name, kind(), kind()]
    assert len(set(configs)) == len({jax.tree.structure(config) for config in configs}) == 1
    outs = [run(config, key, a=IMAGES)["image"] for config in configs]
    for config, out in zip(configs, outs, strict=True):
        np.testing.assert_array_equal(out, outs[0])
        assert config.to_dict()["fill"] == name
        assert through_json(config) == config


def test_a_fill_of_a_users_own_fills_and_costs_no_key(key):
    config = config_of(WHOLE, fill=Largest(0.5), mask_key="kept")
    assert set(dropax.generate_random_params(config, key, {"image": SHAPE})) == {"keep_mask"}
    out = run(config, key)
    largest = IMAGES.max(axis=(1, 2, 3), keepdims=True) / 2
    np.testing.assert_array_equal(out["image"], np.where(out["kept"], IMAGES, largest))
    np.testing.assert_array_equal(
        dropout(key, IMAGES[0], fill=Largest(), rate=1.0), np.full(SHAPE[1:], IMAGES[0].max())
    )
    assert through_json(config, (Largest,)) == config
    assert config.to_dict()["fill"] == "Largest(factor=0.5)"
    with pytest.raises(ValueError, match="there is no 'Largest'"):
        through_json(config)


def test_a_fill_of_a_users_own_is_given_what_it_needs(key):
    config = config_of(WHOLE, fill=Random(), dropout_rate=1.0, precomputed_stats={"mean": 3.0})
    assert "fill_key" in dropax.generate_random_params(config, key, {"image": SHAPE})
    out = np.asarray(run(config, key)["image"])
    assert len(np.unique(out)) > out.size * 0.99
    assert 3.4 < out.mean() < 3.6
    with pytest.raises(TypeError, match="fill must be computed from the image; got Random"):
        dropout(key, IMAGES, fill=Random())
    with pytest.raises(TypeError, match=r"fill must be computed from the image; got .stats"):
        dropout(key, IMAGES, fill="stats_mean")


@dataclasses.dataclass(frozen=True)
class Broken:
    """Returns what does not fit."""

    dtype: str
    shape: tuple[int, ...]

    def fill(self, key, image, keep_mask):
        return jnp.ones(self.shape, self.dtype)


class ByIdentity(Largest):
    """Compared by identity."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


def test_a_fill_that_does_not_fit_is_refused_by_its_class(key):
    owner = r"what Broken\.fill returns must"
    with pytest.raises(TypeError, match=rf"{owner} have the image's dtype float32; got an array"):
        dropout(key, IMAGES, fill=Broken("int32", ()))
    with pytest.raises(ValueError, match=rf"{owner} broadcast to the element's shape"):
        dropout(key, IMAGES, fill=Broken("float32", (7,)))
    with pytest.raises(TypeError, match=r"Config\.fill must be hashable by value; got"):
        config_of(WHOLE, fill=ByIdentity())
    with pytest.raises(TypeError, match=r"Config\.fill must be a number, or a fill's name"):
        config_of(WHOLE, fill=Mean)


@dataclasses.dataclass(frozen=True)
class Needy:
    needs: tuple = ()
    field: object = None

    def fill(self, key, image, keep_mask, **given):
        return jnp.asarray(len(given), image.dtype)


def test_what_a_fill_of_a_users_own_needs_is_checked_when_a_config_is_made(key):
    text = r"Config\.fill\.needs: a name must be one of .*; got 'wher'\. Did you mean"
    with pytest.raises(ValueError, match=text):
        config_of(WHOLE, fill=Needy(("wher",)))
    for field in (None, 3, ""):
        with pytest.raises(TypeError, match=r"fill\.field must be a field's name if needs"):
            config_of(WHOLE, fill=Needy(("values",), field))
    assert (dropout(key, IMAGES, rate=1.0, fill=Needy("key")) == 0).all()  # one name
    config = config_of(WHOLE, fill=Needy(("stats",)))
    with pytest.raises(KeyError, match="must hold 'mean' if a fill needs statistics; got None"):
        apply_batch(config, init_state(config, key), {"image": IMAGES})


def test_each_auxiliary_field_may_have_a_fill_of_its_own(key):
    rng = np.random.default_rng(0)
    fields = {
        "depth": rng.random(SHAPE[:3], np.float32),
        "label": rng.integers(0, 9, SHAPE[:3]),
        "flow": rng.random((*SHAPE[:3], 2), np.float32),
        "normal": rng.random((*SHAPE[:3], 2), np.float32),
        "other": rng.random((*SHAPE[:3], 2), np.float32),
    }
    config = config_of(
        WHOLE,
        auxiliary_fields=["depth", "label", "flow", "normal"],
        auxiliary_fill=(math.nan, 255, "mean", FromField("other")),
        mask_key="kept",
    )
    assert config.to_dict()["auxiliary_fill"] == ["nan", 255, "mean", "FromField(field='other')"]
    assert through_json(config) == config
    out = run(config, key, **fields)
    kept = np.asarray(out["kept"])[..., :1]
    mean = fields["flow"].mean(axis=(1, 2), keepdims=True)
    fills = {"depth": np.nan, "label": 255, "flow": mean, "normal": fields["other"]}
    for name, fill in fills.items():
        mask = kept if fields[name].ndim == 4 else kept[..., 0]
        np.testing.assert_allclose(out[name], np.where(mask, fields[name], fill), rtol=1e-6)


def test_noise_of_fields_is_of_streams_of_their_own(key):
    names = ["a", "b"]
    alone = config_of(WHOLE, fill="noise", dropout_rate=1.0)
    config = alone.replace(auxiliary_fields=names, auxiliary_fill="noise")
    assert config.auxiliary_fill == "noise"
    out = run(config, key, **dict.fromkeys(names, IMAGES))
    np.testing.assert_array_equal(out["image"], run(alone, key)["image"])
    image, one, other = (np.asarray(out[name]).ravel() for name in ("image", *names))
    for first, second in ((image, one), (image, other), (one, other)):
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.5
        assert (first != second).mean() > 0.9


def test_fields_that_are_left_out_need_no_fills(key):
    options = {"auxiliary_fields": ["a"], "preserve_auxiliary": False}
    config = config_of(WHOLE, auxiliary_fill=FromField("b"), **options)
    assert set(run(config, key, a=IMAGES)) == {"image"}


@pytest.mark.parametrize("fill", [math.nan, math.inf, -math.inf, "nan", "-inf", (math.nan, 0, 1)])
def test_nan_and_infinity_fill_floats_and_are_values_as_any_other(fill, key):
    config, twin = (config_of(WHOLE, fill=fill, mask_key="kept") for _ in range(2))
    fresh = np.float32("nan") if fill is math.nan else fill  # NaN, and another object
    for other in (twin, config.replace(fill=fresh), through_pickle(config)):
        assert other == config
        assert hash(other) == hash(config)
        assert jax.tree.structure(other) == jax.tree.structure(config)
    assert through_json(config) == config
    assert config != config_of(WHOLE, fill=1.0, mask_key="kept")
    out = run(config, key)
    numbers = np.float32(fill)
    np.testing.assert_array_equal(out["image"], np.where(out["kept"], IMAGES, numbers))
    with pytest.raises(ValueError, match=r"Config\.fill must be exact in dtype uint8; got"):
        apply_batch(config, init_state(config, key), {"image": IMAGES.astype(np.uint8)})


@pytest.mark.parametrize("fill", ["mean", "noise"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_padding_does_not_dilute_what_is_computed(fill, dtype, key):
    shape = (2, 40, 33, 3)
    images = np.random.default_rng(0).integers(100, 120, shape).astype(dtype)
    where = np.zeros(shape[:3], bool)
    where[0, :25], where[1, :, 5:20] = True, True
    padded = np.where(where[..., None], images, 0).astype(dtype)
    config = config_of(WHOLE, fill=fill, where_key="where", dropout_rate=1.0)
    state = init_state(config, key)
    out = np.asarray(apply_batch(config, state, {"image": padded, "where": where})[0]["image"])
    np.testing.assert_array_equal(out[~where], 0)
    for record in range(2):
        inside, found = images[record][where[record]], out[record][where[record]]
        if fill == "mean":
            off = np.abs(found - inside.mean(axis=0))
            assert off.max() <= (0.5 if dtype == "uint8" else 1e-4)
        else:
            np.testing.assert_allclose(found.mean(axis=0), inside.mean(axis=0), atol=1.5)
            np.testing.assert_allclose(found.std(axis=0), inside.std(axis=0), rtol=0.2)


# `FromField`: fills that are read from another field of the record.


STATE = init_state(config_of("pixel"), jax.random.key(0))


def dropped(config, image, other):
    return apply_batch(config, STATE, {"image": image, "other": other})[0]


def config_with(mode="pixel", **options):
    return config_of(mode, fill=FromField("other"), mask_key="kept", **options)


@pytest.mark.parametrize(
    ("mode", "dtype", "shape", "strategy"),
    [
        ("box", "float32", (6, 5, 3), "vmap"),
        ("channel", "bfloat16", (6, 5, 3), "vmap"),
        ("pixel", "uint8", (6, 5, 3), "vmap"),
        ("pixel", "bool", (6, 5, 3), "vmap"),
        ("pixel", "float32", (3,), "vmap"),
        ("pixel", "float32", (6, 1, 1), "vmap"),
        ("pixel", "float32", (6, 5, 1), "scan"),
        ("pixel", "float32", (), "scan"),
    ],
    ids=str,
)
def test_dropped_values_are_those_of_the_other_field_bit_for_bit(mode, dtype, shape, strategy, rng):
    most = 2 if dtype == "bool" else 256
    image, other = (rng.integers(0, most, (4, *each)) for each in (SHAPE[1:], shape))
    image, other = image.astype(jnp.dtype(dtype)), other.astype(jnp.dtype(dtype))
    out = dropped(config_with(MODES[mode], batch_strategy=strategy), image, other)
    assert out["image"].dtype == image.dtype
    spread = other.reshape(4, *[1] * (3 - len(shape)), *shape)
    np.testing.assert_array_equal(out["image"], np.where(out["kept"], image, spread))
    np.testing.assert_array_equal(out["other"], other)


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
    out = dropax.apply(config, data, {}, {})[0]["views"]
    assert out["rgb"].sum() == 4
    assert out["blurred"].sum() == 0  # dropped as an auxiliary field


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
