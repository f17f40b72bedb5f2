"""Transforms as people write them: right ones, and others with one fault each."""

import dataclasses
import inspect
import random
import time
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dropax import Batch, ModalityOperatorConfig, OperatorConfig


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Config(OperatorConfig):
    """The config of somebody's own transform."""

    rate: Any = 0.4
    amount: Any = 0.3
    dynamic_fields: ClassVar[tuple[str, ...]] = ("rate", "amount")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DropConfig(ModalityOperatorConfig):
    """The config of somebody's own dropout."""

    rate: Any = 0.4
    fill: float = 0.0
    dynamic_fields: ClassVar[tuple[str, ...]] = ("rate",)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PlainConfig(ModalityOperatorConfig):
    """The same, without a fill."""

    rate: Any = 0.4
    dynamic_fields: ClassVar[tuple[str, ...]] = ("rate",)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StaticConfig(ModalityOperatorConfig):
    """The same, with a rate that is compiled in."""

    rate: Any = 0.4


class Case(NamedTuple):
    """A transform, and what a user says about it."""

    draw: Any
    apply: Any
    options: dict[str, Any]
    config: Any = Config(stochastic=True)


DROP = DropConfig(field_key="image", stochastic=True)
_rng = np.random.default_rng(0)


def images(*shape, dtype=np.float32):
    values = _rng.random(shape)
    return values.astype(dtype) if dtype == np.float32 else (values * 255).astype(dtype)


RGB = {"image": images(5, 9, 7, 3), "label": np.arange(5, dtype=np.int32)}
SQUARE = {"image": images(5, 9, 9, 3), "label": np.arange(5, dtype=np.int32)}
BYTES = {"image": images(5, 9, 7, 3, dtype=np.uint8), "label": np.arange(5, dtype=np.int32)}
STATES = Batch.from_parts(RGB, {"seen": np.zeros(5, np.uint32)})


def each(draw_one, name="keep_mask"):
    """Draws for each key alone, as one should."""

    def draw(config, keys, data_shapes):
        drawn = jax.vmap(lambda key: draw_one(config, key, data_shapes["image"][1:]))(keys)
        return drawn if isinstance(drawn, dict) else {name: drawn}

    return draw


def on_image(change, field="image"):
    """Applies `change(config, image, params)`; the dtype stays unless it changes on purpose."""

    def apply(config, data, state, metadata, random_params=None, stats=None):
        image = jnp.asarray(data[field])
        return {**data, field: change(config, image, random_params)}, state, metadata

    return apply


def filled(select):
    """Works on the config's field, and puts the result where the config says."""

    def apply(config, data, state, metadata, random_params=None, stats=None):
        image = jnp.asarray(data[config.field_key])
        result = select(config, image, random_params["keep_mask"])
        return {**data, config.target_key or config.field_key: result}, state, metadata

    return apply


def fill_of(config, image):
    return jnp.asarray(config.fill).astype(image.dtype)


def uniform_mask(config, key, shape):
    return jax.random.uniform(key, shape) >= config.rate


def select(config, image, mask):
    return jnp.where(mask, image, fill_of(config, image))


sound_draw, sound_apply = each(uniform_mask), filled(select)


def is_whole(change):
    """Says whether this is an `apply`, and not a change of the image."""
    return "metadata" in inspect.signature(change).parameters


def drop(draw_one=uniform_mask, change=select, config=DROP, batch=RGB, **options):
    """A case of dropout, with a part replaced."""
    apply = change if is_whole(change) else filled(change)
    draw = draw_one if "data_shapes" in inspect.signature(draw_one).parameters else each(draw_one)
    return Case(draw, apply, {"batch": batch, "rate_field": "rate", **options}, config)


def other(draw_one, change, batch=RGB, config=None, **options):
    """A case of a transform that drops nothing."""
    config = Config(stochastic=True) if config is None else config
    apply = change if is_whole(change) else on_image(change)
    return Case(each(draw_one), apply, {"batch": batch, "field": "image", **options}, config)


def at(rate_to):
    return lambda config, key, shape: jax.random.uniform(key, shape) >= rate_to(config.rate)


# Cutouts.


