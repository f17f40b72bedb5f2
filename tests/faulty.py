"""Transforms as people write them: right ones, and others with one fault each."""

import dataclasses
import inspect
import random
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dropax import Batch, ModalityOperatorConfig, OperatorConfig


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Config(OperatorConfig):
    """The config of somebody's own transform."""

    rate: Any = 0.4
    dynamic_fields: ClassVar[tuple[str, ...]] = ("rate",)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DropConfig(ModalityOperatorConfig):
    """The config of somebody's own dropout."""

    rate: Any = 0.4
    fill: Any = 0.0
    dynamic_fields: ClassVar[tuple[str, ...]] = ("rate",)


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


def each(draw_one):
    """Draws for each key alone, as one should."""

    def draw(config, keys, data_shapes):
        drawn = jax.vmap(lambda key: draw_one(config, key, data_shapes["image"][1:]))(keys)
        return drawn if isinstance(drawn, dict) else {"keep_mask": drawn}

    return draw


def filled(change):
    """Writes `change(config, image, mask or params)` to where the config says."""

    def apply(config, data, state, metadata, random_params=None, stats=None):
        key = getattr(config, "field_key", "image")
        result = change(
            config, jnp.asarray(data[key]), random_params.get("keep_mask", random_params)
        )
        return {**data, getattr(config, "target_key", None) or key: result}, state, metadata

    return apply


def uniform_mask(config, key, shape):
    return jax.random.uniform(key, shape) >= config.rate


def select(config, image, mask):
    return jnp.where(mask, image, jnp.asarray(config.fill).astype(image.dtype))


sound_draw, sound_apply = each(uniform_mask), filled(select)


def case(draw_one, change, config, options):
    """A case; either function may be of one record or of the image, or what a user would pass."""
    of_batch = "data_shapes" in inspect.signature(draw_one).parameters
    is_apply = "metadata" in inspect.signature(change).parameters
    draw = draw_one if of_batch else each(draw_one)
    return Case(draw, change if is_apply else filled(change), options, config)


def drop(draw_one=uniform_mask, change=select, config=DROP, batch=RGB, **options):
    """A case of dropout, with a part replaced."""
    return case(draw_one, change, config, {"batch": batch, "rate_field": "rate", **options})


def other(draw_one, change, batch=RGB, config=Config(stochastic=True), **options):
    """A case of a transform that drops nothing."""
    return case(draw_one, change, config, {"batch": batch, "field": "image", **options})


def at(rate_to):
    return lambda config, key, shape: jax.random.uniform(key, shape) >= rate_to(config.rate)


# Cutouts.


def corners(config, key, shape, size=3, *, end=1, keys=jax.random.split):
    one, two = keys(key)
    top = jax.random.randint(one, (), 0, shape[0] - size + end)
    left = jax.random.randint(two, (), 0, shape[1] - size + end)
    return {"top": top, "bottom": top + size, "left": left, "right": left + size}


def corner_mask(config, params, shape=(9, 7)):
    rows, columns = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])[None]
    inside = (rows >= params["top"]) & (rows < params["bottom"])
    return ~(inside & (columns >= params["left"]) & (columns < params["right"]))


def square(config, key, shape, size=3, **options):
    return corner_mask(config, corners(config, key, shape, size, **options), shape)[..., None]


def erase_draw(config, key, shape):
    mask = square(config, key, shape)
    return {"keep_mask": mask, "weight": mask.mean(dtype=jnp.float32)}


def erase(config, data, state, metadata, random_params=None, stats=None):
    out, state, metadata = sound_apply(config, data, state, metadata, random_params)
    return {**out, "soft": data["soft"] * random_params["weight"]}, state, metadata


# Dropout of channels and values.


def keep_one(config, key, shape):
    uniform = jax.random.uniform(key, shape[-1:])
    return (uniform >= config.rate) | (uniform == uniform.max())


