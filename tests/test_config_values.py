"""Configs as values: trees of their rate, equal and hashed by value, copied whole."""

import collections
import copy
import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st
from jax.tree_util import keystr

import dropax
from cases import refuses, through_pickle
from dropax import Box, Channel, DropoutOperatorConfig, FromField, OperatorConfig, Pixel

config_of = functools.partial(DropoutOperatorConfig, field_key="image")


def test_the_rate_is_the_one_leaf_and_the_path_says_so():
    config = config_of(dropout_rate=0.25, precomputed_stats={"mean": np.ones(3)})
    found = jax.tree_util.tree_flatten_with_path(config)[0]
    assert [(keystr(path), leaf) for path, leaf in found] == [(".dropout_rate", 0.25)]
    assert jax.tree.leaves(OperatorConfig()) == []


def test_a_probability_is_a_leaf_whatever_its_value_and_none_says_always():
    assert jax.tree.leaves(config_of()) == [0.1]
    for probability in (0.5, 1.0):
        config = config_of(stochastic=True, apply_probability=probability)
        assert jax.tree.leaves(config) == [0.1, probability]
    assert config != config_of(stochastic=True)
    assert jax.tree.structure(config) == jax.tree.structure(config.replace(apply_probability=0.5))


ODD = [None, object(), 0, "text", (1, 2), jnp.ones(3), jax.ShapeDtypeStruct((), np.float32)]


@pytest.mark.parametrize("leaf", ODD, ids=lambda leaf: type(leaf).__name__)
def test_anything_may_be_put_into_a_leaf_and_taken_out_and_shown(leaf):
    config = config_of(stochastic=True, auxiliary_fields=["mask"])
    odd = jax.tree.map(lambda _: leaf, config)
    assert type(odd) is DropoutOperatorConfig
    assert odd.dropout_rate is leaf
    assert (odd.stochastic, odd.auxiliary_fields) == (True, ["mask"])
    assert repr(odd).startswith("DropoutOperatorConfig(stochastic=True, field_key='image', ")
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):  # they can still be compared
        assert odd == jax.tree.map(lambda x: x, odd)
        assert odd != config
    if jax.tree.structure(leaf) == jax.tree.structure(0):
        assert jax.tree.map(lambda x: x, odd).dropout_rate is leaf
        assert jax.tree.structure(odd) == jax.tree.structure(config)


def test_a_config_is_mapped_over_its_rates():
    rates = jnp.asarray([0.0, 0.25, 0.5])
    configs = jax.vmap(lambda rate: config_of(dropout_rate=rate, fill=3.0))(rates)
    assert type(configs) is DropoutOperatorConfig
    np.testing.assert_array_equal(configs.dropout_rate, rates)

    def weigh(config):
        return config.dropout_rate * config.fill

    for axes in (0, jax.tree.map(lambda _: 0, configs)):
        np.testing.assert_array_equal(jax.vmap(weigh, in_axes=(axes,))(configs), rates * 3)


def test_a_config_goes_through_compiled_code_as_argument_result_and_static_argument():
    config, twin = (
        config_of(dropout_rate=0.25, mode=Channel(min_kept=1), precomputed_stats={"m": np.ones(2)})
        for _ in range(2)
    )
    passed = jax.jit(lambda c: c)(config)
    assert passed == config
    assert passed.mode == Channel(min_kept=1)
    traces = []
    read = jax.jit(lambda c: traces.append(1) or jnp.float32(c.dropout_rate), static_argnums=0)
    assert float(read(config)) == float(read(twin)) == 0.25
    assert len(traces) == 1


DIFFERENT = {
    "cacheable": [True],
    "batch_stats_fn": [sum, len],
    "precomputed_stats": [
        *({}, {"n": 1}, *({"m": value} for value in (1, 1.0, True, "1", {"n": 1}, [1, 2], (1, 2)))),
        *({"m": array} for array in (np.zeros(2), np.zeros(2, np.float32), np.zeros((2, 1)))),
        {"m": np.ones(2)},
    ],
    "stochastic": [True],
    "batch_strategy": ["scan"],
    "field_key": ["other"],
    "target_key": ["out"],
    "auxiliary_fields": [["a", "b"], ["b", "a"], ["a"], []],
    "clip_range": [(0, 1), (0, 2)],
    "preserve_auxiliary": [False],
    "validate_domain_constraints": [False],
    "dropout_rate": [0.2, jnp.float32(0.3)],
    "apply_probability": [1.0],
    "mode": ["channel", Pixel(per_channel=False), Channel(min_kept=1), Channel(min_kept=2)],
    "fill": [1.0, -1, (1.0, 2.0), "mean", "noise", "stats_mean", FromField("a"), FromField("b")],
    "rescale": [True],
    "auxiliary_fill": [255, 0.5],
    "mask_key": ["mask"],
    "where_key": ["may"],
    "extent_key": ["size"],
    "share_mask": [True],
    "channel_axis": [0, 1, None],
    "seed": [1],
}
VARIANTS = [{}, *({name: value} for name, values in DIFFERENT.items() for value in values)]


