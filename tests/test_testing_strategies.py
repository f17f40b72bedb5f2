"""The strategies draw what dropax takes, all of it, and shrink to what can be read."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from dropax import (
    Batch,
    Blocks,
    Channel,
    DropoutOperatorConfig,
    FromField,
    Inverted,
    OneOf,
    OperatorConfig,
    Shared,
    apply,
    generate_random_params,
    init_state,
)
from dropax.modes import MODES
from dropax.testing import (
    batches,
    configs,
    data_shapes,
    elements,
    images,
    keys,
    operator_states,
    regions,
)
from dropax.testing.strategies import LAYOUTS


def finds(strategy, wanted, *, shrink=True, among=1000):
    """An example of which something is true, the simplest one; there must be one."""
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    return find(strategy, wanted, settings=settings(max_examples=among, phases=phases))


def assert_reaches(strategy, wanted):
    """Asserts that among the examples there is one of which each function says True."""
    missing = dict(wanted)

    def has_the_last(example):
        for name in [name for name, is_so in missing.items() if is_so(example)]:
            del missing[name]
        return not missing

    with contextlib.suppress(NoSuchExample):
        finds(strategy, has_the_last, shrink=False)
    assert not missing


@settings(max_examples=15)
@given(configs(), st.data())
def test_a_config_and_an_element_of_its_own_go_together(config, data):
    element = data.draw(elements(config))
    shape = data.draw(data_shapes(config, size=2))
    if config.stochastic:
        # By shape alone: nothing is compiled.
        jax.eval_shape(lambda key: generate_random_params(config, key, shape), jax.random.key(0))
    parts = {"data": element.data, "state": element.state}

    def run(key, parts):
        params = None
        if config.stochastic:
            shapes = jax.tree.map(lambda leaf: (1, *leaf.shape), parts["data"])
            params = generate_random_params(config, key[None], shapes)
            params = jax.tree.map(lambda leaf: leaf[0], params)
        stats = config.precomputed_stats
        return apply(config, parts["data"], parts["state"], {}, params, stats)[:2]

    out, state = jax.eval_shape(run, jax.random.key(0), parts)
    assert state["seen"].dtype == jnp.uint32
    assert "label" in out


@given(batches(size=st.integers(2, 3), kinds=("dict", "Batch")))
def test_batches_are_of_either_kind(batch):
    assert batch["image"].shape[0] in (2, 3)
    if isinstance(batch, Batch):
        assert batch.metadata_list == [{"name": number} for number in range(len(batch))]


@given(configs(mode="channel", fill=st.just(0.0), target_key=None, seed=7))
def test_what_is_given_is_kept(config):
    assert (config.mode, config.fill, config.target_key, config.seed) == ("channel", 0.0, None, 7)


@given(configs(auxiliary_fields=["depth"], mode="box"), st.data())
def test_auxiliary_fields_come_with_the_image(config, data):
    element = data.draw(elements(config))
    assert element.data["depth"].dtype == np.float32


def test_configs_shrink_to_the_defaults():
    config = finds(configs(), lambda config: True)
    assert config == DropoutOperatorConfig(field_key="image", stochastic=True, dropout_rate=0.5)
    config = finds(configs(), lambda config: config.fill == "noise" and config.rescale)
    assert config == DropoutOperatorConfig(
        field_key="image", stochastic=True, dropout_rate=0.5, fill="noise", rescale=True
    )


WANTED = {
    "deterministic": lambda config: not config.stochastic,
    "a range of rates": lambda config: isinstance(config.dropout_rate, tuple),
    "all": lambda config: config.dropout_rate == 1.0,
    "a mode by name": lambda config: config.mode == "band",
    "a mode by object": lambda config: not isinstance(config.mode, str),
    "statistics": lambda config: (
        config.fill == "stats_mean" and config.precomputed_stats is not None
    ),
    "a number": lambda config: isinstance(config.fill, float) and config.fill not in (0.0, 1.0),
    "a range of values": lambda config: config.clip_range is not None,
    "nested fields": lambda config: (
        config.field_key == "camera.rgb" and config.target_key == "views.dropped"
    ),
    "a mask that is kept": lambda config: config.mask_key == "kept" and config.share_mask,
    "some records": lambda config: (
        config.apply_probability is not None and config.batch_strategy == "scan"
    ),
    "a seed": lambda config: config.seed > 0,
    "some places": lambda config: config.where_key == "may_drop" and config.rescale,
    "a field": lambda config: config.fill == FromField("other"),
}


def test_configs_reach_every_option():
    assert_reaches(configs(), WANTED)


@pytest.mark.parametrize("mode", MODES)
def test_regions_of_every_mode(mode):
    kind = type(MODES[mode])
    assert isinstance(finds(regions(), lambda region: isinstance(region, kind)), kind)
    assert isinstance(finds(regions(modes=(mode,)), lambda region: True), kind)
    others = tuple(set(MODES) - {mode})
    with pytest.raises(NoSuchExample):
        finds(regions(modes=others), lambda region: isinstance(region, kind))


@pytest.mark.parametrize("kind", [Blocks, OneOf, Shared, Inverted])
def test_regions_that_no_mode_is_named_after(kind):
    assert isinstance(finds(regions(), lambda region: isinstance(region, kind)), kind)
    assert isinstance(finds(regions(modes=(kind.__name__,)), lambda region: True), kind)


def test_regions_with_exact_numbers():
    for mode in ("patch", "channel"):
        assert finds(regions(modes=(mode,)), lambda region: region.exact).exact


@given(configs(mode=regions(modes=("channel",), min_kept=st.integers(0, 7))), st.data())
def test_elements_have_the_channels_that_are_kept(config, data):
    assert isinstance(config.mode_object, Channel)
    image = data.draw(elements(config)).data[config.field_key.split(".")[0]]
    image = image["rgb"] if isinstance(image, dict) else image
    least = config.mode_object.min_kept
    assert least < 2 or image.shape[-1] >= least


@given(configs(mode=regions(modes=("grid",), rotate=90)), st.data())
def test_a_grid_that_turns_gets_two_spatial_axes(config, data):
    *_, shape = jax.tree.leaves(
        data.draw(data_shapes(config)), is_leaf=lambda x: isinstance(x, tuple)
    )
    assert len(shape) - 1 in (2, 3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_of_every_layout(layout):
    strategy = images(layouts=(layout,), shape=(3, 4, 2), dtypes=("float32",), special=False)
    image = finds(strategy, lambda image: len(np.unique(image)) > 2)
    flags = image.flags
    is_so = {
        "C": flags.c_contiguous and flags.writeable,
        "F": flags.f_contiguous,
        "strided": not flags.c_contiguous and image.strides[-1] == 8,
        "reversed": image.strides[0] < 0,
        "read-only": not flags.writeable,
    }
    assert is_so[layout]
    np.testing.assert_array_equal(jnp.asarray(image), np.ascontiguousarray(image))


DTYPES = [
    jnp.dtype(name)
    for name in ("float32", "bfloat16", "float16", "uint8", "int32", "int16", "bool")
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_images_of_every_dtype_and_its_extremes(dtype):
    any_image = images(dtypes=(dtype.name,), ranks=(1,), max_side=4, layouts=("C",))
    image = finds(any_image, lambda image: True)
    assert image.dtype == dtype
    assert image.size == 1
    assert not image.any()
    if jnp.issubdtype(dtype, jnp.integer):
        most = jnp.iinfo(dtype).max
        assert finds(any_image, lambda image: (image == most).any()).size == 1
    elif dtype != jnp.bool_:
        most, tiny = float(jnp.finfo(dtype).max), float(jnp.finfo(dtype).tiny)
        odd = {
            "not a number": lambda image: np.isnan(image).any(),
            "infinite": lambda image: np.isinf(image).any(),
            "the largest": lambda image: (image == most).any(),
            "subnormal": lambda image: ((image != 0) & (abs(image) < tiny)).any(),
        }
        many = images(dtypes=(dtype.name,), shape=(30,), layouts=("C",))
        assert_reaches(many.map(lambda image: image.astype(np.float64)), odd)


@given(images(dtypes=("float32", "uint8"), low=200.0, special=False))
def test_images_beyond_what_is_usual(image):
    assert (image >= 200).all()


@given(images(dtypes=("float32", "uint8", "bool"), low=0.0, high=1.0))
def test_images_within_a_range(image):
    assert np.nanmin(image, initial=0) >= 0
    assert np.nanmax(image, initial=1) <= 1


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_images_of_every_rank(rank):
    image = finds(images(ranks=(rank,), max_side=3), lambda image: image.size > 1)
    assert image.ndim == rank
    assert max(image.shape) <= 3


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_every_implementation(impl):
    key = finds(keys(), lambda key: str(jax.random.key_impl(key)) == impl)
    assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    np.testing.assert_array_equal(
        jax.random.key_data(key), jax.random.key_data(jax.random.key(0, impl=impl))
    )


def test_legacy_keys_come_on_request():
    key = finds(keys(implementations=(), legacy=True), lambda key: True)
    assert (key.dtype, key.shape) == (jnp.uint32, (2,))
    with pytest.raises(NoSuchExample):
        finds(keys(), lambda key: key.dtype == jnp.uint32, among=100)


def test_operator_states_shrink_to_the_first_and_reach_the_last():
    state = finds(operator_states(), lambda state: True)
    config = DropoutOperatorConfig(field_key="image", stochastic=True)
    first = init_state(config, jax.random.key(0))
    assert repr(state) == repr(first)
    for is_wanted in (
        lambda state: int(state.step) == 2**32 - 1,
        lambda state: int(state.applied_count[0]) == 2**32 - 1,
        lambda state: state.statistics is not None,
    ):
        assert finds(operator_states(), is_wanted, shrink=False)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: regions(modes=("pixle",)),
            r"regions\.modes must be one of .*Did you mean 'pixel'",
        ),
        (lambda: regions(modes=()), r"regions\.modes must name a mode; got \(\)"),
        (lambda: keys(implementations=("fry",)), r"keys\.implementations must be one of"),
        (lambda: keys(implementations=()), r"keys\.implementations must name one if legacy"),
        (lambda: images(dtypes=("uint7",)).example(), r"images\.dtypes must be one of"),
        (lambda: images(layouts=("G",)).example(), r"images\.layouts must be one of"),
        (lambda: batches(kinds=("list",)).example(), r"batches\.kinds must be one of"),
        (
            lambda: elements(
                DropoutOperatorConfig(field_key="image", channel_axis=3), ranks=(2,)
            ).example(),
            r"elements\.ranks must have one that the config fits; got \(2,\)",
        ),
        (
            lambda: elements(
                DropoutOperatorConfig(field_key="image", rescale=True), dtypes=("uint8",)
            ).example(),
            r"elements\.dtypes must have one that the config takes; got \('uint8',\)",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_what_cannot_be_drawn_is_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
@pytest.mark.parametrize("strategy", [elements, batches, data_shapes])
def test_data_needs_a_field(strategy):
    text = rf"{strategy.__name__}\.config must be a config with a field_key; got OperatorConfig\(\)"
    with pytest.raises(TypeError, match=text):
        strategy(OperatorConfig()).example()
