"""The check of transforms catches what is wrong, passes what is right, and says what it did."""

import pickle

import faulty
import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cases import MODES, config_of
from dropax import (
    Batch,
    DropoutOperator,
    ModalityOperator,
    OperatorConfig,
    apply,
    generate_random_params,
)
from dropax.testing import (
    PropertyError,
    assert_drops,
    batches,
    check_operator,
    check_transform,
    configs,
)
from dropax.testing.properties import PROPERTIES


@pytest.fixture(autouse=True)
def promotion():
    """The transforms are written as users write them."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def check(case, **options):
    options = {"max_examples": 1, **case.options, **options}
    return check_transform(case.draw, case.apply, case.config, **options)


@pytest.mark.parametrize("name", faulty.RIGHT)
def test_what_is_right_passes(name):
    report = check(faulty.RIGHT[name])
    assert not report.warnings
    assert set(report) | set(report.not_run) == set(PROPERTIES)


@pytest.mark.parametrize("name", faulty.WRONG)
def test_what_is_wrong_is_caught(name):
    lacking, case = faulty.WRONG[name]
    with pytest.raises(PropertyError) as caught:
        check(case, only=[lacking])
    message = str(caught.value)
    assert caught.value.property == lacking
    assert message.startswith(lacking) or f"was raised while {lacking}" in message
    for part in ("  config: ", "  batch: ", "  run again: seed=0, max_examples=1, only=["):
        assert part in message
    assert len(message) < 2000


def test_every_property_is_broken_by_some_fault():
    lacking = {name for name, _ in faulty.WRONG.values()}
    assert set(PROPERTIES) - lacking == {"operator_runs_its_methods"}


COMMON = ("float32", "uint8")  # of each dtype a check takes seconds


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_every_mode_passes(mode):
    names, config = ["result_is_as_the_reference", "masks_are_random"], config_of(mode)
    options = {"only": names, "max_examples": 1, "batch": batches(config, dtypes=COMMON)}
    assert len(check_operator(DropoutOperator, config, **options)) == 2


# fmt: off
OPTIONS = [
    {"fill": "mean", "channel_axis": None, "rescale": True},
    {"fill": "noise", "channel_axis": 0, "clip_range": (-2.0, 1.5), "share_mask": True},
    {"fill": "stats_mean", "precomputed_stats": {"mean": np.float32(0.5)}, "mask_key": "kept",
     "target_key": "views.dropped", "clip_range": (-9, 100)},
    {"fill": 0.5, "rescale": True, "dropout_rate": (0.2, 0.8), "apply_probability": 0.5},
    {"mode": "Box(count=2)", "rescale": True, "auxiliary_fields": ["depth"], "auxiliary_fill": -1},
    {"mode": "channel", "batch_strategy": "scan", "fill": (1.0, 2.0, 3.0),
     "auxiliary_fields": ["depth"], "preserve_auxiliary": False},
    {"mode": "box", "fill": "FromField('other')", "where_key": "may_drop", "field_key": "a.b"},
    {"mode": "Patch(size=2, exact=True)", "where_key": "may_drop", "extent_key": "sizes"},
    {"stochastic": False, "fill": "mean"},
]
# fmt: on


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_passes(options):
    config = config_of(**{"mode": "pixel", **options})
    drawn = batches(config, kinds=("Batch",), special=True, max_side=9, dtypes=COMMON)
    check_operator(DropoutOperator, config, batch=drawn, max_examples=1)


def test_drawn_configs_of_dropax_itself_pass():
    names = ["other_fields_stay"]
    assert check_transform(generate_random_params, apply, configs(), only=names, max_examples=6)


SOUND = faulty.RIGHT["dropout"]


def test_a_report_says_what_was_not_run_and_why():
    report = check(faulty.RIGHT["flip"], skip=["calls_agree"])
    assert report.not_run["calls_agree"] == "skipped by the caller"
    assert report.not_run["masks_are_random"].startswith("nothing says which values are kept")
    assert "held: result_is_as_the_reference, other_fields_stay" in str(report)
    assert "not run: draws_matter" not in str(report)


def test_a_mask_or_a_rate_that_nothing_declares_is_a_warning():
    def draw(config, keys, data_shapes):
        return {"hidden": SOUND.draw(config, keys, data_shapes)["keep_mask"]}

    def select(config, data, state, metadata, random_params=None, stats=None):
        params = {"keep_mask": random_params["hidden"]}
        return SOUND.apply(config, data, state, metadata, params, stats)

    options = {"batch": faulty.RGB, "max_examples": 1}
    with pytest.warns(UserWarning, match=r"random_params\['hidden'\] looks like a mask"):
        report = check_transform(draw, select, faulty.DROP, **options)
    assert len(report.warnings) == 1
    with pytest.warns(UserWarning, match=r"DropConfig\.rate looks like a rate, and nothing says"):
        check_transform(SOUND.draw, SOUND.apply, faulty.DROP, **options)


def test_a_seed_draws_the_same_example_again():
    seen = []

    def note(config, data, state, metadata, random_params=None, stats=None):
        seen.append(data["image"].shape)
        return data, state, metadata

    options = {"batch": batches(ranks=(3,)), "field": "image", "only": ["other_fields_stay"]}
    shapes, draw = [], faulty.each(faulty.gain)
    for seed in (3, 3, 4):
        seen.clear()
        config = OperatorConfig(stochastic=True)
        check_transform(draw, note, config, seed=seed, max_examples=1, **options)
        shapes.append(list(seen))
    assert shapes[0] == shapes[1] != shapes[2]


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (lambda image, keep: image, r"dropped value at \[0, 1\] must be 0\.0; got 2\.0"),
        (lambda image, keep: image * keep * 2, r"kept value at \[0, 0\] must be 1\.0; got 2\.0"),
        (lambda image, keep: (image * keep)[..., None], r"result must be float32\[1, 2\]"),
        (lambda image, keep: image * np.where(keep, 1, np.nan), r"nan, .* Likely a product with"),
    ],
)
def test_assert_drops_says_what_is_off(shown, text):
    image, keep = np.array([[1, 2]], np.float32), np.array([[True, False]])
    assert_drops(image, image * keep, keep)
    assert_drops(image, np.where(keep, image / 3, 9), keep, fill=9, kept_value=image / 3)
    clipped = np.where(keep, image, np.float32(5))
    assert_drops(image, clipped, keep, fill=9, clip_range=(0, 5))
    with pytest.raises(AssertionError, match=text):
        assert_drops(image, shown(image, keep).astype(np.float32), keep)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batches(size=3, max_side=3, dtypes=("float32", "uint8"), special=True, ranks=(3,)))
def test_assert_drops_reads_as_a_hypothesis_test(batch):
    config = config_of("pixel", mask_key="kept")
    shapes = jax.tree.map(np.shape, batch)
    params = generate_random_params(config, jax.random.key(0), shapes)
    out = jax.vmap(lambda data, params: apply(config, data, {}, {}, params)[0])(batch, params)
    assert_drops(batch["image"], out["image"], out["kept"])


class Dims(ModalityOperator):
    """A sound operator, as the README's."""

    def generate_random_params(self, rng, data_shapes):
        return {"gain": jax.vmap(lambda key: jax.random.uniform(key, (), minval=0.8))(rng)}

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "image": data["image"] * random_params["gain"]}, state, metadata


