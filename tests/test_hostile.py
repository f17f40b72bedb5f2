"""Whatever is handed to it, the library says what is wrong, and changes nothing.

Each argument of each public function and method is given each value of `hostile.POOL`, all others
staying sound. What comes out is a result, or an error of a documented kind, and no value changes.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from dropax import Batch, DropoutOperator, DropoutOperatorConfig, Element, Rngs
from hostile import POOL, error_of, snapshot

IMAGE = np.ones((2, 4, 4, 3), np.float32)
CONFIG = DropoutOperatorConfig(field_key="image", stochastic=True)
KEY = jax.random.key(0)
STATE = dropax.init_state(CONFIG, KEY)
MASK = jnp.ones((2, 4, 4, 3), bool)
PARAMS = {"keep_mask": MASK[0]}
AUXILIARY = DropoutOperatorConfig(
    field_key="image",
    auxiliary_fields=["depth"],
    mode=dropax.Pixel(per_channel=False),
    stochastic=True,
)
GIVEN = {"state": {}, "metadata": {}, "random_params": {"keep_mask": MASK[0, ..., :1]}}
DOCUMENTED = {"TypeError", "ValueError", "KeyError"}


@pytest.fixture(autouse=True)
def whole_tracebacks():
    """Lets JAX cut nothing out of tracebacks: of thousands of errors nobody reads them."""
    filtering = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    yield
    jax.config.update("jax_traceback_filtering", filtering)


def operator():
    return DropoutOperator(CONFIG, rngs=0)


def method(make, name):
    """Calls a method on an object that must stay as it was if it fails, and is made anew if not."""
    owners = []

    def call(**arguments):
        owner = owners.pop() if owners else make()
        before = repr(owner)
        try:
            return getattr(owner, name)(**arguments)
        except Exception:
            assert repr(owner) == before
            owners.append(owner)
            raise

    return call


def entry(function, name, inside, rest):
    """Passes a dict as an argument, of which one entry at a time is replaced."""

    def call(**entries):
        return function(**rest, **{name: entries})

    return call, inside


def fields_of(config):
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.init}


CLASSES = [
    *(dropax.Pixel(), dropax.Channel(), dropax.Block(), dropax.Patch(), dropax.Box()),
    *(dropax.Blocks(), dropax.Grid(), dropax.Band(), dropax.OneOf(("box",), weights=(1,))),
    *(dropax.Shared("pixel", 0), dropax.Inverted("pixel")),
]
PRESETS = {
    "cutout": {"image_shape": (4, 4), "length": 2, "holes": 1},
    "random_erasing": {"scale": (0.1, 0.2), "ratio": (0.5, 2.0), "probability": 0.5},
    "coarse_dropout": {"image_shape": (4, 4), "num_holes_range": (1, 2), "probability": 0.5}
    | {"hole_height_range": (1, 2), "hole_width_range": (0.1, 0.5)},
    "gridmask": {"unit": 4, "ratio": 0.5, "rotate": 0, "probability": 0.5},
    "dropblock": {"rate": 0.1, "block_size": 2},
    "mae": {"rate": 0.75, "patch_size": 2},
    "beit": {"rate": 0.4, "patch_size": 2, "min_patches": 4, "ratio": (0.5, 2.0)},
    "spec_augment": {"freq_mask_count": 1, "freq_mask_max_bins": 2, "spectrogram_shape": (4, 4)}
    | {"time_mask_count": 1, "time_mask_max_frames": 2, "time_mask_max_share": 0.5},
}
PICTURE = np.ones((4, 4, 3), np.uint8)
FIELD = {"image": IMAGE[0]}
SHAPES = {"image": (2, 4, 4, 3)}
VALID = np.ones(2, bool)
BOXES, POINTS = np.ones((2, 1, 4), np.float32), np.ones((2, 1, 2), np.float32)

# Sound arguments of each function, of which one at a time is replaced.
FUNCTIONS = {
    dropax.dropout: {"key": KEY, "images": IMAGE, "rate": 0.5},
    dropax.init_state: {"config": CONFIG, "key": KEY},
    dropax.generate_random_params: {"config": CONFIG, "key": KEY, "data_shapes": SHAPES},
    dropax.apply: {"config": CONFIG, "data": FIELD, "state": {}, "metadata": {}}
    | {"random_params": PARAMS, "stats": None},
    dropax.apply_batch: {"config": CONFIG, "op_state": STATE, "batch": {"image": IMAGE}}
    | {"stats": None, "record_ids": np.arange(2), "epoch": 0},
    dropax.as_record_ids: {"ids": [1, 2]},
    dropax.expected_dropped_fraction: {"config": CONFIG, "element_shape": (4, 4, 3)},
    dropax.dropped_fraction: {"keep_mask": MASK, "per_channel": True, "channel_axis": -1},
    dropax.visible_fraction: {"keep_mask": MASK, "boxes": BOXES, "channel_axis": -1},
    dropax.visible_points: {"keep_mask": MASK, "points": POINTS, "channel_axis": -1},
    dropax.OperatorConfig: fields_of(dropax.OperatorConfig(stochastic=True)),
    DropoutOperatorConfig: fields_of(CONFIG),
    DropoutOperatorConfig.from_dict: {"values": CONFIG.to_dict()},
    **{type(mode): fields_of(mode) for mode in CLASSES},
    **{getattr(dropax.presets, name): {"field_key": "image", **PRESETS[name]} for name in PRESETS},
    dropax.presets.rate_for_side: {"mode": "box", "side": 2, "element_shape": (4, 4, 3)},
    dropax.images.contact_sheet: {"images": [PICTURE], "columns": 1, "gap": 1, "span": None}
    | {"background": 255},
    dropax.images.mask_overlay: {"image": PICTURE, "keep_mask": PICTURE, "color": (1, 2, 3)}
    | {"opacity": 0.5, "span": None},
    dropax.images.to_display: {"values": PICTURE, "span": (0, 1)},
    Rngs: {"default": 0, "augment": 1},
    Element: {"data": {}, "state": {}, "metadata": None},
    Batch: {"elements": [Element(FIELD)]},
    Batch.from_parts: {"data": {"image": IMAGE}, "states": None, "metadata_list": [1, 2]}
    | {"batch_metadata": None, "batch_state": None, "record_ids": [1, 2], "valid_mask": VALID},
    DropoutOperator: {"config": CONFIG, "rngs": 0, "name": "drop"},
}
METHODS = {
    "apply_batch": {"batch": {"image": IMAGE}, "stats": None, "record_ids": [1, 2], "epoch": 0}
    | {"metadata": None},
    "apply": {"data": FIELD, "state": {}, "metadata": {}, "random_params": None, "stats": None},
    "generate_random_params": {"rng": KEY, "data_shapes": SHAPES},
    "set_statistics": {"stats": {}},
    "set_state": {"state": operator().get_state()},
}
RANGE = CONFIG.replace(dropout_rate=(0.1, 0.5), rescale=True)
CALLS = {
    **{function.__qualname__: (function, FUNCTIONS[function]) for function in FUNCTIONS},
    **{f"operator.{name}": (method(operator, name), METHODS[name]) for name in METHODS},
    # These are looked at in tracing only: a program for each would show no more.
    "a static argument of dropout": (
        lambda **static: jax.eval_shape(functools.partial(dropax.dropout, **static), KEY, IMAGE),
        {"mode": "pixel", "fill": 0.0, "rescale": False}
        | {"clip_range": None, "channel_axis": "auto", "element_ndim": 3},
    ),
    "a shape of generate_random_params": entry(
        dropax.generate_random_params, "data_shapes", SHAPES, {"config": CONFIG, "key": KEY}
    ),
    "a field of apply": entry(
        dropax.apply, "data", {**FIELD, "depth": IMAGE[0, ..., 0]}, {"config": AUXILIARY, **GIVEN}
    ),
    "a param of apply": entry(
        dropax.apply,
        "random_params",
        {"keep_mask": MASK[0], "applied": True, "rate": 0.5},
        {"config": RANGE, "data": FIELD, "state": {}, "metadata": {}},
    ),
    "a field of apply_batch": entry(
        dropax.apply_batch,
        "batch",
        {"image": IMAGE, "other": IMAGE},
        {"config": CONFIG, "op_state": STATE},
    ),
    "a value of from_dict": (
        lambda **values: DropoutOperatorConfig.from_dict(values),
        CONFIG.to_dict(),
    ),
    "an entry of operator.set_state": entry(
        lambda state: method(operator, "set_state")(state=state),
        "state",
        {**operator().get_state(), "statistics": None},
        {},
    ),
}

TRACED = [
    jax.ShapeDtypeStruct(shape, dtype)
    for shape in [(), (2,), (4, 4, 3), (2, 4, 4, 3)]
    for dtype in (jnp.float32, jnp.int32, bool)
]


def faults_of(call, argument):
    """Tries all values as one argument of a function, and returns what should not have come out."""
    for label, make in POOL.items():
        value = make()
        before = snapshot(value)
        error = error_of(call, value)
        if snapshot(value) != before:
            yield f"{argument} = {label}: was changed"
        kind = type(error).__name__
        fine = error is None or kind in DOCUMENTED
        # JAX's own words for what no check can be made of.
        fine |= label.startswith("deleted") and "has been deleted" in str(error)
        if not fine:
            yield f"{argument} = {label}: {kind}: {error}"


# A generator is what JAX itself warns of, in whatever tree it is.
@pytest.mark.filterwarnings("ignore:Python iterable type 'generator'")
@pytest.mark.parametrize("name", CALLS)
def test_only_documented_errors_come_out_and_nothing_changes(name):
    function, sound = CALLS[name]
    function(**sound)
    for argument in sound:

        def call(value, argument=argument):
            return function(**{**sound, argument: value})

        assert not list(faults_of(call, argument))


@pytest.mark.filterwarnings("ignore:a concrete op_state was captured under jit")
@pytest.mark.parametrize("name", CALLS)
def test_tracers_give_results_or_documented_errors(name):
    function, sound = CALLS[name]

    def run(tracers):
        for argument, tracer in itertools.product(sound, tracers):
            error = error_of(lambda values: function(**values), {**sound, argument: tracer})
            known = (TypeError, ValueError, KeyError)  # JAX has kinds of its own of these
            assert error is None or isinstance(error, known), (argument, tracer, error)

    jax.eval_shape(run, TRACED)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: np.ma.masked_array(IMAGE, IMAGE > 0), "must not be a masked array; .*filled"),
        (lambda: IMAGE.astype(">f4"), "must be an array that JAX takes; .* Convert it first"),
        (lambda: IMAGE.astype(np.longdouble), "must be an array that JAX takes; "),
        (lambda: IMAGE.astype(object), "must be an array of numbers or bools; "),
    ],
)
def test_arrays_that_jax_does_not_take_are_named_by_their_field(make, text):
    with pytest.raises(TypeError, match=f"field 'image' {text}"):
        dropax.apply(AUXILIARY, {"image": make(), "depth": IMAGE}, {}, {})
    with pytest.raises(TypeError, match=f"dropout.images {text}"):
        dropax.dropout(KEY, make())
