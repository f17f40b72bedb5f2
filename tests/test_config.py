"""What is fixed: every argument, checked when a config is made."""

import dataclasses
import inspect
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from dropax import (
    Channel,
    DropoutOperatorConfig,
    ModalityOperatorConfig,
    OperatorConfig,
    Pixel,
    Rngs,
)
from small import det, equal, run, sto


def config_of(**options):
    return DropoutOperatorConfig(**{"field_key": "image", **options})


def mean_of(data):
    return {"mean": data["image"].mean()}


# The constructor.

DEFAULTS = {
    "cacheable": False,
    "batch_stats_fn": None,
    "precomputed_stats": None,
    "stochastic": False,
    "stream_name": None,
    "batch_strategy": "vmap",
    "field_key": inspect.Parameter.empty,
    "target_key": None,
    "auxiliary_fields": None,
    "clip_range": None,
    "preserve_auxiliary": True,
    "validate_domain_constraints": True,
    "dropout_rate": 0.1,
    "mode": "pixel",
}


def test_the_documented_arguments_have_their_names_order_kinds_and_defaults():
    documented = [*inspect.signature(DropoutOperatorConfig).parameters.values()][: len(DEFAULTS)]
    assert {p.name: p.default for p in documented} == DEFAULTS
    assert [p.name for p in documented[:6]] == [*DEFAULTS][:6]
    assert {p.kind for p in documented[:6]} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    rest = [*inspect.signature(DropoutOperatorConfig).parameters.values()][6:]
    assert {p.kind for p in rest} == {inspect.Parameter.KEYWORD_ONLY}


def test_help_lists_every_argument_with_stochastic_first():
    documented = inspect.getdoc(DropoutOperatorConfig)
    listed = re.findall(r"^  (\w+):", documented.partition("Raises:")[0], re.MULTILINE)
    assert listed[0] == "stochastic"
    assert sorted(listed) == sorted(f.name for f in dataclasses.fields(DropoutOperatorConfig))


def test_the_first_six_may_be_given_by_position():
    config = DropoutOperatorConfig(True, None, {"a": 1}, True, "augment", "scan", field_key="x")
    assert config == DropoutOperatorConfig(
        cacheable=True,
        precomputed_stats={"a": 1},
        stochastic=True,
        stream_name="augment",
        batch_strategy="scan",
        field_key="x",
    )


def test_further_options_reproduce_the_documented_behaviour_by_default():
    config = config_of()
    assert (config.fill, config.channel_axis, config.seed) == (0.0, "auto", 0)
    assert (config.mode_object, config_of(mode="channel").mode_object) == (Pixel(), Channel())


