"""The documented page, name by name: signatures, attributes, returns, errors and examples."""

import dataclasses
import inspect
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from cases import det, sto
from dropax import Batch, DropoutOperator, DropoutOperatorConfig, OperatorConfig, Rngs

IMAGES = {"image": np.ones((4, 8, 8, 3), np.float32)}
IMAGE = {"image": np.ones((8, 8, 3), np.float32)}


def page_config(
    cacheable=False,
    batch_stats_fn=None,
    precomputed_stats=None,
    stochastic=False,
    stream_name=None,
    batch_strategy="vmap",
    *,
    field_key,
    target_key=None,
    auxiliary_fields=None,
    clip_range=None,
    preserve_auxiliary=True,
    validate_domain_constraints=True,
    dropout_rate=0.1,
    mode="pixel",
): ...


PAGE = {
    "generate_random_params": lambda rng, data_shapes: None,
    "apply": lambda data, state, metadata, random_params=None, stats=None: None,
    "get_operation_stats": lambda: None,
    "reset_operation_stats": lambda: None,
    "compute_statistics": lambda data: None,
    "get_statistics": lambda: None,
    "set_statistics": lambda stats: None,
    "reset_statistics": lambda: None,
    "reset_cache": lambda: None,
    "copy": lambda *, config=None, rngs=None, name=None: None,
    "get_state": lambda: None,
    "set_state": lambda state: None,
    "clone": lambda: None,
    "requires_rng_streams": lambda: None,
    "ensure_rng_streams": lambda stream_names: None,
    "get_output_structure": lambda sample_data, sample_state: None,
    "apply_batch": lambda batch, stats=None: None,
    "output_spec": lambda input_spec: None,
}
CLASSES = {"DropoutOperatorConfig": page_config, "DropoutOperator": lambda config, *, rngs: None}


def parameters_of(function):
    signature = inspect.signature(function)
    return [(each.name, each.kind, each.default) for each in signature.parameters.values()]


@pytest.mark.parametrize("name", [*CLASSES, *PAGE])
def test_the_signature_begins_as_documented_and_what_is_added_is_optional(name):
    function = getattr(dropax, name) if name in CLASSES else getattr(det(), name)
    documented = parameters_of({**CLASSES, **PAGE}[name])
    found = parameters_of(function)
    assert found[: len(documented)] == documented
    for added, kind, default in found[len(documented) :]:
        assert default is not inspect.Parameter.empty
        # The page's own example passes the third argument of apply_batch by position.
        assert kind is inspect.Parameter.KEYWORD_ONLY or added == "metadata"
    assert function.__doc__


def test_the_defaults_are_attributes_of_the_class_and_of_an_instance():
    config = DropoutOperatorConfig(field_key="image")
    for name, _, default in parameters_of(page_config):
        if name != "field_key":
            assert getattr(DropoutOperatorConfig, name) == getattr(config, name) == default
            assert type(getattr(config, name)) is type(default)
    assert config.field_key == "image"


def test_the_classes_derive_as_documented():
    assert DropoutOperatorConfig.__mro__[1:3] == (dropax.ModalityOperatorConfig, OperatorConfig)
    assert DropoutOperator.__mro__[1] is dropax.ModalityOperator
    assert dataclasses.is_dataclass(DropoutOperatorConfig)
    assert isinstance(dropax.operator.logger, logging.Logger)
    assert dropax.operator.logger.name == "dropax.operator"


def test_the_attributes_of_an_operator_are_what_it_was_given():
    config = DropoutOperatorConfig(field_key="image", stochastic=True, stream_name="augment")
    rngs = Rngs(0, augment=1)
    operator = DropoutOperator(config, rngs=rngs, name="first")
    assert operator.config is config
    assert operator.rngs is rngs
    assert (operator.name, operator.stochastic, operator.stream_name) == ("first", True, "augment")
    plain = DropoutOperator(DropoutOperatorConfig(field_key="image"), rngs=rngs)
    assert (plain.name, plain.stochastic, plain.stream_name) == (None, False, None)


def spec_of(tree):
    """Arrays by dtype and shape, all else as it is."""
    return jax.tree.map(lambda x: (str(x.dtype), x.shape) if hasattr(x, "shape") else x, tree)


