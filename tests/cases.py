"""The one table of cases that every cross-cutting test runs through; it takes in new modes."""

import functools
import json
import pickle
import re
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from dropax import Band, Block, Blocks, Box, Channel, Grid, Patch, Pixel, modes

MODES = {
    "pixel": "pixel",
    "whole pixel": Pixel(per_channel=False),
    "channel": "channel",
    "channel, one kept": Channel(min_kept=1),
    "block": Block(size=2),
    "block, per channel": Block(size=2, per_channel=True),
    "patch": Patch(size=2),
    "box": "box",
    "boxes, clipped": Box(count=3, aspect_ratio=(0.5, 2), border="clip"),
    "grid": Grid(unit=3),
    "grid, units": Grid(unit=(2, 4)),
    "band": "band",
    "bands": Band(axis=-1, count=2),
    "channel, exact": Channel(exact=True),
    "patch, exact": Patch(size=2, exact=True),
    "blocks": Blocks(size=1, min_cells=2),
    "record": "record",
    "one of": dropax.OneOf(("box", Channel()), weights=(2, 1)),
    "shared": dropax.Shared(Pixel(), axes=0),
    "inverted": dropax.Inverted(Box(count=2)),
}
_NEW = {type(mode): name for name, mode in modes.MODES.items()}
for _mode in MODES.values():
    _NEW.pop(type(modes.as_mode(_mode, "a")), None)
MODES |= {name: name for name in _NEW.values()}

# What modes have in common they have by code that they share: the layout of masks, the engine that
# maps over records, the select. It is tested on one mode of each form of mask: each value on its
# own; one a channel; one with one channel, stored on CPU, of a mode that derives keys. What a
# mode has by the shape of its program (its form on a mesh, in the select's loop) is tested once a
# mode; what each option may change (its draw under another strategy, key, rate or setting), on
# all of MODES.
REPRESENTATIVES = ("pixel", "channel, one kept", "block")
CLASSES = (
    *("pixel", "channel, one kept", "channel, exact", "block", "patch", "patch, exact"),
    *("boxes, clipped", "grid, units", "bands", "blocks", "record", "one of", "shared", "inverted"),
    *_NEW.values(),
)

representatives = pytest.mark.parametrize(
    "mode", [MODES[name] for name in REPRESENTATIVES], ids=REPRESENTATIVES
)
"""Runs a test of what modes have by shared code."""

every_class = pytest.mark.parametrize("mode", [MODES[name] for name in CLASSES], ids=CLASSES)
"""Runs a test of what is each class's own."""

every_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
"""Runs a test of what is each mode's own."""

# Of `jax.jit`: compiles a program as users' are, with what conftest.py leaves out.
AS_USERS = {"xla_backend_optimization_level": 3}
if version("jax").startswith("0.10."):
    AS_USERS["xla_cpu_use_fusion_emitters"] = True

# Of a batch wherever the shape is not what is tested: so tests share what is compiled.
SHAPE = (4, 6, 5, 3)


def config_of(mode, **options):
    """A stochastic config on the field "image"."""
    options = {"field_key": "image", "stochastic": True, "dropout_rate": 0.4, **options}
    return dropax.DropoutOperatorConfig(mode=mode, **options)


def image_of(shape, dtype=np.float32):
    """Values of which none is zero, so that every dropped one shows."""
    dtype = jnp.dtype(dtype)
    if dtype == jnp.bool_:
        return jnp.ones(shape, dtype)
    count = int(np.prod(shape))
    return jnp.asarray((np.arange(count) % 100 + 1).reshape(shape).astype(dtype))


@functools.partial(jax.jit, static_argnums=(0, 1))
def draw_masks(mode, shape, keys, rate):
    """A mode's masks of as many records as there are keys, as they are stored."""
    return jax.vmap(lambda key: mode.sample(key, shape, rate))(keys)


@functools.partial(jax.jit, static_argnums=1)
def draw_words(keys, count):
    """The first words of JAX's own stream, for each key."""
    return jax.vmap(lambda key: jax.random.bits(key, (count,), jnp.uint32))(keys)


def mesh_of(devices, kind=jax.sharding.AxisType.Auto):
    """A mesh of so many devices along one axis, "x"."""
    return jax.make_mesh((devices,), ("x",), axis_types=(kind,), devices=jax.devices()[:devices])


def collectives(compiled):
    """The type of each thing that the devices of a compiled program exchange."""
    kinds = r"all-\w+|collective-\w+|reduce-scatter|ragged-\w+|send|recv"
    return re.findall(rf"= (.+?) (?:{kinds})(?:-start)?\(", compiled.as_text())


def through_pickle(value):
    return pickle.loads(pickle.dumps(value))


def through_json(config, types=()):
    """A config that was written as JSON and read again."""
    values = json.loads(json.dumps(config.to_dict(), allow_nan=False))
    return type(config).from_dict(values, types)


def refuses(error, text):
    """Expects an error that begins so; a text that ends with a full stop is all of it."""
    # A KeyError shows its text in quotes, and JAX may add a note of its own.
    end = "[\"']?(\n|$)" if text.endswith(".") else ""
    return pytest.raises(error, match=f"^[\"']?{re.escape(text)}{end}")


def assert_refused(function, arguments, error, text):
    """Asserts the kind of an error and its text, which begins with the function's own name."""
    with refuses(error, f"{function.__name__}.{text}") as refused:
        function(**arguments)
    assert "; got " in str(refused.value)


ONES = np.ones((8, 4, 4, 3), np.float32)
both_kinds = pytest.mark.parametrize("stochastic", [False, True])
both_strategies = pytest.mark.parametrize("strategy", ["vmap", "scan"])


def make(stochastic, mode="pixel", **options):
    """An operator, stochastic or deterministic."""
    config = config_of(mode, **{"dropout_rate": 0.5, **options}, stochastic=stochastic)
    return dropax.DropoutOperator(config, rngs=dropax.Rngs(0) if stochastic else None)


det, sto = functools.partial(make, False), functools.partial(make, True)


def run(operator, images=ONES):
    """Returns the operator's output for images, as a NumPy array."""
    return np.asarray(operator.apply_batch({"image": images})["image"])


def equal(*runs):
    return all(np.array_equal(runs[0], other) for other in runs[1:])
