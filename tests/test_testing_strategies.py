"""The strategies draw what dropax takes, all of it, and shrink to what can be read."""

import collections
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings, strategies as st
from hypothesis.errors import NoSuchExample

from dropax import (
    Batch,
    Channel,
    DropoutOperatorConfig,
    FromField,
    OneOf,
    OperatorConfig,
    apply,
    generate_random_params,
    init_state,
    presets,
)
from dropax.modes import MODES, TYPES
from dropax.testing import (
    batches,
    configs,
    data_shapes,
    elements,
    images,
    keys,
    modes,
    operator_states,
    preset_configs,
)
from dropax.testing.drops import same_bits
from dropax.testing.strategies import DTYPES, LAYOUTS, limits


def drawn(strategy, count=200):
    """Returns what a strategy draws."""
    found = []
    slow = [HealthCheck.too_slow]
    options = {"derandomize": True, "deadline": None, "suppress_health_check": slow}
    run = given(strategy)(lambda value: found.append(value))
    settings(max_examples=count, phases=[Phase.generate], **options)(run)()
    return found


def simplest(strategy, wanted=lambda value: True):
    return find(strategy, wanted, settings=settings(max_examples=1000, deadline=None))


@settings(max_examples=20, deadline=None)
@given(configs() | preset_configs(), st.data())
def test_a_config_and_an_element_of_its_own_go_together(config, data):
    element = data.draw(elements(config, max_side=16))

    def run(key, fields, state):
        params = None
        if config.stochastic:
            shapes = jax.tree.map(lambda leaf: (1, *leaf.shape), fields)
            params = generate_random_params(config, key[None], shapes)
            params = jax.tree.map(lambda leaf: leaf[0], params)
        return apply(config, fields, state, {}, params, config.precomputed_stats)[:2]

    # By shape alone: nothing is compiled.
    out, state = jax.eval_shape(run, jax.random.key(0), element.data, element.state)
    assert state["seen"].dtype == jnp.uint32
    assert "label" in out


def test_configs_shrink_to_the_defaults_and_keep_what_is_given():
    plain = {"field_key": "image", "stochastic": True, "dropout_rate": 0.5}
    assert simplest(configs()) == DropoutOperatorConfig(**plain)
    config = simplest(configs(), lambda config: config.fill == "noise" and config.rescale)
    assert config == DropoutOperatorConfig(**plain, fill="noise", rescale=True)
    for config in drawn(configs(mode="channel", fill=st.just(0.0), target_key=None, seed=7), 20):
        assert (config.mode, config.fill, config.target_key, config.seed) == ("channel", 0, None, 7)


WANTED = {
    "stochastic": lambda value: not value,
    "dropout_rate": lambda value: isinstance(value, tuple),
    "mode": lambda value: value == "band",
    "fill": lambda value: value in ("stats_mean", FromField("other")),
    "fill ": lambda value: isinstance(value, tuple),
    "channel_axis": lambda value: value == 0,
    **dict.fromkeys(("target_key", "mask_key", "where_key", "clip_range"), bool),
    **dict.fromkeys(("apply_probability", "auxiliary_fields", "share_mask"), bool),
    "batch_strategy": lambda value: value == "scan",
    "preserve_auxiliary": lambda value: not value,
}


def test_configs_reach_every_option():
    found = drawn(configs(), 300)
    for name, is_so in WANTED.items():
        assert any(is_so(getattr(config, name.strip())) for config in found), name


def test_modes_are_drawn_with_fair_shares_and_every_option():
    found = drawn(modes(), 400)
    shares = collections.Counter(type(mode).__name__ for mode in found)
    assert set(shares) == set(TYPES)
    assert max(shares.values()) < 4 * 400 / len(TYPES)
    assert any(isinstance(mode, OneOf) and mode.weights for mode in found)
    channels = [mode for mode in found if isinstance(mode, Channel)]
    assert any(mode.groups for mode in channels)
    assert any(mode.min_kept for mode in channels)
    assert {mode.exact for mode in channels} == {False, True}


@pytest.mark.parametrize("name", [*MODES, "Blocks", "OneOf"])
def test_modes_of_one_name(name):
    kind = type(MODES[name]).__name__ if name in MODES else name
    assert {type(mode).__name__ for mode in drawn(modes(names=(name,)), 10)} == {kind}


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_of_one_name(name):
    assert all(config.stochastic for config in drawn(preset_configs(names=(name,)), 10))


def test_data_has_the_channels_and_axes_that_a_mode_needs():
    options = {"channel_axis": "auto", "field_key": "image", "fill": 0.0}
    config = configs(mode=modes(names=("channel",)), **options)
    pairs = config.flatmap(lambda config: st.tuples(st.just(config), data_shapes(config)))
    for config, shapes in drawn(pairs, 100):
        shape, mode = shapes["image"], config.mode_object
        channels = shape[-1] if len(shape) > 3 else 1
        assert channels >= (mode.min_kept if mode.groups is None else sum(map(len, mode.groups)))
    turned = configs(mode=modes(names=("grid",), rotate=90), channel_axis=None, field_key="image")
    for shapes in drawn(turned.flatmap(data_shapes), 20):
        assert len(shapes["image"]) == 3