def square(config, key, shape, size=3, *, end=1, keys=None):
    one, two = jax.random.split(key) if keys is None else keys(key)
    top = jax.random.randint(one, (), 0, shape[0] - size + end)
    left = jax.random.randint(two, (), 0, shape[1] - size + end)
    rows, columns = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])[None]
    inside = (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)
    return ~inside[..., None]


def full_square(config, key, shape):
    return jnp.broadcast_to(square(config, key, shape), shape)


def square_params(config, key, shape):
    """Corners, of which `apply` computes the mask."""
    one, two = jax.random.split(key)
    top = jax.random.randint(one, (), 0, shape[0] - 2)
    left = jax.random.randint(two, (), 0, shape[1] - 2)
    return {"top": top, "bottom": top + 3, "left": left, "right": left + 3}


def corner_mask(config, params, shape=(9, 7)):
    rows, columns = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])[None]
    inside = (rows >= params["top"]) & (rows < params["bottom"])
    return ~(inside & (columns >= params["left"]) & (columns < params["right"]))


def square_share(config, shape):
    return 9 / (shape[0] * shape[1])


# Colors.


def gain(config, key, shape):
    return {"gain": jax.random.uniform(key, (), minval=0.5, maxval=1.5)}


def brighten(config, image, params):
    return jnp.clip(image * params["gain"], 0, 1)


def brighten_bytes(config, image, params):
    wide = image.astype(jnp.float32) * params["gain"]
    return jnp.clip(jnp.round(wide), 0, 255).astype(image.dtype)


def contrast(config, image, params):
    mean = image.mean(axis=(0, 1), keepdims=True)
    return jnp.clip((image - mean) * params["gain"] + mean, 0, 1)


def hue(config, image, params):
    turn = params["gain"] * 2 * jnp.pi
    to_yiq = jnp.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    rotation = jnp.array([[1, 0, 0], [0, 1, 0], [0, 0, 1.0]]) * 1.0
    rotation = rotation.at[1, 1].set(cos).at[1, 2].set(-sin).at[2, 1].set(sin).at[2, 2].set(cos)
    return jnp.clip(image @ (jnp.linalg.inv(to_yiq) @ rotation @ to_yiq).T, 0, 1)


def jitter_draw(config, key, shape):
    one, two, three = jax.random.split(key, 3)
    return {
        "gain": jax.random.uniform(one, (), minval=0.5, maxval=1.5),
        "shift": jax.random.uniform(two, (), minval=-0.2, maxval=0.2),
        "order": jax.random.permutation(three, 2),
    }


def jitter(config, image, params):
    steps = [
        lambda x: brighten(config, x, params),
        lambda x: jnp.clip(x + params["shift"], 0, 1),
    ]
    for at in range(2):
        image = jax.lax.switch(params["order"][at], steps, image)
    return image


def coin(config, key, shape):
    return {"flip": jax.random.bernoulli(key, 0.5)}


def flip(config, image, params):
    return jnp.where(params["flip"], image[:, ::-1], image)


def flip_reference(config, data, params):
    return data["image"][:, ::-1] if params["flip"] else data["image"]


def crop_draw(config, key, shape):
    one, two = jax.random.split(key)
    top = jax.random.randint(one, (), 0, shape[0] - 4)
    return {"top": top, "left": jax.random.randint(two, (), 0, shape[1] - 4)}


def crop(config, image, params):
    start = (params["top"], params["left"], 0)
    return jax.lax.dynamic_slice(image, start, (5, 5, image.shape[2]))


def crop_spec(spec):
    return jax.ShapeDtypeStruct((5, 5, spec.shape[2]), spec.dtype)


def resized_crop(config, image, params):
    return jax.image.resize(crop(config, image, params), image.shape, "bilinear")


def blur(config, image, params):
    kernel = jnp.exp(-0.5 * (jnp.arange(-2, 3) / params["gain"]) ** 2)
    kernel = kernel / kernel.sum()
    for axis in (0, 1):
        width = [(2, 2) if at == axis else (0, 0) for at in range(3)]
        padded = jnp.pad(image, width, mode="edge")
        parts = [
            k * jax.lax.slice_in_dim(padded, at, at + image.shape[axis], axis=axis)
            for at, k in enumerate(kernel)
        ]
        image = sum(parts)
    return image


