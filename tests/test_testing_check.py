"""How transforms are checked: what a user passes, and what a user reads."""

import dataclasses
import pickle
from typing import Any, ClassVar

import faulty
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from cases import config_of, image_of
from dropax import (
    Batch,
    Channel,
    DropoutOperator,
    FromField,
    OperatorConfig,
    apply,
    generate_random_params,
)
from dropax.testing import PropertyError, batches, check_operator, check_transform, configs
from dropax.testing.properties import GENERAL
from dropax.testing.transforms import PROPERTIES

CONFIG = faulty.DropConfig(field_key="image", stochastic=True)
BATCH = {"image": np.arange(1, 25, dtype=np.float32).reshape(2, 2, 3, 2)}


def draw_gain(config, keys, data_shapes):
    return {"gain": jax.vmap(lambda key: jax.random.uniform(key, (), minval=0.5))(keys)}


def brighten(config, data, state, metadata, random_params=None, stats=None):
    gain = 1.0 if random_params is None else random_params["gain"]
    image = jnp.asarray(data["image"])
    return {**data, "image": (image * gain).astype(image.dtype)}, state, metadata


@pytest.mark.parametrize("stochastic", [True, False])
def test_a_transform_that_drops_nothing_is_checked_for_what_makes_sense(stochastic):
    batch = {**BATCH, "label": np.arange(2)}
    held = check_transform(
        draw_gain,
        brighten,
        OperatorConfig(stochastic=stochastic),
        batch=Batch.from_parts(batch, {"seen": np.zeros(2, np.int32)}),
        field="image",
        max_examples=1,
    )
    general = {each.name for each in GENERAL}
    drawing = {"record_depends_on_its_key_alone", "keys_matter"}
    assert set(held) == (general if stochastic else general - drawing)


def test_states_must_come_back_as_they_went_in():
    def grows(config, data, state, metadata, random_params=None, stats=None):
        return data, {**state, "more": jnp.float32(0)}, metadata

    batch = Batch.from_parts(BATCH, {"seen": np.zeros(2, np.int32)})
    with pytest.raises(PropertyError, match=r"the states before and after differ in the struct"):
        check_transform(draw_gain, grows, OperatorConfig(stochastic=True), batch=batch)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Sparing(OperatorConfig):
    """Of one's own: nothing is called as dropax calls it."""

    odds: Any = 1.0
    dynamic_fields: ClassVar[tuple[str, ...]] = ("odds",)


def draw_lost(config, keys, data_shapes):
    chance = jnp.asarray(config.odds) / (1 + jnp.asarray(config.odds))
    return jax.vmap(lambda key: jax.random.uniform(key, data_shapes["x"][1:]) < chance)(keys)


def lose(config, data, state, metadata, random_params=None, stats=None):
    image = jnp.asarray(data["x"])
    return (
        {"x": jnp.where(random_params, jnp.asarray(stats["fill"], image.dtype), image)},
        state,
        {},
    )


def test_a_transform_may_call_its_things_as_it_likes():
    def check(expected, **options):
        return check_transform(
            draw_lost,
            lose,
            Sparing(stochastic=True, odds=3.0),
            batch={"x": BATCH["image"]},
            rate_field="odds",
            keep_mask=lambda config, params: ~params,
            expected_fraction=expected,
            stats={"fill": np.float32(-1.0)},
            skip=["rate_1_drops_all"],  # odds of 1 are no certainty
            max_examples=1,
            **options,
        )

    held = check(lambda config, shape: config.odds / (1 + config.odds))
    none_there = {"other_fields_stay", "state_is_independent", "target_key_is_honored"}
    assert set(PROPERTIES) - set(held) == {"rate_1_drops_all", *none_there}
    with pytest.raises(PropertyError, match=r"the dropped fraction must be 0\.7 up") as caught:
        check(lambda config, shape: 0.7, only=["dropped_fraction_is_the_rate"])
    assert caught.value.property == "dropped_fraction_is_the_rate"


def test_drawn_configs_and_batches_of_dropax_itself():
    held = check_transform(
        generate_random_params,
        apply,
        configs(),
        only=["dtype_and_structure_kept", "no_tracer_leaks"],
        max_examples=2,
    )
    assert len(held) == 2