def inverted(config, image, mask):
    kept = 1 - jnp.asarray(config.rate, image.dtype)
    return select(config, image / jnp.where(kept > 0, kept, 1), mask)


def inverted_value(config, image, params):
    kept = np.float32(1) - np.float32(config.rate)
    return image / (kept if kept > 0 else 1)


def pixel_mask(config, key, shape):
    return uniform_mask(config, key, (*shape[:2], 1))


def token_mask(config, key, shape):
    return jnp.broadcast_to(uniform_mask(config, key, (shape[0], 1)), shape)


def with_depth(change):
    """Drops from the image and from its depth map, by masks that `change` may confuse."""

    def apply(config, data, state, metadata, random_params=None, stats=None):
        out, state, metadata = sound_apply(config, data, state, metadata, random_params)
        return {**out, "depth": jnp.where(change(random_params), out["depth"], 0)}, state, metadata

    return apply


# Colors and places.


def gain(config, key, shape):
    return {"gain": jax.random.uniform(key, (), minval=0.5, maxval=1.5)}


def brighten(config, image, params):
    return jnp.clip(image * params["gain"], 0, 1)


def brighten_bytes(config, image, params):
    wide = image.astype(jnp.float32) * params["gain"]
    return jnp.clip(jnp.round(wide), 0, 255).astype(image.dtype)


def brightened(config, data, params):
    return np.clip(np.round(data["image"].astype(np.float64) * params["gain"]), 0, 255)


def contrast(config, image, params):
    mean = image.mean(axis=(0, 1), keepdims=True)
    return jnp.clip((image - mean) * params["gain"] + mean, 0, 1)


def hue(config, image, params):
    to_yiq = jnp.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
    cos, sin = jnp.cos(params["gain"] * 6), jnp.sin(params["gain"] * 6)
    turn = jnp.eye(3).at[1:, 1:].set(jnp.array([[cos, -sin], [sin, cos]]))
    return jnp.clip(image @ (jnp.linalg.inv(to_yiq) @ turn @ to_yiq).T, 0, 1)


def jitter_draw(config, key, shape):
    one, two, three = jax.random.split(key, 3)
    shift = jax.random.uniform(two, (), minval=-0.2, maxval=0.2)
    return {**gain(config, one, shape), "shift": shift, "order": jax.random.permutation(three, 2)}


def jitter(config, image, params):
    steps = [lambda x: brighten(config, x, params), lambda x: jnp.clip(x + params["shift"], 0, 1)]
    for at in range(2):
        image = jax.lax.switch(params["order"][at], steps, image)
    return image


def coin(config, key, shape):
    return {"flip": jax.random.bernoulli(key, config.rate)}


def flip(config, image, params):
    return jnp.where(params["flip"], image[:, ::-1], image)


def flip_reference(config, data, params):
    return data["image"][:, ::-1] if params["flip"] else data["image"]


def flip_both(config, data, state, metadata, random_params=None, stats=None):
    turned = {name: flip(config, data[name], random_params) for name in ("image", "depth")}
    return {**data, **turned}, state, metadata


def pair_draw(config, key, shape):
    return {**gain(config, key, shape), **coin(config, jax.random.fold_in(key, 1), shape)}


def crop(config, image, params):
    start = (params["top"], params["left"], 0)
    return jax.lax.dynamic_slice(image, start, (5, 5, image.shape[2]))


def resized_crop(config, image, params):
    return jax.image.resize(crop(config, image, params), image.shape, "bilinear")


def blur(config, image, params):
    kernel = jnp.exp(-0.5 * (jnp.arange(-2, 3) / params["gain"]) ** 2)
    kernel = (kernel[:, None] * kernel[None])[..., None, None] / kernel.sum() ** 2
    planes = jax.lax.conv(
        image.transpose(2, 0, 1)[:, None], kernel.transpose(2, 3, 0, 1), (1, 1), "SAME"
    )
    return planes[:, 0].transpose(1, 2, 0)


