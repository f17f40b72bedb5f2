"""The check of transforms catches what it should, and passes what is sound."""

import faulty
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cases import config_of, image_of
from dropax import (
    Batch,
    Box,
    DropoutOperator,
    ModalityOperator,
    OperatorConfig,
    apply,
    generate_random_params,
)
from dropax.testing import PropertyError, batches, check_operator, check_transform
from dropax.testing.properties import GENERAL
from dropax.testing.transforms import PROPERTIES


def batch_of(*shape):
    """Images of a shape (B, ...), labels and states."""
    size = shape[0]
    data = {"image": np.asarray(image_of(shape)), "label": np.arange(size, dtype=np.int32)}
    return Batch.from_parts(data, {"seen": np.zeros(size, np.uint32)})


# Most faults show on one batch, whose sides are odd and whose channels are three.
BATCH = batch_of(9, 7, 5, 3)
EVEN = batch_of(2, 4, 6, 5)
SHOWN_BY = {
    "right for three channels": EVEN,
    "wrong for five channels": EVEN,
    "biased for even sizes": EVEN,
    "one mask for each row": batch_of(2, 4, 6, 1),
    "wrong for one channel": batch_of(2, 4, 6, 1),
}
CONFIG = faulty.DropConfig(field_key="image", stochastic=True)


def check(draw, apply, config=CONFIG, **options):
    options = {"batch": BATCH, "rate_field": "rate", **options}
    return check_transform(draw, apply, config, **options)


def test_a_sound_transform_has_every_property():
    held = check(faulty.sound_draw, faulty.sound_apply, max_examples=1)
    assert held == tuple(PROPERTIES)


@pytest.mark.parametrize("name", faulty.FAULTS)
def test_a_fault_is_caught_by_the_property_it_breaks(name):
    draw, apply, lacking = faulty.FAULTS[name]
    with pytest.raises(PropertyError) as caught:
        check(draw, apply, only=[lacking], batch=SHOWN_BY.get(name, BATCH))
    assert caught.value.property == lacking
    message = str(caught.value)
    # One fault raises, which is told first; of the others the property is.
    raises = name == "branches on values"
    begins = "TracerBoolConversionError: " if raises else f"{lacking} does not hold: "
    assert message.startswith(begins)
    advice = "  apply raised this while " if raises else "Look for: "
    for part in ("config: DropConfig(", "'image':", "key: jax.random.key(", advice):
        assert part in message
    assert len(message) < 2000


def test_every_property_is_broken_by_some_fault():
    broken = {lacking for _, _, lacking in faulty.FAULTS.values()}
    assert broken == set(PROPERTIES) - {"one_trace_serves_all"}


def test_a_rate_that_is_compiled_in_is_caught():
    with pytest.raises(PropertyError, match="was traced anew") as caught:
        check(
            faulty.sound_draw,
            faulty.sound_apply,
            faulty.StaticConfig(field_key="image", stochastic=True),
            only=["one_trace_serves_all"],
        )
    assert caught.value.property == "one_trace_serves_all"


def test_a_rate_that_is_read_under_jit_is_caught():
    text = r"^ConcretizationTypeError: .*\n  apply raised this while \w+ was checked\.\n  config:"
    with pytest.raises(PropertyError, match=text) as caught:
        check(faulty.sound_draw, faulty.reads_the_rate)
    assert isinstance(caught.value.__cause__, jax.errors.ConcretizationTypeError)


# Without other fields and states; how far a mask of dropax's own repeats is known.
FOR_MODES = set(PROPERTIES) - {
    "other_fields_stay",
    "state_is_independent",
    "mask_is_drawn_along_each_axis",
}


def test_a_mode_has_every_property_that_makes_sense_for_it():
    batch = {"image": BATCH["image"]}
    held = check_transform(
        generate_random_params, apply, config_of("pixel"), batch=batch, max_examples=1
    )
    assert set(held) == FOR_MODES


VALUE_PROPERTIES = [
    "dtype_and_structure_kept",
    "nothing_is_left_under_a_dropped_value",
    "kept_values_stay",
    "other_fields_stay",
    "state_is_independent",
    "rate_0_keeps_all",
    "rate_1_drops_all",
    "gradient_is_finite",
    "target_key_is_honored",
]


@pytest.mark.parametrize(
    "options",
    [
        {"fill": "mean", "channel_axis": None, "rescale": True},
        {"fill": "noise", "channel_axis": 0, "clip_range": (-2.0, 1.5), "share_mask": True},
        {
            "fill": "stats_mean",
            "precomputed_stats": {"mean": np.float32(0.5)},
            "target_key": "views.dropped",
            "mask_key": "kept",
            "clip_range": (-9, 100),
        },
        {"fill": 0.5, "rescale": True, "dropout_rate": (0.2, 0.8), "apply_probability": 0.5},
        {
            "mode": Box(count=2),
            "rescale": True,
            "auxiliary_fields": ["depth"],
            "auxiliary_fill": -1.0,
        },
        {
            "mode": "channel",
            "batch_strategy": "scan",
            "fill": (1.0, 2.0, 3.0),
            "auxiliary_fields": ["depth"],
            "preserve_auxiliary": False,
        },
    ],
    ids=str,
)
def test_every_option_passes(options):
    config = config_of(**{"mode": "pixel", **options})
    held = check_transform(
        generate_random_params,
        apply,
        config,
        batch=batches(config, kinds=("Batch",), ranks=(3,), special=True),
        only=VALUE_PROPERTIES,
        max_examples=1,
    )
    assert held == tuple(VALUE_PROPERTIES)