def rotate(config, image, params):
    angle = (params["gain"] - 1) * jnp.pi / 6
    rows, columns = jnp.meshgrid(
        *(jnp.arange(n) - (n - 1) / 2 for n in image.shape[:2]), indexing="ij"
    )
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    at = [rows * cos - columns * sin, rows * sin + columns * cos]
    at = [x + (n - 1) / 2 for x, n in zip(at, image.shape[:2], strict=True)]
    planes = [
        jax.scipy.ndimage.map_coordinates(image[..., c], at, order=1, mode="constant")
        for c in range(image.shape[2])
    ]
    return jnp.stack(planes, axis=-1)


def noise_draw(config, key, shape):
    return {"noise": jax.random.normal(key, shape)}


def add_noise(config, image, params):
    return image + jnp.asarray(config.amount, image.dtype) * params["noise"].astype(image.dtype)


def nothing(config, key, shape):
    return {}


def threshold(config, key, shape):
    return {"threshold": jax.random.randint(key, (), 64, 192)}


def solarize(config, image, params):
    return jnp.where(image < params["threshold"].astype(image.dtype), image, 255 - image)


def erase_draw(config, key, shape):
    mask = square(config, key, shape)
    return {"keep_mask": mask, "weight": mask.mean(dtype=jnp.float32)}


def erase(config, data, state, metadata, random_params=None, stats=None):
    out, state, metadata = sound_apply(config, data, state, metadata, random_params)
    return {**out, "soft": data["soft"] * random_params["weight"]}, state, metadata


def keep_one(config, key, shape):
    uniform = jax.random.uniform(key, shape[-1:])
    return (uniform >= config.rate) | (uniform == uniform.max())


def keep_one_share(config, shape):
    return config.rate - config.rate ** shape[-1] / shape[-1]


def record_mask(config, key, shape):
    return jax.random.bernoulli(key, 1 - config.rate, (1,) * len(shape))


def inverted(config, image, mask):
    kept = 1 - jnp.asarray(config.rate, image.dtype)
    return jnp.where(mask, image / jnp.where(kept > 0, kept, 1), fill_of(config, image))


def inverted_value(config, image, params):
    kept = np.float32(1) - np.float32(config.rate)
    return image / (kept if kept > 0 else 1)


def pixel_mask(config, key, shape):
    return uniform_mask(config, key, (*shape[:2], 1))


def rare_coin(config, key, shape):
    return {"flip": jax.random.bernoulli(key, config.rate)}


def token_mask(config, key, shape):
    return jnp.broadcast_to(jax.random.uniform(key, (shape[0], 1)) >= config.rate, shape)


def pair_draw(config, key, shape):
    return {
        "gain": jax.random.uniform(key, (), minval=0.5, maxval=1.5),
        **coin(config, jax.random.fold_in(key, 1), shape),
    }


def flip_both(config, data, state, metadata, random_params=None, stats=None):
    turned = {
        name: jnp.where(random_params["flip"], data[name][:, ::-1], data[name])
        for name in ("image", "depth")
    }
    return {**data, **turned}, state, metadata


def with_depth(change):
    """Drops from the image and from its depth map, by masks that `change` may confuse."""

    def apply(config, data, state, metadata, random_params=None, stats=None):
        mask = random_params["keep_mask"]
        image = select(config, jnp.asarray(data["image"]), mask)
        depth = jnp.where(change(random_params), jnp.asarray(data["depth"]), 0)
        return {**data, config.target_key or "image": image, "depth": depth}, state, metadata

    return apply


# One row a case.
# fmt: off
SQUARES = {"expected_fraction": square_share, "rate_field": "none"}
DEPTH = {**RGB, "depth": images(5, 9, 7, 1)}
DEPTHS = {"config": DROP.replace(auxiliary_fields=["depth"]), "batch": DEPTH}
SOFT = {**RGB, "soft": np.eye(5, dtype=np.float32)}
REAL = {"image": images(5, 9, 7, 3) * 2 - 1}
NEVER = Config(stochastic=True, rate=0.0)
PLAIN = PlainConfig(field_key="image", stochastic=True)
FREE = {"independent": True}
CORNERS = {"keep_mask": corner_mask, "expected_fraction": square_share}
CAST = {"output_spec": lambda spec: jax.ShapeDtypeStruct(spec.shape, jnp.float32)}