def test_the_examples_of_every_run_have_odd_and_even_sides_and_one_to_five_channels():
    seen = set()

    def notes(config, data, state, metadata, random_params=None, stats=None):
        seen.add(data["image"].shape)
        return data, state, metadata

    options = {"batch": batches(kinds=("Batch",), ranks=(3,)), "only": ["dtype_and_structure_kept"]}
    check_transform(draw_gain, notes, OperatorConfig(), field="image", **options)
    heights, widths, channels = map(set, zip(*seen, strict=True))
    assert channels == {1, 2, 3, 4, 5}
    for sides in (heights, widths):
        assert {side % 2 for side in sides} == {0, 1}


def test_fields_that_are_read_are_no_fault():
    config = config_of(
        "box",
        field_key="camera.rgb",
        apply_probability=0.5,
        rescale=True,
        clip_range=(-2.0, 30.0),
        mask_key="kept",
        where_key="camera.may_drop",
        fill=FromField("camera.other"),
    )
    concerned = (
        "dtype_and_structure_kept",
        "nothing_is_left_under_a_dropped_value",
        "kept_values_stay",
        "other_fields_stay",
        "rate_1_drops_all",
        "gradient_is_finite",
    )
    held = check_operator(DropoutOperator, config, only=concerned, max_examples=1)
    assert held == concerned


def test_an_apply_that_does_not_spare_what_it_should_is_told():
    def forgets_where(config, *arguments):
        return apply(config.replace(where_key=None), *arguments)

    config = config_of("pixel", where_key="may_drop")
    with pytest.raises(PropertyError) as caught:
        check_transform(generate_random_params, forgets_where, config, only=["kept_values_stay"])
    assert caught.value.property == "kept_values_stay"


def test_a_failure_is_shown_on_an_example_that_a_person_can_read():
    def forgets_small_rates(config, keys, data_shapes):
        rate = jnp.where(jnp.asarray(config.rate) < 0.5, 0, config.rate)
        shape = data_shapes["image"][1:]
        return {"keep_mask": jax.vmap(lambda key: jax.random.uniform(key, shape) >= rate)(keys)}

    rates = st.integers(1, 10).map(lambda tenths: tenths / 10)
    with pytest.raises(PropertyError) as caught:
        check_transform(
            forgets_small_rates,
            faulty.sound_apply,
            st.builds(
                faulty.DropConfig, field_key=st.just("image"), stochastic=st.just(True), rate=rates
            ),
            batch=batches(dtypes=("float32",), ranks=(3,), max_side=3, layouts=("C",)),
            rate_field="rate",
            only=["dropped_fraction_is_the_rate"],
            max_examples=20,
        )
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(
        "dropped_fraction_is_the_rate does not hold: the dropped fraction must be 0.1 up to 0.0"
    )
    assert lines[1:] == [
        "  config: DropConfig(stochastic=True, field_key='image', rate=0.1)",
        "  batch: {'image': float32[1,1,1,1], 'label': int32[1]} = "
        "{'image': [[[[0.0]]]], 'label': [0]}",
        "  key: jax.random.key(0)",
        f"Look for: {PROPERTIES['dropped_fraction_is_the_rate'].look_for}.",
    ]


def test_a_smaller_example_is_sought_only_where_examples_are_drawn():
    def calls(batch):
        made = []

        def widens(config, data, state, metadata, random_params=None, stats=None):
            made.append(1)
            return {"image": jnp.asarray(data["image"]).astype(jnp.float32)}, state, metadata

        options = {"batch": batch, "only": ["dtype_and_structure_kept"]}
        with pytest.raises(PropertyError):
            check_transform(draw_gain, widens, OperatorConfig(), **options)
        return len(made)

    given = {"image": BATCH["image"].astype(np.int8)}
    assert calls(given) == 1
    assert calls(st.just(given)) > 1


def test_a_failure_may_cross_processes():
    error = pickle.loads(pickle.dumps(PropertyError("deterministic", "It is not.")))
    assert (error.property, str(error)) == ("deterministic", "It is not.")
    assert isinstance(error, AssertionError)


