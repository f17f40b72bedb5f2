"""Configs as values of JSON and YAML, modes and fills as text: written and read, or refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from cases import MODES, refuses, through_json
from dropax import Box, Channel, DropoutOperatorConfig, Grid, Inverted, OneOf, Patch, Pixel
from dropax.modes import as_mode

config_of = functools.partial(DropoutOperatorConfig, field_key="image")


@dataclasses.dataclass(frozen=True)
class Disc:
    """A mode of a user's own, which holds another."""

    radius: int = 3
    inside: object = "box"

    def sample(self, key, element_shape, rate):
        return jnp.ones(element_shape, bool)


WRITTEN = [
    ("box", "box", Box()),
    (" box ", "box", Box()),
    ("\tBox(count=3)\n", "Box(count=3)", Box(count=3)),
    ("Box()", "box", Box()),
    ("Box(count=3)", "Box(count=3)", Box(count=3)),
    (" Box( 2,\n border = 'clip') ", "Box(count=2, border='clip')", Box(2, border="clip")),
    ("Band(axis=-1)", "Band(axis=-1)", dropax.Band(axis=-1)),
    ("Patch([8, 16])", "Patch(size=(8, 16))", Patch((8, 16))),
    ("Grid((2, 9), rotate=4.5)", "Grid(unit=(2, 9), rotate=4.5)", Grid((2, 9), 4.5)),
    (
        "OneOf(('box', Channel(groups=[[0, 2], [1]])), weights=(3, 1))",
        "OneOf(modes=(Box(), Channel(groups=((0, 2), (1,)))), weights=(3, 1))",
        OneOf(("box", Channel(groups=((0, 2), (1,)))), weights=(3, 1)),
    ),
    (
        "Inverted(Shared(mode='Patch(4)', axes=(0, -1)))",
        "Inverted(mode=Shared(mode=Patch(size=4), axes=(0, -1)))",
        Inverted(dropax.Shared(Patch(4), axes=(0, -1))),
    ),
]


@pytest.mark.parametrize(("text", "canonical", "mode"), WRITTEN, ids=[row[1] for row in WRITTEN])
def test_a_mode_is_written_as_in_python(text, canonical, mode):
    config = config_of(mode=text)
    assert as_mode(text, "mode") == config.mode_object == mode
    assert config == config_of(mode=mode)
    assert hash(config) == hash(config_of(mode=mode))
    assert jax.tree.structure(config) == jax.tree.structure(config_of(mode=mode))
    assert config.to_dict()["mode"] == config_of(mode=mode).to_dict()["mode"] == canonical


def test_a_name_reads_back_as_the_name_and_other_text_as_the_object():
    assert config_of(mode="pixel").mode == config_of(mode=" pixel ").mode == "pixel"
    assert config_of(mode="Pixel()").mode == Pixel()
    assert config_of(fill="FromField('a.b')").fill == dropax.FromField("a.b")
    assert (config_of(fill="-0.5").fill, config_of(fill="(1, 2.5)").fill) == (-0.5, (1, 2.5))
    assert config_of(fill="FromField('a')").to_dict()["fill"] == "FromField(field='a')"


def test_text_is_taken_wherever_a_mode_is(key):
    images = jnp.ones((2, 6, 6, 3))
    for text, mode in (("Box(count=2)", Box(count=2)), ("OneOf(['box'])", OneOf(("box",)))):
        out = dropax.dropout(key, images, mode=text, fill="9")
        np.testing.assert_array_equal(out, dropax.dropout(key, images, mode=mode, fill=9))
    assert Inverted("Box(2)") == Inverted(Box(2))
    assert OneOf(["Box(2)"]) == OneOf((Box(2),))
    assert dropax.presets.rate_for_side("Box(border='clip')", 16, (32, 32, 3)) > 0


