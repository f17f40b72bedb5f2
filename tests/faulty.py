"""Transforms with one fault each, to see that it is caught: a sound one, with a part replaced."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from dropax import ModalityOperatorConfig


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class DropConfig(ModalityOperatorConfig):
    """The config of somebody's own dropout."""

    rate: Any = 0.4
    dynamic_fields: ClassVar[tuple[str, ...]] = ("rate",)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StaticConfig(ModalityOperatorConfig):
    """The same, with a rate that is compiled in."""

    rate: Any = 0.4


def each(draw_one):
    """Draws a mask for each key alone, as one should."""

    def draw(config, keys, data_shapes):
        shape = data_shapes["image"][1:]
        return {"keep_mask": jax.vmap(lambda key: draw_one(config, key, shape))(keys)}

    return draw


def sound_mask(config, key, shape):
    return jax.random.uniform(key, shape) >= config.rate


sound_draw = each(sound_mask)


def filled(select):
    """Works on the config's field, and puts the result where the config says."""

    def apply(config, data, state, metadata, random_params=None, stats=None):
        image = jnp.asarray(data["image"])
        result = select(config, image, random_params["keep_mask"])
        target = config.target_key or "image"
        if "." in target:
            outer, inner = target.split(".")
            return {**data, outer: {inner: result}}, state, metadata
        return {**data, target: result}, state, metadata

    return apply


def zero(image):
    return jnp.zeros((), image.dtype)


def select(config, image, mask):
    return jnp.where(mask, image, zero(image))


sound_apply = filled(select)


# Faults of drawing.


def reuses_a_key(config, keys, data_shapes):
    mask = sound_mask(config, keys[0], data_shapes["image"][1:])
    return {"keep_mask": jnp.broadcast_to(mask, data_shapes["image"])}


def depends_on_position(config, keys, data_shapes):
    at = jnp.arange(len(keys), dtype=jnp.uint32)
    return sound_draw(config, jax.vmap(jax.random.fold_in)(keys, at), data_shapes)


def ignores_its_keys(config, keys, data_shapes):
    same = jnp.zeros(len(keys), jnp.uint32)
    return sound_draw(config, jax.vmap(jax.random.key)(same), data_shapes)


CALLS = [0]


def keeps_a_count(config, keys, data_shapes):
    CALLS[0] += 1
    later = jax.vmap(lambda key: jax.random.fold_in(key, CALLS[0]))(keys)
    return sound_draw(config, later, data_shapes)


@each
def biased(config, key, shape):
    # Exact at rates 0 and 1, and off by 1 % of the rate's own size between.
    rate = jnp.asarray(config.rate, jnp.float32)
    return jax.random.uniform(key, shape) >= jnp.where(rate < 1, 1.01 * rate, rate)


@each
def correlates_channels(config, key, shape):
    # Each channel drops at its rate, in one place of four where the first one does.
    own, shared = jax.random.split(key)
    uniform = jax.random.uniform(own, shape)
    follows = jax.random.bernoulli(shared, 0.25, shape[:-1])[..., None]
    return jnp.where(follows, uniform[..., :1], uniform) >= config.rate


@each
def drops_at_rate_0(config, key, shape):
    return jax.random.uniform(key, shape) >= jnp.maximum(config.rate, 1e-3)


@each
def keeps_at_rate_1(config, key, shape):
    return jax.random.uniform(key, shape) >= jnp.minimum(config.rate, 1 - 1e-3)


# Faults of applying.


@filled
def multiplies(config, image, mask):
    return image * mask.astype(image.dtype)


@filled
def promotes(config, image, mask):
    if jnp.issubdtype(image.dtype, jnp.integer):
        image = image.astype(jnp.float32)
    return jnp.where(mask, image, zero(image))


@filled
def divides_by_zero(config, image, mask):
    if not jnp.issubdtype(image.dtype, jnp.floating):
        return select(config, image, mask)
    # The value is selected away, but not its derivative: 0 * inf.
    scale = 1 / (1 - jnp.asarray(config.rate, image.dtype))
    return jnp.where(mask & (scale < jnp.inf), image * scale, zero(image))


LEAKED: list[Any] = []


@filled
def leaks(config, image, mask):
    LEAKED.append(image)
    return select(config, image, mask)


@filled
def leaves_images_alone(config, image, mask):
    return jnp.where(jnp.asarray(config.rate) >= 1, image, select(config, image, mask))


