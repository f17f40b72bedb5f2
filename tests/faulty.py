"""Transforms with one fault each, to see that it is caught: a sound one, with a part replaced."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

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
    return jnp.where(scale < 0, image * scale, select(config, image, mask))


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


@filled
def pools(config, image, mask):
    return select(config, image, mask)[..., :1]


def adds_a_field(config, data, state, metadata, random_params=None, stats=None):
    out, state, metadata = sound_apply(config, data, state, metadata, random_params, stats)
    return {**out, "mask": random_params["keep_mask"]}, state, metadata


# Faults of drawing that only some keys, shapes or batches show.


def with_key_words(change):
    """Draws soundly, from a part of each key."""

    def draw(config, keys, data_shapes):
        words = change(jax.random.key_data(keys))
        return sound_draw(config, jax.random.wrap_key_data(words, impl="threefry2x32"), data_shapes)

    return draw


uses_half_of_its_key = with_key_words(lambda words: words.at[:, 0].set(0))
uses_the_other_half = with_key_words(lambda words: words.at[:, 1].set(0))
ignores_a_bit_of_its_key = with_key_words(lambda words: words | np.uint32(1 << 30))


@each
def one_mask_for_each_column(config, key, shape):
    return jnp.broadcast_to(sound_mask(config, key, (1, *shape[1:])), shape)


@each
def one_mask_for_each_row(config, key, shape):
    if len(shape) < 2:
        return sound_mask(config, key, shape)
    return jnp.broadcast_to(sound_mask(config, key, (shape[0], 1, *shape[2:])), shape)


@each
def one_mask_for_all_channels(config, key, shape):
    return jnp.broadcast_to(sound_mask(config, key, (*shape[:-1], 1)), shape)


def lowered(is_wrong):
    """Drops a tenth less for some shapes of a batch, and soundly for the others."""

    def draw(config, keys, data_shapes):
        rate = jnp.asarray(config.rate, jnp.float32)
        if is_wrong(len(keys), data_shapes["image"][1:]):
            rate = jnp.where(rate < 1, rate * 0.9, rate)
        return sound_draw(config.replace(rate=rate), keys, data_shapes)

    return draw


right_for_three_channels = lowered(lambda size, shape: len(shape) > 2 and shape[-1] != 3)
wrong_for_one_channel = lowered(lambda size, shape: len(shape) > 2 and shape[-1] == 1)
wrong_for_five_channels = lowered(lambda size, shape: len(shape) > 2 and shape[-1] == 5)
biased_for_large_batches = lowered(lambda size, shape: size > 7)
biased_for_odd_sizes = lowered(lambda size, shape: any(side > 5 and side % 2 for side in shape[:2]))
biased_for_even_sizes = lowered(lambda size, shape: any(side % 2 == 0 for side in shape[:2]))
biased_for_high_rates = each(
    lambda config, key, shape: (
        jax.random.uniform(key, shape)
        >= jnp.where((config.rate > 0.8) & (config.rate < 1), 0.8, config.rate)
    )
)


# Faults of applying that only some values, dtypes or fields show.


@filled
def does_not_read_its_mask(config, image, mask):
    return jnp.nan_to_num(image)


@filled
def drops_all(config, image, mask):
    return jnp.zeros_like(image)


@filled
def halves_dropped_values(config, image, mask):
    return jnp.where(mask, image, (image * np.asarray(0.5).astype(image.dtype)))


@filled
def fills_with_the_mean(config, image, mask):
    mean = jnp.nanmean(image.astype(jnp.float32)).astype(image.dtype)
    return jnp.where(mask, image, mean)


@filled
def fills_with_the_channel_mean(config, image, mask):
    wide = jnp.where(jnp.isfinite(image), image, zero(image)).astype(jnp.float32)
    mean = wide.mean(axis=(0, 1), keepdims=True).astype(image.dtype)
    return jnp.where(mask, image, mean)


@filled
def fills_with_the_neighbor(config, image, mask):
    return jnp.where(mask, image, jnp.roll(image, 1, 0))


@filled
def fills_with_the_sign(config, image, mask):
    return jnp.where(mask, image, jnp.where(image < zero(image), zero(image), zero(image) + 1))


def when_something_drops(change):
    """Changes kept values of records of which something drops."""

    def apply(config, image, mask):
        return jnp.where(mask.all(), image, jnp.where(mask, change(image), zero(image)))

    return filled(apply)


negates = when_something_drops(lambda image: image if image.dtype == bool else -image)
scales = when_something_drops(
    lambda image: (image * jnp.asarray(1.001, image.dtype)).astype(image.dtype)
)
clips = when_something_drops(
    lambda image: image if image.dtype == bool else jnp.clip(image, max(-9, least(image)), 100)
)
rounds_through_float32 = when_something_drops(
    lambda image: image.astype(jnp.float32).astype(image.dtype)
)
rounds_through_bfloat16 = when_something_drops(
    lambda image: image.astype(jnp.bfloat16).astype(image.dtype)
)
replaces_nan = when_something_drops(
    lambda image: jnp.nan_to_num(image, posinf=np.inf, neginf=-np.inf)
)
rescales_unasked = when_something_drops(
    lambda image: image * jnp.asarray(1.25, image.dtype) if is_float(image) else image
)


def is_float(image):
    return jnp.issubdtype(image.dtype, jnp.floating)


def least(image):
    return 0 if jnp.issubdtype(image.dtype, jnp.unsignedinteger) else -9


def beside(change):
    """Applies soundly, and changes what comes back beside the image.

    `change(image, mask, label, seen)` returns a label and a state's "seen".
    """

    def apply(config, data, state, metadata, random_params=None, stats=None):
        image, mask = jnp.asarray(data["image"]), random_params["keep_mask"]
        out, state, metadata = sound_apply(config, data, state, metadata, random_params, stats)
        label, seen = change(image.astype(jnp.float32), mask, data["label"], state["seen"])
        label = label.astype(data["label"].dtype)
        return {**out, "label": label}, {**state, "seen": seen.astype(jnp.uint32)}, metadata

    return apply


leaks_into_the_label = beside(
    lambda image, mask, label, seen: (
        label + jnp.where(mask, False, jnp.abs(image) < 1).sum(),
        seen,
    )
)
drops_the_label = beside(
    lambda image, mask, label, seen: (jnp.where(mask.mean() < 0.6, -1, label), seen)
)
labels_by_the_image = beside(
    lambda image, mask, label, seen: (jnp.where(jnp.abs(image).sum() > -1, label + 1, label), seen)
)
keeps_dropped_values_in_its_state = beside(
    lambda image, mask, label, seen: (label, (jnp.where(mask, False, jnp.abs(image) < 1)).sum())
)
keeps_the_image_in_its_state = beside(
    lambda image, mask, label, seen: (label, jnp.where(mask, jnp.abs(image) < 1, False).sum())
)
keeps_the_mask_in_its_state = beside(lambda image, mask, label, seen: (label, mask.sum()))


LEFT_UNDER = "nothing_is_left_under_a_dropped_value"
FRACTION = "dropped_fraction_is_the_rate"
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
    "drops more than it says": (sound_draw, drops_more_than_it_says, "kept_values_stay"),
    "ignores target_key": (sound_draw, ignores_target_key, "target_key_is_honored"),
    "overwrites field_key": (sound_draw, overwrites_field_key, "target_key_is_honored"),
    "biased": (biased, sound_apply, "dropped_fraction_is_the_rate"),
    "correlates channels": (correlates_channels, sound_apply, "values_are_uncorrelated"),
    "ignores the first word of its key": (uses_half_of_its_key, sound_apply, "keys_matter"),
    "ignores the last word of its key": (uses_the_other_half, sound_apply, "keys_matter"),
    "ignores a bit of its key": (ignores_a_bit_of_its_key, sound_apply, "keys_matter"),
    "biased for large batches": (
        biased_for_large_batches,
        sound_apply,
        "record_depends_on_its_key_alone",
    ),
    "does not read its mask": (sound_draw, does_not_read_its_mask, LEFT_UNDER),
    "halves dropped values": (sound_draw, halves_dropped_values, LEFT_UNDER),
    "fills with the mean": (sound_draw, fills_with_the_mean, LEFT_UNDER),
    "fills with the neighbor": (sound_draw, fills_with_the_neighbor, LEFT_UNDER),
    "fills with the sign": (sound_draw, fills_with_the_sign, LEFT_UNDER),
    "leaks into the label": (sound_draw, leaks_into_the_label, LEFT_UNDER),
    "keeps dropped values in its state": (
        sound_draw,
        keeps_dropped_values_in_its_state,
        LEFT_UNDER,
    ),
    "drops all": (sound_draw, drops_all, "kept_values_stay"),
    "negates": (sound_draw, negates, "kept_values_stay"),
    "scales": (sound_draw, scales, "kept_values_stay"),
    "clips": (sound_draw, clips, "kept_values_stay"),
    "rounds through float32": (sound_draw, rounds_through_float32, "kept_values_stay"),
    "rounds through bfloat16": (sound_draw, rounds_through_bfloat16, "kept_values_stay"),
    "replaces NaN": (sound_draw, replaces_nan, "kept_values_stay"),
    "rescales unasked": (sound_draw, rescales_unasked, "kept_values_stay"),
    "drops the label": (sound_draw, drops_the_label, "other_fields_stay"),
    "labels by the image": (sound_draw, labels_by_the_image, "other_fields_stay"),
    "keeps the image in its state": (
        sound_draw,
        keeps_the_image_in_its_state,
        "state_is_independent",
    ),
    "keeps the mask in its state": (
        sound_draw,
        keeps_the_mask_in_its_state,
        "state_is_independent",
    ),
    "right for three channels": (right_for_three_channels, sound_apply, FRACTION),
    "wrong for one channel": (wrong_for_one_channel, sound_apply, FRACTION),
    "wrong for five channels": (wrong_for_five_channels, sound_apply, FRACTION),
    "biased for odd sizes": (biased_for_odd_sizes, sound_apply, FRACTION),
    "biased for even sizes": (biased_for_even_sizes, sound_apply, FRACTION),
    "biased for high rates": (biased_for_high_rates, sound_apply, FRACTION),
    "one mask for all channels": (
        one_mask_for_all_channels,
        sound_apply,
        "values_are_uncorrelated",
    ),
    "one mask for each column": (
        one_mask_for_each_column,
        sound_apply,
        "mask_is_drawn_along_each_axis",
    ),
    "one mask for each row": (one_mask_for_each_row, sound_apply, "mask_is_drawn_along_each_axis"),
}