RIGHT = {
    "dropout": drop(**FREE),
    "dropout of bytes": drop(batch=BYTES, config=DROP.replace(fill=7.0), **FREE),
    "dropout to a target": drop(config=DROP.replace(target_key="out"), **FREE),
    "inverted dropout": drop(change=inverted, kept_value=inverted_value, **FREE),
    "rate 0": drop(config=DROP.replace(rate=0.0), **FREE),
    "cutout": drop(square, **SQUARES),
    "cutout of full shape": drop(full_square, **SQUARES),
    "cutout of two axes": other(
        square_params, lambda c, x, p: jnp.where(corner_mask(c, p)[..., None], x, 0), **CORNERS),
    "cutout of the mean": drop(
        square, lambda c, x, m: jnp.where(m, x, jax.lax.stop_gradient(x.mean(axis=(0, 1)))),
        config=PLAIN, fill_reads="statistics", **SQUARES),
    "erasing with soft labels": drop(erase_draw, erase, batch=SOFT, new_fields=["soft"], **SQUARES),
    "channel dropout that keeps one": drop(keep_one, expected_fraction=keep_one_share),
    "drop path": drop(record_mask),
    "token masking": drop(token_mask, batch={"image": images(4, 12, 8)}),
    "several fields": drop(pixel_mask, with_depth(lambda p: p["keep_mask"]), **DEPTHS, **FREE),
    "flip": other(coin, flip, reference=flip_reference),
    "flip of bytes": other(coin, flip, BYTES),
    "flip never": other(rare_coin, flip, config=NEVER),
    "flip of image and depth": other(coin, flip_both, DEPTH, new_fields=["depth"]),
    "flip and gain": other(pair_draw, lambda c, x, p: brighten(c, flip(c, x, p), p)),
    "crop": other(crop_draw, crop, output_spec=crop_spec),
    "resized crop": other(crop_draw, resized_crop),
    "brightness": other(gain, brighten),
    "brightness of bytes": other(gain, brighten_bytes, BYTES),
    "contrast": other(gain, contrast),
    "blur": other(gain, blur),
    "noise": other(noise_draw, add_noise, REAL),
    "rotation": other(gain, rotate),
    "hue": other(gain, hue),
    "jitter in random order": other(jitter_draw, jitter),
    "posterize": other(nothing, lambda c, x, p: x & np.uint8(0xF0), BYTES),
    "solarize": other(threshold, solarize, BYTES),
    "cast": other(nothing, lambda c, x, p: x.astype(jnp.float32) / 255, BYTES, **CAST),
}
# fmt: on


# What goes wrong.


def same_for_all(config, keys, data_shapes):
    mask = uniform_mask(config, keys[0], data_shapes["image"][1:])
    return {"keep_mask": jnp.broadcast_to(mask, data_shapes["image"])}


def by_position(config, keys, data_shapes):
    keys = jax.vmap(jax.random.fold_in)(keys, jnp.arange(len(keys)))
    return sound_draw(config, keys, data_shapes)


def constant_key(config, keys, data_shapes):
    return sound_draw(config, jax.random.split(jax.random.key(0), len(keys)), data_shapes)


def first_256(config, keys, data_shapes):
    words = jax.random.key_data(keys)
    words = words[jnp.minimum(jnp.arange(len(keys)), 255)]
    return sound_draw(config, jax.random.wrap_key_data(words, impl="threefry2x32"), data_shapes)


def numpy_noise(config, keys, data_shapes):
    return {"keep_mask": jnp.asarray(np.random.rand(*data_shapes["image"]) >= 0.4)}


def python_random(config, data, state, metadata, random_params=None, stats=None):
    shift = random.random()
    return {**data, "image": jnp.asarray(data["image"]) + shift}, state, metadata


def timed(config, data, state, metadata, random_params=None, stats=None):
    return {**data, "image": jnp.asarray(data["image"]) * (time.time() % 1)}, state, metadata