def test_a_change_of_kept_values_is_stated():
    @faulty.filled
    def inverted(config, image, mask):
        scale = 1 / jnp.asarray(1 - config.rate, image.dtype)
        return jnp.where(mask, image * scale, faulty.zero(image))

    def check_floats(**options):
        names = ["kept_values_stay"]
        return check(faulty.sound_draw, inverted, only=names, **options)

    with pytest.raises(PropertyError, match=r"kept_values_stay does not hold: .* became .*"):
        check_floats()
    assert check_floats(kept_value=lambda config, image, params: image / (1 - config.rate))


def test_a_fill_computed_from_the_image_is_stated():
    def check_fill(apply, reads):
        names = ["nothing_is_left_under_a_dropped_value"]
        return check(faulty.sound_draw, apply, only=names, fill_reads=reads)

    assert check_fill(faulty.fills_with_the_channel_mean, "statistics")
    assert check_fill(faulty.fills_with_the_neighbor, "image")
    with pytest.raises(PropertyError, match="whose dropped values changed places"):
        check_fill(faulty.halves_dropped_values, "statistics")
    for reads in ("statistics", "image"):
        with pytest.raises(PropertyError, match=r"differ only under what is dropped, the states"):
            check_fill(faulty.keeps_dropped_values_in_its_state, reads)


def test_a_new_field_is_declared():
    names = ["dtype_and_structure_kept", "nothing_is_left_under_a_dropped_value"]
    options = {"only": names}
    held = check(faulty.sound_draw, faulty.adds_a_field, new_fields=["mask"], **options)
    assert held == tuple(names)
    # Nothing then is left that must stay.
    options["only"] = ["other_fields_stay"]
    with pytest.raises(ValueError, match="only must name properties that make sense"):
        check(faulty.sound_draw, faulty.drops_the_label, new_fields=["label"], **options)


@pytest.mark.parametrize(
    ("apply", "text"),
    [
        (faulty.ignores_target_key, r"there is no field 'out' in the output"),
        (faulty.pools, r"the result is float32\[7, 5, 1\] of an image float32\[7, 5, 3\]"),
    ],
)
def test_the_result_lies_under_the_target_key_and_is_as_the_image(apply, text):
    config = CONFIG.replace(target_key="out")
    with pytest.raises(PropertyError, match=text):
        check(faulty.sound_draw, apply, config, only=["dtype_and_structure_kept"])


def test_what_raises_is_reported_as_raising():
    def fails(config, data, state, metadata, random_params=None, stats=None):
        raise KeyError("depth")

    def draws_nothing(config, keys, data_shapes):
        raise ValueError("no\nkeys")

    with pytest.raises(PropertyError) as caught:
        check(faulty.sound_draw, fails)
    lines = str(caught.value).splitlines()
    assert lines[:2] == [
        "KeyError: 'depth'",
        "  apply raised this while input_untouched was checked.",
    ]
    assert isinstance(caught.value.__cause__, KeyError)
    assert "Look for" not in str(caught.value)
    with pytest.raises(PropertyError, match=r"^ValueError: no\n  generate_random_params raised"):
        check(draws_nothing, faulty.sound_apply)


def test_messages_and_notes_hold_no_arrays():
    big = {"image": np.ones((64, 64, 64, 3), np.float32), "label": np.zeros(64, np.int32)}
    with pytest.raises(PropertyError) as caught:
        check(
            faulty.sound_draw,
            faulty.loses_a_field,
            batch=big,
            only=["dtype_and_structure_kept"],
            max_examples=1,
        )
    assert not getattr(caught.value, "__notes__", ())
    assert "float32[64,64,64,3]" in str(caught.value)
    assert len(str(caught.value)) < 1000


class Dims(ModalityOperator):
    """A sound operator, as the README's."""

    def generate_random_params(self, rng, data_shapes):
        return {"gain": jax.vmap(lambda key: jax.random.uniform(key, (), minval=0.8))(rng)}

    def apply(self, data, state, metadata, random_params=None, stats=None):
        image = jnp.asarray(data["image"])
        gain = random_params["gain"].astype(jnp.float32)
        dimmed = (image.astype(jnp.float32) * gain).astype(image.dtype)
        return {**data, "image": dimmed}, state, metadata


class Promotes(Dims):
    """The same, but integers come back as floats."""

    def apply(self, data, state, metadata, random_params=None, stats=None):
        gain = random_params["gain"]
        image = jnp.asarray(data["image"]).astype(jnp.float32) * gain
        return {**data, "image": image}, state, metadata


def test_an_operator_is_checked_through_its_two_methods():
    config = OperatorConfig(stochastic=True)
    held = check_operator(Dims, config, batch=BATCH, field="image", max_examples=1)
    assert set(held) == {each.name for each in GENERAL}
    with pytest.raises(PropertyError) as caught:
        check_operator(Promotes, config, batch=BATCH, field="image", max_examples=1)
    assert caught.value.property == "dtype_and_structure_kept"
    with pytest.raises(TypeError, match=r"check_operator\.operator must be a subclass of dropax\."):
        check_operator(faulty.sound_draw, config)


def test_a_fixed_pattern_has_every_property_that_makes_sense_for_it():
    config = config_of("pixel", fill="mean", stochastic=False)
    held = check_operator(DropoutOperator, config, batch=BATCH, max_examples=1)
    assert "transformations_agree" in held
    assert "kept_values_stay" not in held