def test_configs_are_equal_and_hashed_by_value_and_by_nothing_else():
    options = {field.name for field in dataclasses.fields(DropoutOperatorConfig)}
    assert DIFFERENT.keys() | {"stream_name"} == options
    configs = [config_of(**options) for options in VARIANTS]
    for position, options in enumerate(VARIANTS):
        twin = config_of(**copy.deepcopy(options))
        assert [n for n, config in enumerate(configs) if config == twin] == [position]
        assert hash(twin) == hash(configs[position])
    assert len({*configs, *(config_of(**options) for options in VARIANTS)}) == len(VARIANTS)
    assert config_of(stochastic=True, stream_name="a") != config_of(stochastic=True)
    assert dropax.ModalityOperatorConfig(field_key="image") != config_of()
    assert config_of() != "config"


@given(st.dictionaries(st.text(max_size=3), st.lists(st.floats(width=32), max_size=3), max_size=3))
def test_statistics_are_equal_where_their_bits_are(stats):
    arrays = {name: np.asarray(values, np.float32) for name, values in stats.items()}
    first = OperatorConfig(precomputed_stats=arrays)
    second = OperatorConfig(precomputed_stats={k: jnp.asarray(v) for k, v in arrays.items()})
    assert first == second
    assert hash(first) == hash(second)
    assert first.same_statistics(second)
    third = OperatorConfig(precomputed_stats={k: np.append(v, 1) for k, v in arrays.items()})
    assert (first == third) == (not arrays) == first.same_statistics(third)