def rotate(config, image, params):
    cos, sin = jnp.cos(params["gain"] - 1), jnp.sin(params["gain"] - 1)
    rows, columns = jnp.meshgrid(
        jnp.arange(image.shape[0]), jnp.arange(image.shape[1]), indexing="ij"
    )
    at = [rows * cos - columns * sin, rows * sin + columns * cos]
    return jax.vmap(lambda plane: jax.scipy.ndimage.map_coordinates(plane, at, order=1), -1, -1)(
        image
    )


def threshold(config, key, shape):
    return {"threshold": jax.random.randint(key, (), 64, 192).astype(jnp.uint8)}


def nothing(config, key, shape):
    return {}


# One row a case.
# fmt: off
SQUARES = {"expected_fraction": lambda c, s: 9 / (s[0] * s[1]), "rate_field": "none"}
CORNERS = {"keep_mask": corner_mask, **SQUARES}
DEPTH = {**RGB, "depth": images(5, 9, 7, 1)}
DEPTHS = {"config": DROP.replace(auxiliary_fields=["depth"]), "batch": DEPTH}
SOFT = {**RGB, "soft": np.eye(5, dtype=np.float32)}
PLAIN = DROP.replace(fill=None)
FREE = {"independent": True}
CROP = {"output_spec": lambda spec: jax.ShapeDtypeStruct((5, 5, spec.shape[2]), spec.dtype)}
CAST = {"output_spec": lambda spec: jax.ShapeDtypeStruct(spec.shape, jnp.float32)}
HALVES = {"kept_value": inverted_value, **FREE}