CALLS = [0]


def counted(config, keys, data_shapes):
    CALLS[0] += 1
    keys = jax.vmap(lambda key: jax.random.fold_in(key, CALLS[0]))(keys)
    return sound_draw(config, keys, data_shapes)


def pooled(config, key, shape):
    return uniform_mask(config, jax.random.key(jax.random.bits(key) % 256), shape)


def half_repeats(config, key, shape):
    half = uniform_mask(config, key, (-(-shape[0] // 2), *shape[1:]))
    return jnp.concatenate([half, half])[: shape[0]]


def mirrored(config, key, shape):
    half = uniform_mask(config, key, (shape[0], -(-shape[1] // 2), *shape[2:]))
    return jnp.concatenate([half, half[:, ::-1]], axis=1)[:, : shape[1]]


def repeated(axis):
    def draw_one(config, key, shape):
        one = [1 if axis == other else size for other, size in enumerate(shape)]
        return jnp.broadcast_to(uniform_mask(config, key, one), shape)

    return draw_one


def diagonal(config, key, shape):
    return square(config, key, shape, keys=lambda key: (key, jax.random.clone(key)))


def neighbors(config, key, shape):
    uniform = jax.random.uniform(key, shape)
    one = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.3, shape)
    return jnp.where(one, jnp.roll(uniform, 1, 1), uniform) >= config.rate


def two_gains(config, key, shape):
    one = jax.random.uniform(key, (), minval=0.5, maxval=1.5)
    return {"gain": one, "shift": jax.random.uniform(key, (), minval=-0.2, maxval=0.2)}


def folded_twice(config, key, shape):
    one, two = jax.random.fold_in(key, 1), jax.random.fold_in(key, 1)
    return {"gain": jax.random.uniform(one, ()), "flip": jax.random.bernoulli(two)}


def shifted(config, image, params):
    return jnp.clip(image * params["gain"] + params["shift"], 0, 1)


def mutated(config, data, state, metadata, random_params=None, stats=None):
    out = sound_apply(config, data, state, metadata, random_params)
    if isinstance(data["image"], np.ndarray):
        data["image"][...] = 0
    return out


def mutated_dict(config, data, state, metadata, random_params=None, stats=None):
    data["image"] = sound_apply(config, data, state, metadata, random_params)[0]["image"]
    return data, state, metadata


def beside(**changes):
    """Applies soundly, and changes what comes back beside the image."""

    def apply(config, data, state, metadata, random_params=None, stats=None):
        out, state, metadata = sound_apply(config, data, state, metadata, random_params)
        mask = random_params["keep_mask"]
        for name, change in changes.items():
            if name == "metadata":
                metadata = change
            elif name == "state":
                state = change(data, mask, state)
            else:
                out = {**out, name: change(data, mask)}
        return {name: value for name, value in out.items() if value is not None}, state, metadata

    return apply


LEAKED: list[Any] = []


def leaks(config, image, mask):
    LEAKED.append(image)
    return select(config, image, mask)


def divides_by_zero(config, image, mask):
    scale = 1 / (1 - jnp.asarray(config.rate, image.dtype))
    return jnp.where(scale < 0, image * scale, select(config, image, mask))


def words(change):
    """Draws soundly, from a part of each key."""

    def draw(config, keys, data_shapes):
        part = change(jax.random.key_data(keys))
        return sound_draw(config, jax.random.wrap_key_data(part, impl="threefry2x32"), data_shapes)

    return draw


def brightened(config, data, params):
    wide = data["image"].astype(np.float64) * params["gain"]
    return np.clip(np.round(wide), 0, 255)


def wraps(config, image, params):
    return (image * params["gain"]).astype(jnp.int32).astype(jnp.uint8)


def truncates(config, image, params):
    return jnp.clip(image * params["gain"], 0, 255).astype(jnp.uint8)


# One row a case: what it lacks, or several, and the case.
# fmt: off
HALVES = {"kept_value": inverted_value, **FREE}
CLIPPED = {"config": DROP.replace(clip_range=(0.2, 0.8))}
FILLED = {"config": DROP.replace(fill=0.5)}
HOLES = {"image": np.where(RGB["image"] < 0.3, np.nan, RGB["image"])}
STATIC = StaticConfig(field_key="image", stochastic=True)
BRIGHT = {"batch": BYTES, "reference": brightened}
RECORD, KEYS, RANDOM = "record_depends_on_its_key_alone", "keys_matter", "masks_are_random"
RATE, VALUES = "dropped_fraction_is_the_rate", "drops_where_the_mask_says"
GRADIENT, REFERENCE = "gradient_is_that_of_the_reference", "result_is_as_the_reference"

WRONG = {
    "one mask for all": (RECORD, drop(same_for_all)),
    "depends on position": (RECORD, drop(by_position)),
    "only 256 records": (RECORD, drop(first_256)),
    "constant key": (RECORD, drop(constant_key)),
    "low word of the key": (KEYS, drop(words(lambda w: w.at[:, 0].set(0)))),
    "low byte of the key": (KEYS, drop(words(lambda w: w & 255))),
    "words of the key combined": (KEYS, drop(words(
        lambda w: jnp.stack([0 * w[:, 0], w[:, 0] ^ w[:, 1]], axis=1)))),
    "a bit of the key": (KEYS, drop(words(lambda w: w | np.uint32(1 << 30)))),
    "NumPy's random numbers": ("deterministic", drop(numpy_noise)),
    "counts its calls": ("deterministic", drop(counted)),
    "256 masks": ((RANDOM, RATE), drop(pooled, **FREE)),
    "halves repeat": (RANDOM, drop(half_repeats, **FREE)),
    "mirrored": (RANDOM, drop(mirrored, **FREE)),
    "neighbors": (RANDOM, drop(neighbors, **FREE)),
    "one mask for channels": (RANDOM, drop(repeated(2), **FREE)),
    "one mask for rows": (RANDOM, drop(repeated(0), **FREE)),
    "last column never": (RATE, drop(lambda c, k, s: uniform_mask(c, k, s).at[:, -1].set(True))),
    "box on the diagonal": (RANDOM, drop(diagonal, batch=SQUARE, **SQUARES)),
    "box misses the border": (RANDOM, drop(lambda c, k, s: square(c, k, s, end=0), **SQUARES)),
    "box too large": (RATE, drop(lambda c, k, s: square(c, k, s, 4), **SQUARES)),
    "kept fraction": (RATE, drop(lambda c, k, s: jax.random.uniform(k, s) < c.rate)),
    "1 % off": (RATE, drop(at(lambda r: jnp.where(r < 1, 1.01 * r, r)), **FREE)),
    "right at 0.5 only": (RATE, drop(at(lambda r: jnp.sqrt(r / 2)), config=DROP.replace(rate=0.5))),
    "drops at rate 0": (RATE, drop(at(lambda r: jnp.maximum(r, 1e-3)))),
    "keeps at rate 1": (RATE, drop(at(lambda r: jnp.minimum(r, 0.999)))),
    "few bits": (RATE, drop(lambda c, k, s: jax.random.randint(k, s, 0, 256) / 256 > c.rate)),
    "key used twice": ("keys_are_used_once", other(two_gains, shifted)),
    "folded twice": ("entries_are_independent",
                     other(folded_twice, lambda c, x, p: flip(c, x * p["gain"], p))),
    "multiplies": (VALUES, drop(change=lambda c, x, m: x * m.astype(x.dtype))),
    "does not use its mask": (VALUES, drop(change=lambda c, x, m: jnp.zeros_like(x))),
    "wrong axis": (VALUES, drop(
        pixel_mask, lambda c, x, m: select(c, x, m.transpose(1, 0, 2)), batch=SQUARE)),
    "off by one": (VALUES, drop(change=lambda c, x, m: select(c, x, jnp.roll(m, 1, 0)))),
    "scaled fill": (VALUES, drop(change=lambda c, x, m: select(c, x, m) / (1 - c.rate), **HALVES)),
    "fill ignored": (VALUES, drop(change=lambda c, x, m: jnp.where(m, x, 0.0), **FILLED)),
    "fill of the neighbor": (VALUES, drop(
        change=lambda c, x, m: jnp.where(m, x, jnp.roll(x, 1, 0)), config=PLAIN)),
    "statistics of the image": (VALUES, drop(
        change=lambda c, x, m: jnp.where(m, x, x / 2), config=PLAIN, fill_reads="statistics")),
    "clip before fill": (VALUES, drop(
        change=lambda c, x, m: jnp.where(m, jnp.clip(x, 0.2, 0.8), 0.0), **CLIPPED)),
    "rescaled by the rate": (VALUES, drop(
        change=lambda c, x, m: jnp.where(m, x / jnp.asarray(c.rate), 0), **HALVES)),
    "not rescaled": (VALUES, drop(**HALVES)),
    "rescaled unasked": (VALUES, drop(change=lambda c, x, m: jnp.where(m, x * 1.001, 0))),
    "through bfloat16": (VALUES, drop(
        change=lambda c, x, m: select(c, x.astype(jnp.bfloat16).astype(x.dtype), m))),
    "NaN to a number": (VALUES, drop(
        change=lambda c, x, m: select(c, jnp.nan_to_num(x), m), batch=HOLES)),
    "another mask for depth": (VALUES, drop(
        pixel_mask, with_depth(lambda p: ~p["keep_mask"]), **DEPTHS)),
    "forgets depth": (VALUES, drop(pixel_mask, with_depth(lambda p: True), **DEPTHS)),
    "target ignored": ("target_key_is_honored", drop(
        change=on_image(lambda c, x, p: select(c, x, p["keep_mask"])))),
    "gradient through the fill": (GRADIENT, drop(
        change=lambda c, x, m: jnp.where(m, x, x.mean(axis=(0, 1))), config=PLAIN,
        fill_reads="statistics")),
    "divides by zero": (GRADIENT, drop(change=divides_by_zero)),
    "no gradient": (GRADIENT, drop(change=lambda c, x, m: jax.lax.stop_gradient(select(c, x, m)))),
    "promotes": ("structure_kept", drop(
        change=lambda c, x, m: jnp.where(m, x, 0.5), batch=BYTES)),
    "label changed": ("other_fields_stay", drop(change=beside(
        label=lambda d, m: jnp.where(m.mean() < 0.6, -1, d["label"])))),
    "label lost": ("structure_kept", drop(change=beside(label=lambda d, m: None))),
    "field added": ("structure_kept", drop(change=beside(mask=lambda d, m: m))),
    "metadata dropped": ("input_untouched", drop(change=beside(metadata=None))),
    "state of the mask": ("state_is_independent", drop(batch=STATES, change=beside(
        state=lambda d, m, s: {"seen": m.sum(dtype=jnp.uint32)}))),
    "mutates its array": ("input_untouched", drop(change=mutated)),
    "mutates its dict": ("input_untouched", drop(change=mutated_dict)),
    "branches on values": ("structure_kept", drop(
        change=lambda c, x, m: select(c, x, m) if m.any() else x)),
    "leaks": ("no_tracer_leaks", drop(change=leaks)),
    "rate compiled in": ("one_trace_serves_all", drop(
        change=lambda c, x, m: jnp.where(m, x, 0), config=STATIC)),
    "Python's random numbers": ("deterministic", other(gain, python_random)),
    "the time": ("deterministic", other(gain, timed)),
    "draw not used": ("draw_matters", other(gain, lambda c, x, p: jnp.clip(x * 1.1, 0, 1))),
    "integer overflow": (REFERENCE, other(gain, wraps, **BRIGHT)),
    "truncates": (REFERENCE, other(gain, truncates, **BRIGHT)),
    "flips the other axis": (REFERENCE, other(
        coin, lambda c, x, p: jnp.where(p["flip"], x[::-1], x), reference=flip_reference)),
    "flips another field": ("other_fields_stay", other(coin, flip_both, DEPTH)),
    "crop of one size": ("structure_kept", other(crop_draw, crop)),
    "eager unlike jit": ("transformations_agree", other(gain, lambda c, x, p: (
        x * (1.0 if isinstance(x, jax.core.Tracer) else 1.01) * p["gain"]))),
}
# fmt: on