def test_a_transform_that_fails_now_and_then_is_reported_all_the_same():
    calls = []

    def moody(config, data, state, metadata, random_params=None, stats=None):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("not in the mood")
        return data, state, metadata

    with pytest.raises(
        PropertyError, match=r"^RuntimeError: not in the mood\n  apply raised this while"
    ):
        check_transform(draw_gain, moody, OperatorConfig(stochastic=True), batch=BATCH)


@pytest.mark.parametrize("dtype", [np.float64, np.bool_])
def test_arrays_of_64_bits_are_taken_as_jax_takes_them_and_bools_as_bools(dtype):
    batch = {"image": BATCH["image"].astype(dtype)}
    config = config_of("pixel")
    names = ["dtype_and_structure_kept", "rate_1_drops_all"]
    held = check_transform(generate_random_params, apply, config, batch=batch, only=names)
    assert held == tuple(names)


def test_rates_that_are_ranges_and_records_left_alone_are_counted_in():
    config = config_of("pixel", dropout_rate=(0.2, 0.8), apply_probability=0.5)
    names = ["dropped_fraction_is_the_rate", "rate_0_keeps_all", "rate_1_drops_all"]
    options = {"batch": {"image": image_of((2, 16, 16, 2))}, "max_examples": 1}
    held = check_transform(generate_random_params, apply, config, only=names, **options)
    assert held == tuple(names)
    # A record's channels have a rate in common, and know of each other by it.
    names = ["values_are_uncorrelated"]
    with pytest.raises(ValueError, match="only must name properties that make sense"):
        check_transform(generate_random_params, apply, config, only=names, **options)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((3, apply), {}, TypeError, r"check_transform\.generate_random_params must be a function"),
        ((draw_gain, None), {}, TypeError, r"check_transform\.apply must be a function; got None"),
        ((), {"config": {}}, TypeError, r"config must be a config or a strategy of them; got \{\}"),
        ((), {"config": st.just(1)}, TypeError, r"config must be a config or a strategy of them"),
        ((), {"max_examples": 0}, ValueError, r"max_examples must be at least 1; got 0"),
        ((), {"false_alarm": 1.0}, ValueError, r"false_alarm must be in \(0, 1\); got 1\.0"),
        ((), {"false_alarm": 1}, TypeError, r"false_alarm must be a float; got 1"),
        ((), {"only": ["rate_0"]}, ValueError, r"only must be one of .*'rate_0_keeps_all'"),
        ((), {"skip": ["rate_0"]}, ValueError, r"skip must be one of .*'rate_0_keeps_all'"),
        ((), {"skip": "keys_matter"}, TypeError, r"skip must be a list of names; got 'keys_"),
        ((), {"only": 3}, TypeError, r"only must be a list of names; got 3"),
        (
            (),
            {"only": ["values_are_uncorrelated"], "config": config_of(Channel(min_kept=1))},
            ValueError,
            r"only must name properties that make sense for an example; got \['values_are_",
        ),
        (
            (),
            {"only": ["values_are_uncorrelated"], "config": config_of("block")},
            ValueError,
            r"only must name properties that make sense for an example; got \['values_are_",
        ),
        (
            (),
            {"config": OperatorConfig(), "batch": None},
            ValueError,
            r"batch must be given; got None\. The config has no field_key",
        ),
        ((), {"batch": {"image": np.zeros((0, 2, 2))}}, ValueError, r"batch must hold a record"),
        ((), {"batch": [1]}, TypeError, r"batch must be a dropax\.Batch or a dict of arrays"),
    ],
)
def test_arguments_are_checked(arguments, options, error, text):
    options = {"config": config_of("pixel"), "batch": BATCH, "max_examples": 1, **options}
    with pytest.raises(error, match=text):
        check_transform(*(arguments or (generate_random_params, apply)), **options)


def test_the_field_must_be_known():
    batch = {"left": BATCH["image"], "right": BATCH["image"]}
    with pytest.raises(ValueError, match=r"field must be given if .* one of 'left', 'right'"):
        check_transform(draw_gain, brighten, OperatorConfig(), batch=batch)
    with pytest.raises(KeyError, match=r"field 'image' not found: the data has 'left', 'right'"):
        check_transform(draw_gain, brighten, config_of("pixel"), batch=batch)