COPIES = {
    "pickle": through_pickle,
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "replace": lambda config: config.replace(),
    "tree": lambda config: jax.tree.map(lambda x: x, config),
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_a_copy_is_equal_has_the_same_hash_and_is_whole(duplicate):
    for options in VARIANTS:
        config = config_of(**options)
        for _ in range(2):  # the second time with the hash in its cache
            other = duplicate(config)
            assert other is not config
            assert other == config
            assert hash(other) == hash(config)
            assert repr(other) == repr(config)
            assert jax.tree.structure(other) == jax.tree.structure(config)


def test_equal_numbers_of_any_kind_are_one_and_the_same_static_value():
    plain = config_of(fill=0.5, clip_range=(0.0, 1.0))
    for kind in (np.float32, np.float64, float):
        config = config_of(fill=kind(0.5), clip_range=(kind(0), kind(1)))
        assert config == plain
        assert repr(config) == repr(plain)
    zeros = config_of(fill=-0.0, clip_range=(-0.0, 1.0))
    assert zeros == config_of(fill=0.0, clip_range=(0.0, 1.0))
    assert not np.signbit([zeros.fill, *zeros.clip_range]).any()


def test_containers_are_copied_in_and_read_back_as_copies():
    fields, stats = ["a"], {"mean": np.ones(2), "deep": {"list": [1]}}
    config = config_of(auxiliary_fields=fields, precomputed_stats=stats)
    before = hash(config)
    fields.append("b")
    stats["mean"][:] = 5
    stats["deep"]["list"].append(2)
    config.auxiliary_fields.append("c")
    config.precomputed_stats["mean"][:] = 6
    config.precomputed_stats["deep"]["list"].append(3)
    assert config.auxiliary_fields == ["a"]
    assert type(config.auxiliary_fields) is list
    assert config.precomputed_stats["mean"].tolist() == [1, 1]
    assert config.precomputed_stats["deep"] == {"list": [1]}
    assert hash(config) == before


def test_traced_statistics_are_refused():
    owner = r"^DropoutOperatorConfig\.precomputed_stats must "
    with pytest.raises(TypeError, match=owner + r"not hold traced values; .* stats={"):
        jax.jit(lambda mean: config_of(precomputed_stats={"mean": mean}) and mean)(0.5)


def foreign(value):
    """The containers of another library, such as OmegaConf."""
    if isinstance(value, dict):
        return collections.UserDict({name: foreign(part) for name, part in value.items()})
    return collections.UserList(map(foreign, value)) if isinstance(value, list) else value


def test_containers_of_other_libraries_are_taken_or_refused_with_the_cure():
    values = {
        "field_key": "image",
        "stochastic": True,
        "dropout_rate": [0.1, 0.2],
        "auxiliary_fields": ["labels"],
        "auxiliary_fill": [1],
        "clip_range": [0, 1],
        "precomputed_stats": {"mean": [1, 2], "deep": {"a": 1}},
    }
    config, given = DropoutOperatorConfig.from_dict(values), foreign(values)
    for other in (DropoutOperatorConfig.from_dict(given), DropoutOperatorConfig(**given)):
        assert other == config
        assert hash(other) == hash(config)
    assert Box(aspect_ratio=foreign([1, 2])) == Box(aspect_ratio=(1, 2))
    with pytest.raises(TypeError, match=r"stats must be a dict; got .* OmegaConf\.to_container"):
        dropax.DropoutOperator(config, rngs=0).set_statistics(given["precomputed_stats"])


def test_a_config_with_a_traced_rate_can_be_neither_hashed_nor_compared():
    text = (
        "DropoutOperatorConfig holds a traced value, so it can be neither hashed nor compared. "
        "Pass it to the jitted function as an argument: it is a pytree."
    )
    for use in (hash, lambda config: config == config_of(), lambda config: config_of() == config):
        with refuses(TypeError, text):
            jax.jit(lambda rate, use=use: use(config_of(dropout_rate=rate)) and rate)(0.1)


def test_a_config_is_shown_by_what_differs_from_the_defaults():
    assert repr(config_of()) == "DropoutOperatorConfig(field_key='image')"
    config = config_of(
        stochastic=True,
        precomputed_stats={"n": 1},
        auxiliary_fields=["a"],
        clip_range=(0, 1),
        dropout_rate=jnp.float32(0.5),
        mode=Pixel(per_channel=False),
        channel_axis=None,
    )
    assert repr(config) == (
        "DropoutOperatorConfig(precomputed_stats={'n': 1}, stochastic=True, field_key='image', "
        "auxiliary_fields=['a'], clip_range=(0, 1), dropout_rate=Array(0.5, dtype=float32), "
        "mode=Pixel(per_channel=False), channel_axis=None)"
    )
    assert eval(repr(config_of(fill=1, seed=3))) == config_of(fill=1, seed=3)


@dataclasses.dataclass(frozen=True)
class Scaled(DropoutOperatorConfig):
    """A config of a user's own, with one static field and one more that may be traced."""

    _: dataclasses.KW_ONLY
    gain: float = 2.0
    kind: str = "normal"

    dynamic_fields: ClassVar[tuple[str, ...]] = (*DropoutOperatorConfig.dynamic_fields, "gain")

    def __post_init__(self):
        super().__post_init__()
        if self.kind not in ("normal", "uniform"):
            raise ValueError("Scaled.kind must be one of 'normal', 'uniform'.")


def test_a_subclass_is_a_tree_of_its_own_dynamic_fields():
    assert jax.tree.leaves(Scaled(field_key="x", gain=3.0)) == [0.1, 3.0]
    total = jax.jit(lambda c: c.dropout_rate + c.gain)(Scaled(field_key="x", dropout_rate=0.5))
    assert float(total) == 2.5
    grown = jax.tree.map(lambda x: x + 1, Scaled(field_key="x", kind="uniform"))
    assert (type(grown), grown.gain, grown.kind) == (Scaled, 3.0, "uniform")


def test_a_subclass_checks_its_parents_and_its_own():
    with pytest.raises(TypeError, match=r"^Scaled\.field_key must be a string; got 3\.$"):
        Scaled(field_key=3)
    with pytest.raises(ValueError, match=r"^Scaled\.kind must be one of"):
        Scaled(field_key="x").replace(kind="poisson")
    with pytest.raises(ValueError, match=r"^Scaled\.dropout_rate must be in"):
        Scaled(field_key="x", dropout_rate=2)


@pytest.mark.parametrize("kind", [["a"], {"a": 1}, np.ones(2)], ids=str)
def test_a_static_field_of_a_subclass_that_cannot_be_hashed_is_refused_by_name(kind):
    @dataclasses.dataclass(frozen=True, eq=False, repr=False)
    class Loose(OperatorConfig):
        kind: object = ()

    with pytest.raises(TypeError, match=r"^Loose\.kind must be hashable; got .* Pass a tuple"):
        jax.tree.leaves(Loose(kind=kind))

    class Taken(Loose):
        def __post_init__(self):
            super().__post_init__()
            vars(self)["kind"] = tuple(np.ravel(sorted(self.kind)))

    assert hash(Taken(kind=kind)) == hash(Taken(kind=kind))


def test_a_subclass_compares_hashes_and_copies_by_value():
    def make(**options):
        stats = {"mean": np.ones(3)}
        return Scaled(field_key="x", auxiliary_fields=["a"], precomputed_stats=stats, **options)

    config = make()
    assert config == make()
    assert hash(config) == hash(make())
    for changes in ({"gain": 9.0}, {"kind": "uniform"}, {"stochastic": True}):
        assert config != make(**changes)
    for duplicate in (through_pickle(config), copy.deepcopy(config)):
        assert duplicate == config
    with pytest.raises(TypeError, match=r"^Scaled holds a traced value"):
        jax.jit(lambda x: hash(make(gain=x)) and x)(0.5)