PYTHON = "must be written as in Python, such as 'Box(count=3)'; got"
BAD = {
    "  Bax(3)": "At character 3: there is no 'Bax'. Did you mean 'Box'?",
    "Bax(3)": "At character 1: there is no 'Bax'. Did you mean 'Box'?",
    "Box(cuont=3)": "At character 5: Box has no option 'cuont'. Did you mean 'count'?",
    "Box(count=0)": "At character 1: Box.count must be from 1 to 64; got 0.",
    "Box(1, count=1)": "At character 1: Box got multiple values for argument 'count'.",
    "Box(1, (1, 1), 'clip', 4)": "Box takes from 1 to 4 positional arguments but 5 were given",
    "Box(count=1, count=2)": "At character 14: the option 'count' is repeated.",
    "Box(**{})": "At character 5: Box has no option None.",
    "Box(count=1+2)": "At character 11: '1+2' is neither a literal nor a call of a class.",
    "Box(count=len('a'))": "At character 11: there is no 'len'.",
    "Inverted(Box('ä', b=1))": "At character 19: Box has no option 'b'.",
    "Box(count=1": "At character 4: '(' was never closed.",
    "Box(count=3j)": "At character 11: '3j' is neither a literal nor a call of a class.",
    "(1).real()": "At character 1: '(1).real()' is neither a literal nor a call of a class.",
    "Shared('box')": "At character 1: Shared missing 1 required positional argument: 'axes'.",
    "(" * 300: "",
}


@pytest.mark.parametrize("text", BAD, ids=[text[:20] for text in BAD])
def test_bad_text_is_refused_by_what_is_wrong_and_where(text):
    with pytest.raises(ValueError, match=r"^Config\.mode must be written as in Python") as refused:
        as_mode(text, "Config.mode")
    message = str(refused.value)
    if len(text) < 80:
        assert message.startswith(f"Config.mode {PYTHON} {text!r}. At character ")
        assert BAD[text] in message


def test_text_that_is_no_mode_is_refused_as_a_value():
    for text in ("3", "('box',)", "None"):
        with pytest.raises((TypeError, ValueError), match=r"^Config\.mode must be .*; got"):
            as_mode(text, "Config.mode")
    with pytest.raises(ValueError, match="there is no 'FromField'"):
        as_mode("FromField('a')", "Config.mode")


def test_lists_and_numbers_of_numpy_are_taken_for_tuples_and_pythons():
    one, half = np.int64(1), np.float32(0.5)
    assert Box(count=one, aspect_ratio=[half, 2]) == Box(count=1, aspect_ratio=(0.5, 2))
    assert repr(Box(count=one, aspect_ratio=[half, 2])) == repr(Box(1, (0.5, 2)))
    assert Patch([np.uint8(4), 8], exact=np.bool_(True)) == Patch((4, 8), exact=True)
    assert Channel(groups=[[0], [one]]) == Channel(groups=((0,), (1,)))
    assert OneOf(["box", Pixel()], weights=[1, half]) == OneOf(("box", Pixel()), (1, 0.5))
    assert Grid(unit=[2, 4]) == Grid(unit=(2, 4))
    wanted = {"dropout_rate": (0.1, 0.5), "clip_range": (0, 1), "fill": (0, 0.5, 1), "seed": 1}
    given = {"dropout_rate": [0.1, half], "clip_range": [0, one], "fill": [0, half, 1], "seed": one}
    config = config_of(stochastic=True, channel_axis=-one, **given)
    assert config == config_of(stochastic=True, channel_axis=-1, **wanted)
    assert repr({name: getattr(config, name) for name in wanted}) == repr(wanted)
    assert type(config.channel_axis) is int


@pytest.mark.parametrize("mode", [*MODES.values(), *(mode for *_, mode in WRITTEN)], ids=str)
def test_modes_come_back_equal(mode):
    config = config_of(mode=mode)
    assert through_json(config) == config
    assert through_json(config).mode_object == config.mode_object


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
    {"dropout_rate": jnp.bfloat16(0.1)},
    {"dropout_rate": np.float32(0.1)},
    {"stochastic": True, "dropout_rate": (jnp.float32(0.1), 1), "apply_probability": jnp.int32(1)},
    {"fill": np.float32(0.1), "clip_range": (-1, np.float64(np.inf))},
    {
        "fill": dropax.FromField("it's"),
        "mode": OneOf((Inverted("box"), Channel(groups=((1,), (0,))))),
    },
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
    for config in (
        dropax.OperatorConfig(cacheable=True),
        dropax.ModalityOperatorConfig(field_key="a"),
    ):
        assert through_json(config) == config


