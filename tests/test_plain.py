"""Configs and regions as plain values: through JSON and back, or refused by name."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cases import MODES
from dropax import (
    Band,
    Box,
    Channel,
    DropoutOperatorConfig,
    Grid,
    Inverted,
    ModalityOperatorConfig,
    OneOf,
    OperatorConfig,
    Patch,
    Shared,
)


def config_of(**options):
    return DropoutOperatorConfig(field_key="image", **options)


def through_json(thing):
    return type(thing).from_dict(json.loads(json.dumps(thing.to_dict(), allow_nan=False)))


REGIONS = [
    *(mode for mode in MODES.values() if not isinstance(mode, str)),
    Patch(size=(2, 3)),
    Grid(unit=(2, 9), rotate=4.5),
    Box(aspect_ratio=(0.5, 2)),
    Channel(groups=((0, 2), (1,))),
    OneOf((Inverted(Shared("patch", axes=(0, -1))), Channel(groups=((1,), (0,))))),
]


@pytest.mark.parametrize("region", REGIONS, ids=str)
def test_regions_come_back_equal(region):
    assert through_json(region) == region
    config = config_of(mode=region)
    assert through_json(config) == config


STATS = {
    "mean": np.arange(3, dtype=np.float32),
    "small": np.asarray(jnp.asarray([1.5, np.nan, -np.inf], jnp.bfloat16)),
    "scalar": np.float32(0.1),
    "flags": np.array([[True], [False]]),
    "large": np.array([2**64 - 1], np.uint64),
    "nested": {"list": [1, 2.5, None, "text"], "empty": np.zeros((0, 2))},
}
OPTIONS = [
    {},
    {"stochastic": True, "dropout_rate": (0.1, 0.4), "apply_probability": 0.5, "stream_name": "a"},
    {"dropout_rate": jnp.float32(0.1), "batch_strategy": "scan", "cacheable": True},
    {"clip_range": (-np.inf, np.inf), "fill": (0.1, -2, 3), "target_key": "a.b", "mask_key": "m"},
    {"auxiliary_fields": ["a", "b"], "auxiliary_fill": (255, -1.5), "preserve_auxiliary": False},
    {"fill": "noise", "rescale": True, "share_mask": True, "channel_axis": None, "seed": 7},
    {"mode": "grid", "channel_axis": -2, "validate_domain_constraints": False},
    {"precomputed_stats": STATS},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ", ".join(options) or "defaults")
def test_configs_come_back_equal(options):
    config = config_of(**options)
    again = through_json(config)
    assert again == config
    assert hash(again) == hash(config)


def test_the_configs_that_others_build_on_come_back_too():
    for config in (OperatorConfig(cacheable=True), ModalityOperatorConfig(field_key="a")):
        assert through_json(config) == config


def test_plain_values_say_what_they_are():
    assert Band(axis=1).to_dict() == {"type": "Band", "axis": 1, "count": 1}
    plain = config_of(mode=Channel(min_kept=1)).to_dict()
    assert plain["mode"] == {
        "type": "Channel",
        "min_kept": 1,
        "exact": False,
        "groups": None,
    }
    assert (
        DropoutOperatorConfig.from_dict({"type": plain["type"], "field_key": "image"})
        == config_of()
    )


@dataclasses.dataclass(frozen=True)
class Own:
    """A region of a user's own."""

    def sample(self, key, element_shape, rate):
        return jnp.ones(element_shape, bool)


HAVE_NONE = "Functions, traced values and objects of other classes have no plain form."
NO_FORM = [
    (
        {"batch_stats_fn": len},
        "batch_stats_fn must be plain values; got <built-in function len>. " + HAVE_NONE,
    ),
    ({"mode": Own()}, "mode must be plain values; got Own(). " + HAVE_NONE),
    (
        {"precomputed_stats": {"z": np.ones(2, np.complex64)}},
        "precomputed_stats['z'] must be plain values; got an array of shape (2,) and "
        "dtype complex64. " + HAVE_NONE,
    ),
    (
        {"precomputed_stats": {"z": (1, 2)}},
        "precomputed_stats['z'] must be a list or an array; got (1, 2).",
    ),
    (
        {"precomputed_stats": {"$z": 1}},
        "precomputed_stats: an entry must be named by a string that is not 'type' and "
        "has no $ in front; got '$z'.",
    ),
]


@pytest.mark.parametrize(("options", "text"), NO_FORM, ids=[text[:30] for _, text in NO_FORM])
def test_what_has_no_plain_form_is_refused_by_name(options, text):
    with pytest.raises(TypeError) as refused:
        config_of(**options).to_dict()
    assert str(refused.value) == f"DropoutOperatorConfig.{text}"


def test_a_traced_rate_has_no_plain_form():
    with pytest.raises(TypeError, match=r"DropoutOperatorConfig.dropout_rate must be plain values"):
        jax.jit(lambda rate: config_of(dropout_rate=rate).to_dict())(0.5)


BROKEN = [
    ([], TypeError, "Box.from_dict.values must be a dict as to_dict returns it; got []."),
    ({}, ValueError, "Box.from_dict.values['type'] must be 'Box'; got None."),
    ({"type": "Grid"}, ValueError, "Box.from_dict.values['type'] must be 'Box'; got 'Grid'."),
    (
        {"type": "Box", "cuont": 1},
        ValueError,
        "Box.from_dict.values: a field must be one of 'count', 'aspect_ratio', 'border'; got "
        "'cuont'. Did you mean 'count'?",
    ),
    ({"type": "Box", "count": 0}, ValueError, "Box.count must be from 1 to 64; got 0."),
]


@pytest.mark.parametrize(("values", "error", "text"), BROKEN, ids=[text for *_, text in BROKEN])
def test_what_to_dict_did_not_write_is_refused(values, error, text):
    with pytest.raises(error) as refused:
        Box.from_dict(values)
    assert str(refused.value) == text


@pytest.mark.parametrize(
    "part",
    [
        {"$float": "many"},
        {"$float": None},
        {"$array": {"dtype": "float32"}},
        {"$array": [1.0]},
        {"$array": {"dtype": "float99", "shape": [1], "values": [1]}},
        {"$array": {"dtype": "float32", "shape": [2], "values": [1]}},
    ],
    ids=str,
)
def test_a_number_or_an_array_that_to_dict_did_not_write_is_refused_by_name(part):
    values = {"type": "OperatorConfig", "precomputed_stats": {"mean": part}}
    with pytest.raises(ValueError, match="as to_dict writes it") as refused:
        OperatorConfig.from_dict(values)
    owner = "OperatorConfig.precomputed_stats['mean']"
    assert str(refused.value).startswith(f"{owner} must be as to_dict writes it; got {{")