COMMON = {
    "cacheable": (1, TypeError, "be a bool; got 1."),
    "stochastic": (None, TypeError, "be a bool; got None."),
    "batch_strategy": (
        "scam",
        ValueError,
        "be one of 'vmap', 'scan'; got 'scam'. Did you mean 'scan'?",
    ),
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
    with pytest.raises(error) as refused:
        cls(**field, **{name: value})
    assert str(refused.value) == f"{cls.__name__}.{name} must {text}"


def test_a_stream_must_have_a_name_and_statistics_one_source():
    for value, error, text in (
        ("", ValueError, "not be empty; got ''."),
        (3, TypeError, "be a string or None; got 3."),
    ):
        with pytest.raises(error) as refused:
            OperatorConfig(stochastic=True, stream_name=value)
        assert str(refused.value) == f"OperatorConfig.stream_name must {text}"
    with pytest.raises(ValueError, match="batch_stats_fn") as refused:
        OperatorConfig(batch_stats_fn=mean_of, precomputed_stats={})
    text = "OperatorConfig.precomputed_stats must be None if batch_stats_fn is given; got {}."
    assert str(refused.value) == text


RATE = "be a number or a real scalar array; got"
RANGE = "be a tuple of two numbers or None; got"
ORDER = "be (low, high) with low < high; got"
PAIR = "Pass a tuple such as (0.0, 1.0)."
OBJECT = "be a mode's name or a mode object such as Pixel(); got"
FILL = "be a number, or a fill's name or object such as Mean(); got"
AXIS = "be an int, 'auto' or None; got"
SEED = "be in [0, 4294967296); got"
REFUSED = [
    ("field_key", None, TypeError, "be a string; got None."),
    ("field_key", "", ValueError, "not be empty; got ''."),
    ("target_key", ["a"], TypeError, "be a string or None; got ['a']."),
    ("target_key", "", ValueError, "not be empty; got ''."),
    ("auxiliary_fields", ["a", "a"], ValueError, "name each field once; got ['a', 'a']."),
    ("auxiliary_fields", ("a",), TypeError, "be a list of field names or None; got ('a',)."),
    ("auxiliary_fields", "mask", TypeError, "be a list of field names or None; got 'mask'."),
    ("auxiliary_fields", ["image"], ValueError, "not name field_key itself; got ['image']."),
    ("clip_range", (0, "1"), TypeError, f"{RANGE} (0, '1'). {PAIR}"),
    ("clip_range", (False, True), TypeError, f"{RANGE} (False, True). {PAIR}"),
    ("clip_range", 1.0, TypeError, f"{RANGE} 1.0. {PAIR}"),
    ("clip_range", (1.0, 0.0), ValueError, f"{ORDER} (1.0, 0.0)."),
    ("clip_range", (1, 1), ValueError, f"{ORDER} (1, 1)."),
    ("clip_range", (0, 1, 2), ValueError, f"{ORDER} (0, 1, 2)."),
    ("clip_range", (), ValueError, f"{ORDER} ()."),
    ("clip_range", (0.0, np.nan), ValueError, f"{ORDER} (0.0, nan)."),
    ("preserve_auxiliary", 1, TypeError, "be a bool; got 1."),
    ("validate_domain_constraints", None, TypeError, "be a bool; got None."),
    ("dropout_rate", 1.5, ValueError, "be in [0.0, 1.0]; got 1.5."),
    ("dropout_rate", -1e-9, ValueError, "be in [0.0, 1.0]; got -1e-09."),
    ("dropout_rate", np.nan, ValueError, "be in [0.0, 1.0]; got nan."),
    ("dropout_rate", 2, ValueError, "be in [0.0, 1.0]; got 2."),
    ("dropout_rate", np.array(1.5), ValueError, "be in [0.0, 1.0]; got 1.5."),
    ("dropout_rate", "0.1", TypeError, f"{RATE} '0.1'."),
    ("dropout_rate", None, TypeError, f"{RATE} None."),
    ("dropout_rate", True, TypeError, f"{RATE} True."),
    ("dropout_rate", np.array(True), TypeError, f"{RATE} True."),
    ("dropout_rate", 0.1j, TypeError, f"{RATE} 0.1j."),
    ("dropout_rate", np.ones(2), TypeError, f"{RATE} an array of shape (2,) and dtype float64."),
    ("dropout_rate", jnp.ones(1), TypeError, f"{RATE} an array of shape (1,) and dtype float32."),
    ("dropout_rate", jnp.array(True), TypeError, f"{RATE} an array of shape () and dtype bool."),
    (
        "mode",
        "pixle",
        ValueError,
        "be one of 'pixel', 'channel', 'block', 'patch', 'box', 'grid', 'band', 'record'; "
        "got 'pixle'. Did you mean 'pixel'? Or write it as in Python, such as 'Box(count=3)'.",
    ),
    ("mode", None, TypeError, f"{OBJECT} None."),
    ("mode", Pixel, TypeError, f"{OBJECT} the class Pixel."),
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
    ("channel_axis", False, TypeError, f"{AXIS} False."),
    ("seed", 0.0, TypeError, "be an int; got 0.0."),
    ("seed", -1, ValueError, f"{SEED} -1."),
    ("seed", 2**32, ValueError, f"{SEED} 4294967296."),
]


@pytest.mark.parametrize(("name", "value", "error", "text"), REFUSED)
def test_a_wrong_argument_is_refused_with_its_name_value_and_cure(name, value, error, text):
    with pytest.raises(error) as refused:
        config_of(**{name: value})
    assert str(refused.value) == f"DropoutOperatorConfig.{name} must {text}"


def test_each_auxiliary_field_must_be_a_name():
    for value, error, text in ((3, TypeError, "be a string; got 3."), ("", ValueError, "not be e")):
        with pytest.raises(error, match=rf"auxiliary_fields\[1\] must {text}"):
            config_of(auxiliary_fields=["a", value])


@pytest.mark.parametrize("name", ["field_key", "fill", "clip_range"])
@pytest.mark.parametrize("value", [np.float32, Rngs(0)], ids=["dtype", "rngs"])
def test_a_value_of_a_foreign_kind_is_refused_in_the_same_words(name, value):
    with pytest.raises(TypeError, match=rf"^DropoutOperatorConfig\.{name} must be a.*; got "):
        config_of(**{name: value})


@pytest.mark.parametrize("number", [10**400, -(10**400)], ids=["large", "small"])
def test_a_whole_number_past_all_floats_is_taken_or_refused_in_words(number):
    with pytest.raises(ValueError, match=r"dropout_rate must be in \[0\.0, 1\.0\]; got a"):
        config_of(dropout_rate=number)
    assert config_of(fill=number).fill == number


def test_clip_range_is_two_numbers_in_order():
    for bounds in ("ab", ("0", "1"), [0, None], 1.0):
        with pytest.raises(TypeError, match="clip_range must be a tuple of two numbers or None"):
            det(clip_range=bounds)
    for bounds in ((0, np.nan), (np.nan, 1), (1, 1), (1, 0), (0,), (0, 1, 2), ()):
        with pytest.raises(ValueError, match=r"clip_range must be \(low, high\) with low < high"):
            det(clip_range=bounds)


def test_only_a_deterministic_config_refuses_a_stream_name():
    assert run(sto()).any()
    with pytest.raises(ValueError, match="stream_name must be None if stochastic is False"):
        det(stream_name="augment")


# The rate.

RATES = [0, 1, 0.25, np.float32(0.25), np.float64(0.25), np.array(0.25), np.int8(1), np.uint8(0)]


@pytest.mark.parametrize("rate", RATES, ids=repr)
def test_a_rate_that_is_known_becomes_a_float(rate):
    config = config_of(dropout_rate=rate)
    assert type(config.dropout_rate) is float
    assert config.dropout_rate == rate


@pytest.mark.parametrize(
    "rate", [jnp.float32(0.25), jnp.bfloat16(0.25), jnp.int32(1), jnp.array(9.0)]
)
def test_a_rate_on_a_device_is_kept_and_not_read(rate):
    assert config_of(dropout_rate=rate).dropout_rate is rate


def test_a_rate_may_be_any_real_scalar():
    rates = [np.float64(0.5), np.float32(0.5), np.array(0.5), jnp.float32(0.5), jnp.bfloat16(0.5)]
    for rate in rates:
        assert equal(run(det(dropout_rate=rate)), run(det()))
    for rate in (np.int64(1), jnp.int32(1)):
        assert not run(det(dropout_rate=rate)).any()
    for rate in (np.nan, np.inf, np.float32(-1), np.array(2)):
        with pytest.raises(ValueError, match=r"dropout_rate must be in \[0.0, 1.0\]"):
            det(dropout_rate=rate)


def test_a_traced_rate_is_taken_compiled_once_and_can_be_differentiated():
    traces = []

    @jax.jit
    def double(rate):
        traces.append(1)
        return config_of(dropout_rate=rate).replace(fill=1.0).dropout_rate * 2

    assert [float(double(rate)) for rate in (0.25, 0.5, 7.0)] == [0.5, 1.0, 14.0]
    assert len(traces) == 1
    assert float(jax.grad(double)(0.25)) == 2.0


def test_an_auxiliary_field_cannot_be_where_the_result_goes():
    text = r"auxiliary_fields must not name target_key itself; got \['out'\]\."
    with pytest.raises(ValueError, match=text):
        config_of(target_key="out", auxiliary_fields=["out"])


def test_whole_numbers_of_numpy_become_ints():
    config = config_of(seed=np.uint32(7), channel_axis=np.int64(-1))
    assert (config.seed, type(config.seed)) == (7, int)
    assert (config.channel_axis, type(config.channel_axis)) == (-1, int)
    assert config == config_of(seed=7, channel_axis=-1)


WORDS = {
    "rate of dropout": (
        lambda: dropax.dropout(KEY, IMAGES, rate=1.5),
        ValueError,
        "dropout.rate must be in [0.0, 1.0]; got 1.5.",
    ),
    "fill of dropout": (
        lambda: dropax.dropout(KEY, IMAGES, fill=0.5),
        ValueError,
        "dropout.fill must be exact in dtype uint8; got 0.5.",
    ),
    "statistics of dropout": (
        lambda: dropax.dropout(KEY, IMAGES, fill="stats_mean"),
        TypeError,
        "dropout.fill must be computed from the image; got 'stats_mean'.",
    ),
    "channel axis of dropout": (
        lambda: dropax.dropout(KEY, IMAGES, channel_axis=3),
        ValueError,
        "dropout.channel_axis must name an axis of an element of shape",
    ),
    "an unknown argument": (
        lambda: config_of(rate=0.1),
        TypeError,
        "got an unexpected keyword argument 'rate'. Did you mean 'dropout_rate'?",
    ),
    "an array as a fill": (
        lambda: config_of(fill=np.ones(3)),
        TypeError,
        "Pass fill='stats_mean' and stats={'mean': array}, which takes arrays.",
    ),
    "a batch of another library": (
        lambda: dropax.apply_batch(
            config_of(), dropax.init_state(config_of()), types.MappingProxyType({"image": IMAGES})
        ),
        TypeError,
        "Pass a dict of its arrays, such as dict(batch).",
    ),
}
KEY, IMAGES = jax.random.key(0), np.ones((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(("call", "error", "text"), WORDS.values(), ids=WORDS)
def test_an_error_is_in_the_words_of_the_call_and_says_what_to_write_instead(call, error, text):
    with pytest.raises(error) as refused:
        call()
    assert text in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"mode": "box"}, {"mode": dropax.Box()}),
        ({"mode": "box"}, {"mode": "Box()"}),
        ({"fill": "mean"}, {"fill": dropax.Mean()}),
        ({"auxiliary_fields": ["a"], "auxiliary_fill": ["mean"]}, {"auxiliary_fields": ["a"]}),
    ],
    ids=str,
)
def test_equal_configs_are_trees_of_one_structure(one, other):
    if "auxiliary_fill" in one:
        other = {**other, "auxiliary_fill": (dropax.Mean(),)}
    one, other = (DropoutOperatorConfig(field_key="image", **options) for options in (one, other))
    assert one == other
    assert jax.tree.structure(one) == jax.tree.structure(other)