def test_the_values_are_flat_and_say_what_they_are():
    values = config_of(mode=Channel(min_kept=1), clip_range=(0, np.inf)).to_dict()
    assert list(values) == [*(f.name for f in dataclasses.fields(DropoutOperatorConfig))]
    assert values["mode"] == "Channel(min_kept=1)"
    assert values["clip_range"] == [0, "inf"]
    assert DropoutOperatorConfig.from_dict({"field_key": "image"}) == config_of()
    rate = config_of(dropout_rate=np.float32(0.1)).dropout_rate
    assert type(rate) is float
    assert rate == config_of(dropout_rate=rate).to_dict()["dropout_rate"] == np.float32(0.1)
    # Statistics are lists with their dtype.
    mean = np.array([1.5, np.nan], np.float32)
    values = config_of(precomputed_stats={"mean": mean}).to_dict()["precomputed_stats"]
    assert values == {"mean": {"dtype": "float32", "shape": [2], "values": [1.5, "nan"]}}


def test_a_mode_of_a_users_own_takes_part_by_its_class():
    for mode in (Disc(), Disc(2, Disc(1)), dropax.Shared(Disc(2), 0), OneOf((Disc(2), "box"))):
        config = config_of(mode=mode)
        assert through_json(config, types=(Disc,)) == config
        with pytest.raises(ValueError, match="there is no 'Disc'"):
            through_json(config)
    assert config_of(mode=Disc(2)).to_dict()["mode"] == "Disc(radius=2)"
    with pytest.raises(TypeError, match=r"from_dict\.types\[0\] must be a dataclass; got"):
        through_json(config_of(), types=(int,))


class Opaque(Disc):
    """A mode that is no dataclass of what text can hold."""

    def __init__(self):
        vars(self)["radius"] = len
        vars(self)["inside"] = None


OWNER, LEN = "DropoutOperatorConfig", "<built-in function len>"
STATS, FINITE = f"{OWNER}.precomputed_stats['z'] must be", "finite numbers, text, lists or arrays"
NO_FORM = [
    ({"batch_stats_fn": len}, f"{OWNER}.batch_stats_fn must be plain values; got {LEN}. Functions"),
    ({"mode": Opaque()}, f"Opaque.radius must be plain values; got {LEN}. Functions, traced val"),
    *(
        ({"precomputed_stats": {"z": value}}, f"{STATS} {FINITE}; got {shown}. A tuple would come ")
        for value, shown in (
            (np.ones(2, np.complex64), "an array of shape (2,) and dtype complex64"),
            ((1, 2), "(1, 2)"),
            (float("nan"), "nan"),
            (len, LEN),
        )
    ),
    ({"precomputed_stats": {"z": {1: 2}}}, f"{STATS} named by strings, which are not just dtype, "),
]


@pytest.mark.parametrize(("options", "text"), NO_FORM, ids=[text[-90:-60] for _, text in NO_FORM])
def test_what_has_no_plain_form_is_refused_by_name(options, text):
    with refuses(TypeError, text):
        config_of(**options).to_dict()


def test_a_traced_or_mapped_rate_has_no_plain_form():
    with pytest.raises(TypeError, match=r"DropoutOperatorConfig.dropout_rate must be plain values"):
        jax.jit(lambda rate: config_of(dropout_rate=rate).to_dict())(0.5)
    rates = jax.vmap(lambda rate: config_of(dropout_rate=rate))(jnp.ones(3))
    with pytest.raises(TypeError, match=r"DropoutOperatorConfig.dropout_rate must be plain values"):
        rates.to_dict()


def test_what_to_dict_did_not_write_is_refused():
    owner = f"{OWNER}.from_dict.values"
    with refuses(TypeError, f"{owner} must be a dict as to_dict returns it; got []."):
        DropoutOperatorConfig.from_dict([])
    with refuses(ValueError, f"{owner}: a field must be one of 'cacheable', "):
        DropoutOperatorConfig.from_dict({"field_key": "a", "rate": 1})


@pytest.mark.parametrize(
    "part",
    [
        {"dtype": "float32", "shape": [1], "values": ["many"]},
        {"dtype": "float32", "shape": [1], "values": None},
        {"dtype": "float99", "shape": [1], "values": [1]},
        {"dtype": "float32", "shape": [2], "values": [1]},
    ],
    ids=str,
)
def test_an_array_that_to_dict_did_not_write_is_refused_by_name(part):
    text = "OperatorConfig.precomputed_stats['mean'] must be an array as to_dict writes it; got"
    with refuses(ValueError, text):
        dropax.OperatorConfig.from_dict({"precomputed_stats": {"mean": part}})