def masks(*shape):
    return {"keep_mask": ("bool", shape)}


SHAPES = {"label": (4,), "image": (4, 8, 8, 3)}
KEY, ONE, FOUR = jax.random.key(0), spec_of(IMAGE), spec_of(IMAGES)
NONE, STATES = {"applied_count": 0, "skipped_count": 0}, {"n": np.ones(4, np.int32)}
SAMPLE, BYTES = {"n": np.ones(2), "m": {}}, {"image": jax.ShapeDtypeStruct((8, 8, 3), jnp.uint8)}
RETURNS = {
    "pixels": (lambda: sto().generate_random_params(KEY, SHAPES), masks(4, 8, 8, 3)),
    "channels": (lambda: sto(mode="channel").generate_random_params(KEY, SHAPES), masks(4, 3)),
    "apply": (
        lambda: det().apply({**IMAGE, "label": 3}, {"count": 1}, {"file": "a.png"}),
        ({**ONE, "label": 3}, {"count": 1}, {"file": "a.png"}),
    ),
    "counts": (lambda: det().get_operation_stats(), NONE),
    "computed": (lambda: det(batch_stats_fn=dict).compute_statistics(NONE), NONE),
    "compute_statistics without a function": (lambda: det().compute_statistics(IMAGES), None),
    "get_statistics": (lambda: det(precomputed_stats={"a": 1}).get_statistics(), {"a": 1}),
    "get_statistics where there are none": (lambda: det().get_statistics(), None),
    "requires_rng_streams": (lambda: sto(stream_name="a").requires_rng_streams(), ["a"]),
    "requires_rng_streams without a name": (lambda: sto().requires_rng_streams(), ["default"]),
    "requires_rng_streams of a deterministic one": (lambda: det().requires_rng_streams(), None),
    "get_output_structure": (
        lambda: det(target_key="out").get_output_structure(IMAGE, SAMPLE),
        ({"image": None, "out": None}, {"n": None, "m": {}}),
    ),
    "apply_batch of a dict": (lambda: sto().apply_batch(IMAGES), FOUR),
    "apply_batch of three": (
        lambda: sto().apply_batch(IMAGES, STATES, ["a", "b"]),
        (FOUR, {"n": ("int32", (4,))}, ["a", "b"]),
    ),
    "output_spec": (lambda: det().output_spec(BYTES), {"image": ("uint8", (8, 8, 3))}),
}


@pytest.mark.parametrize("name", RETURNS)
def test_a_method_returns_what_the_page_says(name):
    call, expected = RETURNS[name]
    assert spec_of(call()) == expected


def test_methods_that_only_change_the_operator_return_none():
    operator = sto(stream_name="augment", cacheable=True, precomputed_stats={"a": 1})
    given = {"set_statistics": [{"a": 2}], "set_state": [operator.get_state()]}
    given["ensure_rng_streams"] = [["params", "augment"]]
    for name in ("reset_statistics", "reset_operation_stats", "reset_cache", *given):
        assert getattr(operator, name)(*given.get(name, ())) is None


def test_methods_that_make_an_object_return_one_of_the_documented_type():
    operator = sto()
    batch = Batch.from_parts(IMAGES, metadata_list=list("abcd"), batch_metadata="train")
    out = operator.apply_batch(batch)
    assert type(out) is Batch
    assert (out.metadata_list, out.batch_metadata) == (list("abcd"), "train")
    for twin in (operator.copy(), operator.clone()):
        assert type(twin) is DropoutOperator
        assert twin is not operator
    state = operator.get_state()
    assert type(state) is dict
    assert all(isinstance(leaf, np.ndarray | int | str) for leaf in jax.tree.leaves(state))
    for count in operator.get_operation_stats().values():
        assert type(count) is int
    spec = operator.output_spec({"image": jax.ShapeDtypeStruct((8, 8, 3), jnp.float32)})
    assert type(spec["image"]) is jax.ShapeDtypeStruct


# Examples, as the page has them, with dropax.Rngs in place of nnx.Rngs.

