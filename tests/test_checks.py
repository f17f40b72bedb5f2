"""The wording of errors: one form, whatever value came."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cases import refuses
from dropax import Rngs
from dropax.kit import errors as checks


class Opaque:
    def __repr__(self):
        return "x" * 81


SHOWN = {
    "a number": (1.5, "1.5"),
    "a string": ("pixle", "'pixle'"),
    "None": (None, "None"),
    "a NumPy array": (np.zeros((2, 3), np.uint8), "an array of shape (2, 3) and dtype uint8"),
    "a JAX array": (jnp.zeros(4), "an array of shape (4,) and dtype float32"),
    "a NumPy scalar": (np.float32(1), "np.float32(1.0)"),
    "a key": (jax.random.key(0), "an array of shape () and dtype key<fry>"),
    "a shape": (jax.ShapeDtypeStruct((2,), np.int8), "an array of shape (2,) and dtype int8"),
    "a class": (dict, "the class dict"),
    "a class of arrays": (np.float32, "the class float32"),
    "a dtype of JAX": (jnp.bfloat16, "the class bfloat16"),
    "eighty characters": ("x" * 78, repr("x" * 78)),
    "more than that": (Opaque(), "an object of type Opaque"),
    "streams, which have every attribute": (Rngs(0), "Rngs(default: 0 drawn)"),
}


@pytest.mark.parametrize(("value", "text"), SHOWN.values(), ids=SHOWN)
def test_any_value_is_shown_in_a_few_characters(value, text):
    assert checks.describe(value) == text
    assert checks.must("Config.rate", "fit", value) == f"Config.rate must fit; got {text}."
    assert checks.must("a", "fit", value, "Cure.") == f"a must fit; got {text}. Cure."


def test_a_tracer_is_shown_by_its_shape_and_is_seen_in_any_tree():
    def inside(x):
        assert checks.describe(x) == "an array of shape (2,) and dtype float32"
        assert checks.is_traced({"a": [1, x]})
        return x

    jax.jit(inside)(jnp.ones(2))
    assert not checks.is_traced({"a": [1, jnp.ones(2), None, "text"]})


def test_arrays_and_shapes_of_arrays_count_as_arrays_and_nothing_else():
    arrays = [np.zeros(2), np.float64(1), jnp.zeros(()), jax.ShapeDtypeStruct((), np.int8)]
    others = [1.0, "text", None, [1], np.float32, np.ndarray, jnp.float32, Rngs(0), np.dtype(int)]
    assert [checks.is_array(value) for value in arrays] == [True] * len(arrays)
    assert [checks.is_array(value) for value in others] == [False] * len(others)


CHOICE, KINDS = checks.require_choice, ("pixel", "channel")
ONE_OF = "a must be one of 'pixel', 'channel'; got"
REFUSED = {
    "near": (CHOICE, ("pixle", KINDS), ValueError, f"{ONE_OF} 'pixle'. Did you mean 'pixel'?"),
    "far": (CHOICE, ("qqq", KINDS), ValueError, f"{ONE_OF} 'qqq'."),
    "unhashable": (CHOICE, ([], KINDS), ValueError, f"{ONE_OF} []."),
    "hint": (CHOICE, ("qqq", KINDS, "Or so."), ValueError, f"{ONE_OF} 'qqq'. Or so."),
    "kind": (checks.require_kind, ("1", int, "an int"), TypeError, "a must be an int; got '1'."),
    "bool": (checks.require_kind, (True, int, "an int"), TypeError, "a must be an int; got True."),
    "cure": (checks.require_kind, (1, str, "x", "Do."), TypeError, "a must be x; got 1. Do."),
    "float": (checks.require_whole, (1.0, 0), TypeError, "a must be an int; got 1.0."),
    "low": (checks.require_whole, (-1, 0), ValueError, "a must be at least 0; got -1."),
    "below": (checks.require_whole, (-1, 0, 5), ValueError, "a must be in [0, 5); got -1."),
    "high": (checks.require_whole, (5, 0, 5), ValueError, "a must be in [0, 5); got 5."),
    "text": (checks.require_number, ("1",), TypeError, "a must be a number; got '1'."),
    "no number": (checks.require_number, (False,), TypeError, "a must be a number; got False."),
    "complex": (checks.require_number, (1j,), TypeError, "a must be a number; got 1j."),
    "nan": (checks.require_number, (np.nan,), ValueError, "a must be finite; got nan."),
    "inf": (checks.require_number, (-np.inf,), ValueError, "a must be finite; got -inf."),
}


@pytest.mark.parametrize(("require", "arguments", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_such_value_is_refused_in_the_one_form(require, arguments, error, text):
    with refuses(error, text):
        require("a", *arguments)


def test_what_is_such_a_value_passes():
    for kind, value in ((bool, True), (int, 3), (str, "s"), (dict, {})):
        checks.require_kind("a", value, kind, "of the kind")
    for value in (0, 4):
        checks.require_whole("a", value, 0, 5)
    for value in (0, -1.5, np.int8(3), np.float32(0.5), 2**70, 10**400):
        checks.require_number("a", value)
    checks.require_number("a", np.inf, finite=False)
    with refuses(ValueError, "a must not be NaN; got nan."):
        checks.require_number("a", np.nan, finite=False)
    checks.require_choice("a", "pixel", iter(["pixel"]))


def test_names_are_listed_or_nothing_is():
    assert checks.names({"image": 1, "label": 2}) == "'image', 'label'"
    assert checks.names({}) == "nothing"
