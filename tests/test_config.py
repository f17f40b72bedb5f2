"""What is fixed: every argument, checked when a config is made."""

import dataclasses
import functools
import inspect
import re
import types

import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from cases import refuses
from dropax import DropoutOperatorConfig, FromField, ModalityOperatorConfig, OperatorConfig

config_of = functools.partial(DropoutOperatorConfig, field_key="image")


def test_help_lists_every_argument_with_stochastic_first():
    listed = []
    for cls in (DropoutOperatorConfig, ModalityOperatorConfig, OperatorConfig):
        documented = inspect.getdoc(cls).partition("Raises:")[0]
        listed += re.findall(r"^  (\w+):", documented, re.MULTILINE)
    assert listed[0] == "stochastic"
    assert set(listed) == {field.name for field in dataclasses.fields(DropoutOperatorConfig)}


COMMON = {
    "cacheable": (1, TypeError, "be a bool; got 1."),
    "stochastic": (None, TypeError, "be a bool; got None."),
    "batch_strategy": ("scam", ValueError, "be one of 'vmap', 'scan'; got 'scam'. Did you mean 's"),
    "stream_name": (
        "augment",
        ValueError,
        "be None if stochastic is False; got 'augment'. "
        "A deterministic operator draws no keys; pass stochastic=True to draw some.",
    ),
    "batch_stats_fn": (3, TypeError, "be callable or None; got 3."),
    "precomputed_stats": ([1], TypeError, "be a dict or None; got [1]."),
}


@pytest.mark.parametrize("cls", [OperatorConfig, ModalityOperatorConfig, DropoutOperatorConfig])
@pytest.mark.parametrize("name", COMMON)
def test_every_config_refuses_what_is_wrong_in_its_own_name(cls, name):
    value, error, text = COMMON[name]
    field = {} if cls is OperatorConfig else {"field_key": "image"}
    with refuses(error, f"{cls.__name__}.{name} must {text}"):
        cls(**field, **{name: value})


def test_a_stream_must_have_a_name_and_statistics_one_source():
    with refuses(ValueError, "OperatorConfig.stream_name must not be empty; got ''."):
        OperatorConfig(stochastic=True, stream_name="")
    with refuses(TypeError, "OperatorConfig.stream_name must be a string or None; got 3."):
        OperatorConfig(stochastic=True, stream_name=3)
    text = "OperatorConfig.precomputed_stats must be None if batch_stats_fn is given; got {}."
    with refuses(ValueError, text):
        OperatorConfig(batch_stats_fn=len, precomputed_stats={})