@filled
def drops_more_than_it_says(config, image, mask):
    return select(config, image, mask & jnp.roll(mask, 1, 0))


@filled
def branches_on_values(config, image, mask):
    return select(config, image, mask) if mask.any() else image


@filled
def reads_the_rate(config, image, mask):
    return image if float(config.rate) == 0 else select(config, image, mask)


def mutates_its_dict(config, data, state, metadata, random_params=None, stats=None):
    out, state, metadata = sound_apply(config, data, state, metadata, random_params, stats)
    data["image"] = out["image"]
    return data, state, metadata


def mutates_its_array(config, data, state, metadata, random_params=None, stats=None):
    out = sound_apply(config, data, state, metadata, random_params, stats)
    if not isinstance(data["image"], jax.Array):
        data["image"][...] = 0
    return out


def ignores_target_key(config, data, state, metadata, random_params=None, stats=None):
    config = config.replace(target_key=None)
    return sound_apply(config, data, state, metadata, random_params, stats)


def overwrites_field_key(config, data, state, metadata, random_params=None, stats=None):
    out, state, metadata = sound_apply(config, data, state, metadata, random_params, stats)
    result = select(config, jnp.asarray(data["image"]), random_params["keep_mask"])
    return {**out, "image": result}, state, metadata


def loses_a_field(config, data, state, metadata, random_params=None, stats=None):
    out, state, metadata = sound_apply(config, data, state, metadata, random_params, stats)
    return {name: out[name] for name in out if name != "label"}, state, metadata


def spoils_the_shapes(config, keys, data_shapes):
    shape = data_shapes.pop("image")[1:]
    return sound_draw(config, keys, {"image": (len(keys), *shape)})


def pools(config, data, state, metadata, random_params=None, stats=None):
    out, state, metadata = sound_apply(config, data, state, metadata, random_params, stats)
    return {**out, "image": out["image"][..., :1]}, state, metadata


def adds_a_field(config, data, state, metadata, random_params=None, stats=None):
    out, state, metadata = sound_apply(config, data, state, metadata, random_params, stats)
    return {**out, "mask": random_params["keep_mask"]}, state, metadata


# The property that each one lacks, and nothing that comes before it.
FAULTS = {
    "mutates its dict": (sound_draw, mutates_its_dict, "input_untouched"),
    "mutates its array": (sound_draw, mutates_its_array, "input_untouched"),
    "spoils the shapes": (spoils_the_shapes, sound_apply, "input_untouched"),
    "loses channels": (sound_draw, pools, "dtype_and_structure_kept"),
    "promotes uint8": (sound_draw, promotes, "dtype_and_structure_kept"),
    "loses a field": (sound_draw, loses_a_field, "dtype_and_structure_kept"),
    "adds a field": (sound_draw, adds_a_field, "dtype_and_structure_kept"),
    "leaks a tracer": (sound_draw, leaks, "no_tracer_leaks"),
    "reuses a key": (reuses_a_key, sound_apply, "record_depends_on_its_key_alone"),
    "depends on position": (depends_on_position, sound_apply, "record_depends_on_its_key_alone"),
    "keeps a count": (keeps_a_count, sound_apply, "deterministic"),
    "ignores its keys": (ignores_its_keys, sound_apply, "keys_matter"),
    "branches on values": (sound_draw, branches_on_values, "transformations_agree"),
    "multiplies": (sound_draw, multiplies, "nothing_is_left_under_a_dropped_value"),
    "drops at rate 0": (drops_at_rate_0, sound_apply, "rate_0_keeps_all"),
    "keeps at rate 1": (keeps_at_rate_1, sound_apply, "rate_1_drops_all"),
    "leaves images alone": (sound_draw, leaves_images_alone, "rate_1_drops_all"),
    "divides by zero": (sound_draw, divides_by_zero, "gradient_is_finite"),
    "drops more than it says": (sound_draw, drops_more_than_it_says, "kept_values_are_used"),
    "ignores target_key": (sound_draw, ignores_target_key, "target_key_is_honoured"),
    "overwrites field_key": (sound_draw, overwrites_field_key, "target_key_is_honoured"),
    "biased": (biased, sound_apply, "dropped_fraction_is_the_rate"),
    "correlates channels": (correlates_channels, sound_apply, "channels_are_uncorrelated"),
}