def test_batches_reach_large_sides_many_channels_and_more_than_256_records():
    data = batches(ranks=(3,))
    search = settings(max_examples=1000, deadline=None, phases=[Phase.generate])
    for wanted in (
        lambda image: len(image) > 256,
        lambda image: image.shape[1] > 16,
        lambda image: image.shape[3] == 1,
        lambda image: image.shape[3] == 8,
    ):
        find(data, lambda batch, wanted=wanted: wanted(batch["image"]), settings=search)
    found = drawn(batches(ranks=(3,), kinds=("dict", "Batch")), 200)
    assert {batch["image"].dtype.name for batch in found} == set(DTYPES)
    assert {type(batch) for batch in found} == {dict, Batch}


def test_a_draw_takes_a_few_milliseconds():
    start = time.process_time()
    drawn(configs().flatmap(batches), 100)
    assert time.process_time() - start < 100 * 0.05  # of which most is Hypothesis's own


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_of_every_layout(layout):
    (image,) = drawn(images(layouts=(layout,), shape=(3, 4, 2), dtypes=("float32",)), 1)
    is_so = {
        "C": image.flags.c_contiguous and image.flags.writeable,
        "F": image.flags.f_contiguous,
        "strided": image.strides[-1] == 8,
        "reversed": image.strides[0] < 0,
        "read-only": not image.flags.writeable,
    }
    assert is_so[layout]


@pytest.mark.parametrize("name", DTYPES)
def test_half_of_the_images_hold_the_extremes_of_their_dtype(name):
    image = simplest(images(dtypes=(name,), ranks=(1,), layouts=("C",)))
    assert (image.dtype, image.size, image.any()) == (jnp.dtype(name), 1, False)
    found = [x.astype(np.float64) for x in drawn(images(dtypes=(name,), shape=(40,)), 60)]
    _, least, most = limits(jnp.dtype(name))
    extremes = [least, most]
    if jnp.issubdtype(jnp.dtype(name), jnp.floating):
        extremes += [np.nan, np.inf, -0.0, float(jnp.finfo(name).smallest_subnormal)]
    for value in extremes:
        same = [same_bits(image, np.asarray(value, np.float64)).any() for image in found]
        assert sum(same) >= 15, value
    plain = drawn(images(dtypes=(name,), shape=(40,), special=False), 20)
    assert all((np.abs(image.astype(np.float64)) < 100).all() for image in plain)


@pytest.mark.parametrize(("low", "high"), [(200.0, 255.0), (0.0, 1.0)])
def test_images_within_a_range(low, high):
    for image in drawn(images(dtypes=("float32", "uint8"), low=low, high=high), 30):
        assert np.nanmin(image, initial=low) >= low
        assert np.nanmax(image, initial=high) <= high


def test_keys_of_every_implementation_and_legacy_ones_on_request():
    found = drawn(keys(), 50)
    assert {str(jax.random.key_impl(key)) for key in found} == {"threefry2x32", "rbg", "unsafe_rbg"}
    key = simplest(keys(implementations=(), legacy=True))
    assert (key.dtype, key.shape) == (jnp.uint32, (2,))


def test_operator_states_shrink_to_the_first_and_reach_the_last():
    config = DropoutOperatorConfig(field_key="image", stochastic=True)
    assert repr(simplest(operator_states())) == repr(init_state(config, jax.random.key(0)))
    found = drawn(operator_states(), 100)
    assert any(int(state.step) == 2**32 - 1 for state in found)
    assert any(int(state.applied_count[0]) == 2**32 - 1 for state in found)
    assert any(state.statistics is not None for state in found)


RESCALED = DropoutOperatorConfig(field_key="image", rescale=True)
FOURTH = DropoutOperatorConfig(field_key="image", channel_axis=3)


REFUSED = [
    (lambda: modes(names=("pixle",)), r"modes\.names must be one of .*Did you mean 'pixel'"),
    (lambda: modes(names=()), r"modes\.names must name a mode; got \(\)"),
    (lambda: preset_configs(names=("cutot",)), r"preset_configs\.names must be one of"),
    (lambda: keys(implementations=("fry",)), r"keys\.implementations must be one of"),
    (lambda: keys(implementations=()), r"keys\.implementations must name one if legacy"),
    (lambda: images(dtypes=("uint7",)), r"images\.dtypes must be one of"),
    (lambda: images(layouts=("G",)), r"images\.layouts must be one of"),
    (lambda: batches(kinds=("list",)), r"batches\.kinds must be one of"),
    (lambda: elements(FOURTH, ranks=(2,)), r"ranks must have one that the config fits; got"),
    (lambda: elements(RESCALED, dtypes=("uint8",)), r"dtypes must have one that the config"),
    (lambda: elements(OperatorConfig()), r"elements\.config must be a config with a field_key"),
]


@pytest.mark.parametrize(("make", "text"), REFUSED)
def test_what_cannot_be_drawn_is_refused(make, text):
    with pytest.raises((TypeError, ValueError, NoSuchExample), match=text):
        simplest(make())
