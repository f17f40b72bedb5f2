"""Values that no function asked for, and what comes of handing them to one.

`POOL` makes one of each kind, by name: of values that no check tells apart it has one. A snapshot
taken before and one after say whether a value was changed.
"""

import types
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

HUGE = 2**40


class Speechless:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise ValueError("asked to show itself")


def _fail(*_: Any) -> Any:
    raise ValueError("the function failed")


class Pliant:
    """An object that has every attribute, and can be called."""

    def __getattr__(self, name: str) -> "Pliant":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> "Pliant":
        return self


class Pretender:
    """An object that says it is an array, and is none."""

    shape = (4, 4, 3)
    dtype = np.dtype(np.float32)
    ndim = 3


def _read_only() -> np.ndarray:
    array = np.full((4, 4, 3), np.inf, np.float32)
    array.flags.writeable = False
    return array


def _deleted(array: jax.Array) -> jax.Array:
    array.delete()
    return array


def _ones(dtype: Any, shape: tuple[int, ...] = (4, 4, 3)) -> np.ndarray:
    return np.ones(shape, dtype)


POOL: dict[str, Any] = {
    # What stands for nothing, numbers, and what is nearly one.
    "None": lambda: None,
    "True": lambda: True,
    "zero": lambda: 0,
    "minus one": lambda: -1,
    "int past 64 bits": lambda: 2**70,
    "int too long to print": lambda: 10**6000,
    "float": lambda: 0.25,
    "negative float": lambda: -0.5,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "complex": lambda: 1j,
    "NumPy bool": lambda: np.bool_(True),
    # Text.
    "empty text": lambda: "",
    "name": lambda: "image",
    "unicode": lambda: "../名前.\u202e\U0001f600\0",
    "lone surrogate": lambda: "\ud800",
    "long text": lambda: "image." * 5000,
    "bytes": lambda: b"image",
    # Containers.
    "empty tuple": lambda: (),
    "tuple": lambda: (1, 2),
    "tuple of negative ints": lambda: (-4, 4, 3),
    "tuple of arrays": lambda: (_ones(np.float32), _ones(np.float32)),
    "empty list": lambda: [],
    "set": lambda: {1, 2},
    "empty dict": dict,
    "dict of numbers": lambda: {1: 2, "image": 3},
    "dict of nothing": lambda: {"image": None},
    "frozen dict": lambda: types.MappingProxyType({"image": 1}),
    "generator": lambda: (number for number in (1, 2)),
    # Arrays.
    "scalar array": lambda: np.array(0.5, np.float16),
    "empty array": lambda: np.zeros((0, 4, 3), np.float32),
    "objects": lambda: np.array([None, {}, "a"], object),
    "array of text": lambda: np.array(["a", "bc"]),
    "masked array": lambda: np.ma.masked_array(_ones(np.float32), _ones(bool)),
    "matrix of longdouble": lambda: _ones(np.longdouble),
    "complex array": lambda: _ones(np.complex64),
    "big-endian array": lambda: _ones(">f4"),
    "read-only infinities": _read_only,
    "float8 array": lambda: _ones(ml_dtypes.float8_e4m3fn),
    "deleted array": lambda: _deleted(jnp.ones((2, 4, 4, 3))),
    "huge shape": lambda: jax.ShapeDtypeStruct((HUGE, HUGE, 3), jnp.float32),
    "pretender": Pretender,
    # Keys.
    "key": lambda: jax.random.key(1),
    "keys": lambda: jax.random.split(jax.random.key(1), 3),
    "keys of no record": lambda: jax.random.split(jax.random.key(1), 0),
    "deleted key": lambda: _deleted(jax.random.key(1)),
    # Code.
    "function": lambda: len,
    "function that fails": lambda: _fail,
    "class": lambda: dict,
    "pliant object": Pliant,
    "object that cannot be shown": Speechless,
}


def error_of(call: Any, value: Any) -> Exception | None:
    """Calls a function with a value, and returns its error."""
    try:
        call(value)
    except Exception as error:
        return error
    return None


def snapshot(value: Any, depth: int = 3) -> Any:
    """Returns what a value is made of, to compare it with later."""
    if isinstance(value, dict) and depth:
        return [(name, snapshot(part, depth - 1)) for name, part in value.items()]
    if isinstance(value, list | tuple) and depth:
        return [snapshot(part, depth - 1) for part in value]
    if isinstance(value, np.ndarray):
        return (value.dtype, value.shape, value.strides, value.tobytes())
    if isinstance(value, jax.Array):
        return value.is_deleted() or (str(value.dtype), value.shape, str(value))
    return id(value)