def same_every_time(self, batch, stats=None, *arguments, **options):
    fresh = type(self)(self.config, rngs=0)
    return ModalityOperator.apply_batch(fresh, batch, stats, **options)


def loses_metadata(self, batch, stats=None, *arguments, **options):
    out = ModalityOperator.apply_batch(self, batch, stats, *arguments, **options)
    return Batch.from_parts(out.data, out.states) if isinstance(out, Batch) else out


def ignores_ids(self, batch, stats=None, *arguments, record_ids=None, epoch=None):
    return ModalityOperator.apply_batch(self, batch, stats, *arguments)


OVERRIDES = {
    same_every_time: "in call 1, with|in call 2, with|left a step of",
    loses_metadata: "call 1 of apply_batch left metadata",
    ignores_ids: r"in call 3, with \['record_ids', 'epoch'\]",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_an_operator_is_checked_through_its_apply_batch(override):
    batch = Batch.from_parts(faulty.RGB, {"seen": np.zeros(5, np.uint32)})
    config, names = OperatorConfig(stochastic=True), ["operator_runs_its_methods"]
    options = {"batch": batch, "field": "image", "only": names, "max_examples": 1}
    assert list(check_operator(Dims, config, **options)) == names
    kind = type("Overrides", (Dims,), {"apply_batch": override})
    with pytest.raises(PropertyError, match=OVERRIDES[override]):
        check_operator(kind, config, **options)


def test_what_raises_is_reported_as_raising():
    def fails(config, data, state, metadata, random_params=None, stats=None):
        raise KeyError("depth")

    with pytest.raises(PropertyError) as caught:
        check(faulty.Case(SOUND.draw, fails, SOUND.options, faulty.DROP))
    lines = str(caught.value).splitlines()
    assert lines[:2] == ["KeyError: 'depth'", "  was raised while calls_agree was checked."]
    assert isinstance(caught.value.__cause__, KeyError)
    error = pickle.loads(pickle.dumps(PropertyError("calls_agree", "It is not.")))
    assert (error.property, str(error)) == ("calls_agree", "It is not.")


# fmt: off
REFUSED = [
    ({"generate_random_params": 3}, r"generate_random_params must be a function"),
    ({"config": {}}, r"config must be a config or a strategy of them; got \{\}"),
    ({"config": st.just(1)}, r"config must be a config or a strategy of them"),
    ({"max_examples": 0}, r"max_examples must be at least 1; got 0"),
    ({"false_alarm": 1.0}, r"false_alarm must be in \(0, 1\); got 1\.0"),
    ({"only": ["rate_0"]}, r"only must be one of .*'draws_matter'"),
    ({"skip": "draws_matter"}, r"skip must be a list of names; got 'draws_"),
    ({"only": ["operator_runs_its_methods"]},
     r"only must name properties that can be run .* not run, as no operator is checked"),
    ({"config": OperatorConfig(), "batch": None}, r"batch must be given; got None"),
    ({"batch": {"image": np.zeros((0, 2, 2))}}, r"batch must hold a record"),
    ({"batch": [1]}, r"batch must be a dropax\.Batch or a dict of arrays"),
    ({"config": OperatorConfig()}, r"field must be given if the config has no"),
]
# fmt: on


@pytest.mark.parametrize(("options", "text"), REFUSED)
def test_arguments_are_checked(options, text):
    given = {"config": config_of("pixel"), "batch": faulty.RGB, "max_examples": 1}
    given |= {"generate_random_params": generate_random_params, "apply": apply}
    with pytest.raises((TypeError, ValueError), match=text):
        check_transform(**{**given, **options})


def test_arrays_of_64_bits_are_taken_as_jax_takes_them():
    batch = {"image": np.ones((2, 3, 4, 1), np.float64)}
    options = {"batch": batch, "only": ["other_fields_stay"], "max_examples": 1}
    assert check_transform(generate_random_params, apply, config_of("pixel"), **options)