RIGHT = {
    "dropout": drop(**FREE),
    "dropout of bytes": drop(batch=BYTES, config=DROP.replace(fill=7.0), **FREE),
    "dropout to a target": drop(config=DROP.replace(target_key="out"), **FREE),
    "inverted dropout": drop(change=inverted, **HALVES),
    "rate 0": drop(config=DROP.replace(rate=0.0), **FREE),
    "cutout": drop(square, **SQUARES),
    "cutout of full shape": drop(
        lambda c, k, s: jnp.broadcast_to(square(c, k, s), s), **SQUARES),
    "cutout of two axes": other(
        corners, lambda c, x, p: jnp.where(corner_mask(c, p)[..., None], x, 0), **CORNERS),
    "cutout of the mean": drop(
        square, lambda c, x, m: jnp.where(m, x, jax.lax.stop_gradient(x.mean(axis=(0, 1)))),
        config=PLAIN, fill_reads="statistics", **SQUARES),
    "erasing with soft labels": drop(erase_draw, erase, batch=SOFT, new_fields=["soft"], **SQUARES),
    "channel dropout that keeps one": drop(
        keep_one, expected_fraction=lambda c, s: c.rate - c.rate ** s[-1] / s[-1]),
    "drop path": drop(lambda c, k, s: uniform_mask(c, k, (1,) * len(s))),
    "token masking": drop(token_mask, batch={"image": images(4, 12, 8)}),
    "several fields": drop(pixel_mask, with_depth(lambda p: p["keep_mask"]), **DEPTHS, **FREE),
    "flip": other(coin, flip, reference=flip_reference),
    "flip of bytes": other(coin, flip, BYTES),
    "flip never": other(coin, flip, config=Config(stochastic=True, rate=0.0)),
    "flip of image and depth": other(coin, flip_both, DEPTH, new_fields=["depth"]),
    "flip and gain": other(pair_draw, lambda c, x, p: brighten(c, flip(c, x, p), p)),
    "crop": other(corners, crop, **CROP),
    "resized crop": other(corners, resized_crop),
    "brightness": other(gain, brighten),
    "brightness of bytes": other(gain, brighten_bytes, BYTES, reference=brightened),
    "contrast": other(gain, contrast),
    "blur": other(gain, blur),
    "noise": other(lambda c, k, s: {"noise": jax.random.normal(k, s)},
                   lambda c, x, p: x + 0.3 * p["noise"]),
    "rotation": other(gain, rotate),
    "hue": other(gain, hue),
    "jitter in random order": other(jitter_draw, jitter),
    "posterize": other(nothing, lambda c, x, p: x & np.uint8(0xF0), BYTES),
    "solarize": other(threshold, lambda c, x, p: jnp.where(x < p["threshold"], x, 255 - x), BYTES),
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


def words(change):
    """Draws soundly, from a part of each key."""

    def draw(config, keys, data_shapes):
        part = change(jax.random.key_data(keys))
        return sound_draw(config, jax.random.wrap_key_data(part, impl="threefry2x32"), data_shapes)

    return draw


def numpy_noise(config, keys, data_shapes):
    return {"keep_mask": jnp.asarray(np.random.rand(*data_shapes["image"]) >= 0.4)}


def halves(config, key, shape, axis, mirror=False):
    size = [-(-size // 2) if at == axis else size for at, size in enumerate(shape)]
    half = uniform_mask(config, key, size)
    both = jnp.concatenate([half, jnp.flip(half, axis) if mirror else half], axis)
    return jax.lax.slice_in_dim(both, 0, shape[axis], axis=axis)


def neighbors(config, key, shape):
    uniform = jax.random.uniform(key, shape)
    one = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.3, shape)
    return jnp.where(one, jnp.roll(uniform, 1, 1), uniform) >= config.rate


def two_gains(config, key, shape):
    shift = jax.random.uniform(key, (), minval=-0.2, maxval=0.2)
    return {**gain(config, key, shape), "shift": shift}


def folded_twice(config, key, shape):
    one, two = jax.random.fold_in(key, 1), jax.random.fold_in(key, 1)
    return {**gain(config, one, shape), **coin(config, two, shape)}


def beside(**changes):
    """Applies soundly, and changes what comes back beside the image."""

    def apply(config, data, state, metadata, random_params=None, stats=None):
        out, state, metadata = sound_apply(config, data, state, metadata, random_params)
        given = {**out, "state": state, "metadata": metadata}
        given |= {
            name: change(data, random_params["keep_mask"]) for name, change in changes.items()
        }
        state, metadata = given.pop("state"), given.pop("metadata")
        return {name: value for name, value in given.items() if value is not None}, state, metadata

    return apply


def mutated(config, data, state, metadata, random_params=None, stats=None):
    out = sound_apply(config, data, state, metadata, random_params)
    if isinstance(data["image"], np.ndarray):
        data["image"][...] = 0
    return out


LEAKED: list[Any] = []


def leaks(config, image, mask):
    LEAKED.append(image)
    return select(config, image, mask)


def divides_by_zero(config, image, mask):
    scale = 1 / (1 - jnp.asarray(config.rate, image.dtype))
    return jnp.where(scale < 0, image * scale, select(config, image, mask))


# One row a case: what it lacks, and the case.
# fmt: off
FILLED = {"config": DROP.replace(fill=0.5)}
HOLES = {"image": np.where(RGB["image"] < 0.3, np.nan, RGB["image"])}
BRIGHT = {"batch": BYTES, "reference": brightened}
RECORD, DRAWS, MASKS = "record_depends_on_its_key_alone", "draws_matter", "masks_are_random"
RESULT, GRADIENT = "result_is_as_the_reference", "gradient_is_that_of_the_reference"
CALLS, FIELDS, TRACES = "calls_agree", "other_fields_stay", "traces_leave_nothing_behind"


class StaticConfig(DropConfig):
    """A rate that is compiled in."""

    dynamic_fields: ClassVar[tuple[str, ...]] = ()


WRONG = {
    "one mask for all": (RECORD, drop(same_for_all)),
    "depends on position": (RECORD, drop(by_position)),
    "only 256 records": (RECORD, drop(words(
        lambda w: w[jnp.minimum(jnp.arange(len(w)), 255)]))),
    "constant key": (RECORD, drop(lambda c, keys, data_shapes: sound_draw(
        c, jax.random.split(jax.random.key(0), len(keys)), data_shapes))),
    "low word of the key": (DRAWS, drop(words(lambda w: w.at[:, 0].set(0)))),
    "words of the key combined": (DRAWS, drop(words(
        lambda w: jnp.stack([0 * w[:, 0], w[:, 0] ^ w[:, 1]], axis=1)))),
    "a bit of the key": (DRAWS, drop(words(lambda w: w | np.uint32(1 << 30)))),
    "folded twice": (DRAWS, other(folded_twice, lambda c, x, p: flip(c, x * p["gain"], p))),
    "draw not used": (DRAWS, other(gain, lambda c, x, p: jnp.clip(x * 1.1, 0, 1))),
    "key used twice": ("keys_are_used_once", other(
        two_gains, lambda c, x, p: jnp.clip(x * p["gain"] + p["shift"], 0, 1))),
    "NumPy's random numbers": (CALLS, drop(numpy_noise)),
    "Python's random numbers": (CALLS, other(
        gain, lambda c, x, p: x * p["gain"] + random.random())),
    "metadata dropped": (CALLS, drop(change=beside(metadata=lambda d, m: None))),
    "mutates its array": (CALLS, drop(change=mutated)),
    "eager unlike jit": (CALLS, other(gain, lambda c, x, p: (
        x * (1.0 if isinstance(x, jax.core.Tracer) else 1.01) * p["gain"]))),
    "256 masks": (MASKS, drop(lambda c, k, s: uniform_mask(
        c, jax.random.key(jax.random.bits(k) % 256), s), **FREE)),
    "halves repeat": (MASKS, drop(lambda c, k, s: halves(c, k, s, 0), **FREE)),
    "mirrored": (MASKS, drop(lambda c, k, s: halves(c, k, s, 1, True), **FREE)),
    "neighbors": (MASKS, drop(neighbors, **FREE)),
    "one mask for channels": (MASKS, drop(
        lambda c, k, s: jnp.broadcast_to(pixel_mask(c, k, s), s), **FREE)),
    "last column never": (MASKS, drop(lambda c, k, s: uniform_mask(c, k, s).at[:, -1].set(True))),
    "box on the diagonal": (MASKS, drop(lambda c, k, s: square(
        c, k, s, keys=lambda key: (key, jax.random.clone(key))), batch=SQUARE, **SQUARES)),
    "box misses the border": (MASKS, drop(lambda c, k, s: square(c, k, s, end=0), **SQUARES)),
    "box too large": (MASKS, drop(lambda c, k, s: square(c, k, s, 4), **SQUARES)),
    "kept fraction": (MASKS, drop(lambda c, k, s: jax.random.uniform(k, s) < c.rate)),
    "1 % off": (MASKS, drop(at(lambda r: jnp.where(r < 1, 1.01 * r, r)), **FREE)),
    "right at 0.5": (MASKS, drop(at(lambda r: jnp.sqrt(r / 2)), config=DROP.replace(rate=0.5))),
    "drops at rate 0": (MASKS, drop(at(lambda r: jnp.maximum(r, 1e-3)))),
    "keeps at rate 1": (MASKS, drop(at(lambda r: jnp.minimum(r, 0.999)))),
    "few bits": (MASKS, drop(lambda c, k, s: jax.random.randint(k, s, 0, 256) / 256 > c.rate)),
    "multiplies": (RESULT, drop(change=lambda c, x, m: x * m.astype(x.dtype))),
    "wrong axis": (RESULT, drop(
        pixel_mask, lambda c, x, m: select(c, x, m.transpose(1, 0, 2)), batch=SQUARE)),
    "off by one": (RESULT, drop(change=lambda c, x, m: select(c, x, jnp.roll(m, 1, 0)))),
    "scaled fill": (RESULT, drop(change=lambda c, x, m: select(c, x, m) / (1 - c.rate), **HALVES)),
    "fill ignored": (RESULT, drop(change=lambda c, x, m: jnp.where(m, x, 0.0), **FILLED)),
    "fill of the neighbor": (RESULT, drop(
        change=lambda c, x, m: jnp.where(m, x, jnp.roll(x, 1, 0)), config=PLAIN)),
    "statistics of the image": (RESULT, drop(
        change=lambda c, x, m: jnp.where(m, x, x / 2), config=PLAIN, fill_reads="statistics")),
    "clip before fill": (RESULT, drop(change=lambda c, x, m: jnp.where(
        m, jnp.clip(x, 0.2, 0.8), 0.0), config=DROP.replace(clip_range=(0.2, 0.8)))),
    "not rescaled": (RESULT, drop(**HALVES)),
    "rescaled unasked": (RESULT, drop(change=lambda c, x, m: jnp.where(m, x * 1.001, 0))),
    "through bfloat16": (RESULT, drop(
        change=lambda c, x, m: select(c, x.astype(jnp.bfloat16).astype(x.dtype), m))),
    "NaN to a number": (RESULT, drop(
        change=lambda c, x, m: select(c, jnp.nan_to_num(x), m), batch=HOLES)),
    "another mask for depth": (RESULT, drop(
        pixel_mask, with_depth(lambda p: ~p["keep_mask"]), **DEPTHS)),
    "forgets depth": (RESULT, drop(pixel_mask, with_depth(lambda p: True), **DEPTHS)),
    "state of the mask": (RESULT, drop(batch=STATES, change=beside(
        state=lambda d, m: {"seen": m.sum(dtype=jnp.uint32)}))),
    "integer overflow": (RESULT, other(
        gain, lambda c, x, p: (x * p["gain"]).astype(jnp.int32).astype(jnp.uint8), **BRIGHT)),
    "truncates": (RESULT, other(
        gain, lambda c, x, p: jnp.clip(x * p["gain"], 0, 255).astype(jnp.uint8), **BRIGHT)),
    "flips the other axis": (RESULT, other(
        coin, lambda c, x, p: jnp.where(p["flip"], x[::-1], x), reference=flip_reference)),
    "gradient through the fill": (GRADIENT, drop(
        change=lambda c, x, m: jnp.where(m, x, x.mean(axis=(0, 1))), config=PLAIN,
        fill_reads="statistics")),
    "divides by zero": (GRADIENT, drop(change=divides_by_zero)),
    "no gradient": (GRADIENT, drop(change=lambda c, x, m: jax.lax.stop_gradient(select(c, x, m)))),
    "target ignored": (FIELDS, drop(change=lambda config, data, state, metadata, params, stats: (
        {**data, "image": select(config, data["image"], params["keep_mask"])}, state, metadata))),
    "promotes": (FIELDS, drop(change=lambda c, x, m: jnp.where(m, x, 0.5), batch=BYTES)),
    "label changed": (FIELDS, drop(change=beside(
        label=lambda d, m: jnp.where(m.mean() < 0.6, -1, d["label"])))),
    "label lost": (FIELDS, drop(change=beside(label=lambda d, m: None))),
    "field added": (FIELDS, drop(change=beside(mask=lambda d, m: m))),
    "branches on values": (FIELDS, drop(
        change=lambda c, x, m: select(c, x, m) if m.any() else x)),
    "flips another field": (FIELDS, other(coin, flip_both, DEPTH)),
    "crop of one size": (FIELDS, other(corners, crop)),
    "leaks": (TRACES, drop(change=leaks)),
    "rate compiled in": (TRACES, drop(
        change=lambda c, x, m: jnp.where(m, x, 0),
        config=StaticConfig(field_key="image", stochastic=True))),
}
# fmt: on