SEVERAL = "an array of shape (2,) and dtype "
EACH = "To give each record its own, map over them with jax.vmap, or pass (low, high)."
RATE = "be a number or a real scalar array; got"
RANGE = "be a tuple of two numbers or None; got"
ORDER = "be (low, high) with low < high; got"
PAIR = "Pass a tuple such as (0.0, 1.0)."
FILL = "be a number, or a fill's name or object such as Mean(); got"
AXIS = "be an int, 'auto' or None; got"
SEED = "be in [0, 4294967296); got"
DRAWN = {"stochastic": True}
WRITTEN = {"target_key": "out", "mask_key": "kept", "auxiliary_fields": ["labels"]}
REFUSED = [
    ("field_key", None, TypeError, "be a string; got None."),
    ("field_key", "", ValueError, "not be empty; got ''."),
    ("auxiliary_fields", ["a", "a"], ValueError, "name each field once; got ['a', 'a']."),
    ("auxiliary_fields", ("a",), TypeError, "be a list of field names or None; got ('a',)."),
    ("auxiliary_fields", ["image"], ValueError, "not name field_key itself; got ['image']."),
    ("clip_range", (0, "1"), TypeError, f"{RANGE} (0, '1'). {PAIR}"),
    ("clip_range", (False, True), TypeError, f"{RANGE} (False, True). {PAIR}"),
    ("clip_range", 1.0, TypeError, f"{RANGE} 1.0. {PAIR}"),
    ("clip_range", (1.0, 0.0), ValueError, f"{ORDER} (1.0, 0.0)."),
    ("clip_range", (0, 1, 2), ValueError, f"{ORDER} (0, 1, 2)."),
    ("clip_range", (), ValueError, f"{ORDER} ()."),
    ("clip_range", (0.0, np.nan), ValueError, f"{ORDER} (0.0, nan)."),
    ("preserve_auxiliary", 1, TypeError, "be a bool; got 1."),
    ("validate_domain_constraints", None, TypeError, "be a bool; got None."),
    ("dropout_rate", 1.5, ValueError, "be in [0.0, 1.0]; got 1.5."),
    ("dropout_rate", -1e-9, ValueError, "be in [0.0, 1.0]; got -1e-09."),
    ("dropout_rate", np.nan, ValueError, "be in [0.0, 1.0]; got nan."),
    ("dropout_rate", np.array(1.5), ValueError, "be in [0.0, 1.0]; got 1.5."),
    ("dropout_rate", None, TypeError, f"{RATE} None."),
    ("dropout_rate", True, TypeError, f"{RATE} True."),
    ("dropout_rate", np.array(True), TypeError, f"{RATE} True."),
    ("dropout_rate", 0.1j, TypeError, f"{RATE} 0.1j."),
    ("dropout_rate", np.ones(2), TypeError, f"{RATE} {SEVERAL}float64. {EACH}"),
    ("dropout_rate", jnp.ones(1), TypeError, f"{RATE} an array of shape (1,) and dtype float32"),
    ("dropout_rate", jnp.array(True), TypeError, f"{RATE} an array of shape () and dtype bool."),
    (
        "fill",
        "red",
        ValueError,
        "be one of 'mean', 'noise', 'stats_mean'; got 'red'. Or write it as in Python, such as "
        "\"FromField('other')\".",
    ),
    ("fill", True, TypeError, f"{FILL} True."),
    ("fill", None, TypeError, f"{FILL} None."),
    ("channel_axis", "last", TypeError, f"{AXIS} 'last'."),
    ("channel_axis", 1.0, TypeError, f"{AXIS} 1.0."),
    ("seed", 0.0, TypeError, "be an int; got 0.0."),
    ("seed", -1, ValueError, f"{SEED} -1."),
    ("seed", 2**32, ValueError, f"{SEED} 4294967296."),
    ("apply_probability", 2, ValueError, "be in [0.0, 1.0]; got 2."),
    ("mask_key", "", ValueError, "not be empty; got ''."),
    ("mask_key", "image", ValueError, "name a field of its own; got 'image'."),
    *(
        (name, field, error, text)
        for name in ("where_key", "target_key")
        for field, error, text in (
            ("", ValueError, "not be empty; got ''."),
            (1, TypeError, "be a string or None; got 1."),
        )
    ),
]
# What is wrong of several options together, with what the error begins with.
TOGETHER = [
    ({"auxiliary_fields": ["a", 3]}, "auxiliary_fields[1] must be a string; got 3."),
    ({"auxiliary_fields": ["a", ""]}, "auxiliary_fields[1] must not be empty; got ''."),
    (
        {"auxiliary_fields": ["out"], "target_key": "out"},
        "auxiliary_fields must not name target_key itself; got ['out'].",
    ),
    ({"dropout_rate": (0.1, 0.2)}, "dropout_rate must be one number if stochastic is False"),
    ({"apply_probability": 0.5}, "apply_probability must be None or 1.0 if stochastic is False"),
    ({"apply_probability": 0.5}, "A deterministic operator has one pattern; pass stochas"),
    ({**DRAWN, "dropout_rate": (0.3, 0.2)}, "dropout_rate must be (low, high) with low <= high"),
    ({**DRAWN, "dropout_rate": (0.3,)}, "dropout_rate must be a number or (low, high); got (0.3,)"),
    ({**DRAWN, "dropout_rate": (0.3, 1.2)}, "dropout_rate[1] must be in [0.0, 1.0]; got 1.2."),
    ({"fill": ()}, "fill must have one for each channel; got ()."),
    ({"mask_key": "out.kept", "target_key": "out"}, "mask_key must name a field of its own; got "),
    ({"mask_key": "out", "target_key": "out.image"}, "mask_key must name a field of its own; got "),
    *(
        ({**WRITTEN, "where_key": name}, "where_key must name a field of its own")
        for name in ("image", "out", "kept", "labels")
    ),
    *(
        ({**WRITTEN, "fill": FromField(name)}, "fill must name a field of its own")
        for name in ("image", "out", "kept")
    ),
    *(
        ({"auxiliary_fields": ["a", "b"], "auxiliary_fill": fills}, f"auxiliary_fill{text}")
        for fills, text in (
            (("mean",), " must have one fill for each of the 2 auxiliary_fields; got"),
            ((), " must have one for each field"),
            ((1, "maen"), "[1] must be one of 'mean', "),
            ((1, (2, 3)), "[1] must be a number; got"),
            (FromField("image"), " must name a field of its own"),
        )
    ),
]


@pytest.mark.parametrize(("name", "value", "error", "text"), REFUSED)
def test_a_wrong_argument_is_refused_with_its_name_value_and_cure(name, value, error, text):
    with refuses(error, f"DropoutOperatorConfig.{name} must {text}"):
        config_of(**{name: value})


@pytest.mark.parametrize(("options", "text"), TOGETHER, ids=str)
def test_options_that_cannot_be_meant_together_are_refused(options, text):
    with pytest.raises((TypeError, ValueError), match=r"^DropoutOperatorConfig\.\w+") as refused:
        config_of(**options)
    assert text in str(refused.value)


@pytest.mark.parametrize("number", [10**400, -(10**400)], ids=["large", "small"])
def test_a_whole_number_past_all_floats_is_taken_or_refused_in_words(number):
    with pytest.raises(ValueError, match=r"dropout_rate must be in \[0\.0, 1\.0\]; got a"):
        config_of(dropout_rate=number)
    assert config_of(fill=number).fill == number


RATES = [0, 1, 0.25, np.float32(0.25), np.float64(0.25), np.array(0.25), np.int8(1), np.uint8(0)]


@pytest.mark.parametrize("rate", RATES, ids=repr)
def test_a_rate_that_is_known_becomes_a_float(rate):
    config = config_of(dropout_rate=rate)
    assert type(config.dropout_rate) is float
    assert config.dropout_rate == rate


@pytest.mark.parametrize("rate", [jnp.float32(9), jnp.bfloat16(0.5), jnp.int32(1), jnp.array(0.5)])
def test_a_rate_on_a_device_is_kept_and_not_read(rate):
    assert config_of(dropout_rate=rate).dropout_rate is rate


def test_an_error_is_in_the_words_of_the_call_and_says_what_to_write_instead():
    with pytest.raises(TypeError, match=r"keyword argument 'rate'\. Did you mean 'dropout_rate'\?"):
        config_of(rate=0.1)
    with pytest.raises(TypeError, match=r"Pass fill='stats_mean' and stats={'mean': array}, which"):
        config_of(fill=np.ones(3))
    batch = types.MappingProxyType({"image": 1})
    with pytest.raises(TypeError, match=r"Pass a dict of its arrays, such as dict\(batch\)\."):
        dropax.apply_batch(config_of(), dropax.init_state(config_of()), batch)