BASIC = """
config = DropoutOperatorConfig(
    field_key="image",
    dropout_rate=0.2,
    mode="pixel"
)
op = DropoutOperator(config, rngs=rngs)
"""
DETERMINISTIC = """
config = DropoutOperatorConfig(
    field_key="image",
    dropout_rate=0.2,
    mode="pixel",
    stochastic=False
)
operator = DropoutOperator(config, rngs=dropax.Rngs(0))
result, state, metadata = operator.apply(data, state, metadata)
"""
STOCHASTIC = """
config = DropoutOperatorConfig(
    field_key="image",
    dropout_rate=0.2,
    mode="channel",
    stochastic=True
)
operator = DropoutOperator(config, rngs=dropax.Rngs(0))
# Use apply_batch() for automatic random param generation
result, state, metadata = operator.apply_batch(batch_data, state, metadata)
"""


def run_example(source, **names):
    names = {**vars(dropax), "dropax": dropax, **names}
    exec(source, names)
    return names


def test_the_basic_example_makes_an_operator_that_drops_a_fifth():
    names = run_example(BASIC, rngs=Rngs(0))
    image = names["op"].apply({"image": jnp.ones((64, 64, 3))}, {}, {})[0]["image"]
    assert abs(float((image == 0).mean()) - 0.2) < 0.02  # five standard deviations


def test_the_deterministic_example_gives_the_same_pattern_each_time():
    given = {"data": IMAGE, "state": {"n": 1}, "metadata": {"file": "a.png"}}
    first, second = run_example(DETERMINISTIC, **given), run_example(DETERMINISTIC, **given)
    np.testing.assert_array_equal(first["result"]["image"], second["result"]["image"])
    assert 0 < first["result"]["image"].mean() < 1
    assert first["state"] is given["state"]
    assert first["metadata"] is given["metadata"]


def test_the_stochastic_example_drops_channels_record_by_record():
    given = {"batch_data": {"image": jnp.ones((64, 4, 4, 3))}, "state": {}, "metadata": ["a"]}
    names = run_example(STOCHASTIC, **given)
    channels = np.asarray(names["result"]["image"]).reshape(64, 16, 3)
    assert (channels == channels[:, :1]).all()  # each channel is kept or dropped as a whole
    assert 0 < channels.mean() < 1
    assert (channels != channels[0]).any()
    assert names["state"] is given["state"]
    assert names["metadata"] is given["metadata"]


DEPTH, STREAM = {"depth": np.ones(2)}, sto(stream_name="augment").config
NO_STATS, draw = det(batch_stats_fn=lambda data: 3), sto().generate_random_params
ensure = sto(stream_name="augment").ensure_rng_streams


def set_state_with(**changes):
    det().set_state({**det().get_state(), **changes})


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: draw(KEY, {"depth": ()}), KeyError, "'image' not found: the data has 'depth'."),
        (lambda: det().apply(DEPTH, {}, {}), KeyError, "field 'image' not found"),
        (lambda: sto().apply_batch(DEPTH), KeyError, "field 'image' not found"),
        (lambda: det()({**IMAGES, "z": KEY}), ValueError, "leaf 'data.z' must have a leading batc"),
        (lambda: det()({**IMAGES, "z": np.ones(3)}), ValueError, "leaf 'data.z' must have 4 recor"),
        (lambda: det().set_state([1]), TypeError, "set_state.state must be a dict"),
        (lambda: det().set_state({}), ValueError, "'version' not found"),
        (lambda: set_state_with(rngs={}), ValueError, "'rngs' is unknown: expected version, key_d"),
        (lambda: set_state_with(step=-1), ValueError, "'step' must be an int"),
        (lambda: NO_STATS.compute_statistics({}), TypeError, "batch_stats_fn returns must be a di"),
        (
            lambda: ensure(["params"]),
            ValueError,
            "RNG stream 'augment' is required; got ['pa",
        ),
        (lambda: DropoutOperator(STREAM, rngs=None), ValueError, "DropoutOperator.rngs must be"),
        (lambda: DropoutOperator(STREAM, rngs=Rngs(params=0)), KeyError, "'augment' not found, n"),
        (lambda: DropoutOperator(OperatorConfig(), rngs=0), TypeError, "DropoutOperator.config"),
    ],
)
def test_an_error_is_of_its_kind_and_names_what_is_wrong(call, kind, text):
    with pytest.raises(kind, match=re.escape(text)):
        call()
