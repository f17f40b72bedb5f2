"""The wording of errors, and checks that raise them.

Every message has one form: `<name> must <constraint>; got <value>. <cure>`. In all checks `name`
is the argument as the caller wrote it, and `cure` a sentence on what to do.
"""

import difflib
import enum
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np


def must(name: str, constraint: str, value: Any, cure: str = "") -> str:
    """Builds an error message: "Config.rate must be in [0.0, 1.0]; got 1.5."."""
    message = f"{name} must {constraint}; got {describe(value)}."
    return f"{message} {cure}" if cure else message


def describe(value: Any) -> str:
    """Shows a value in a few characters, without reading an array's contents."""
    if isinstance(value, np.generic):
        return repr(value)
    if is_array(value):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    try:
        text = repr(value)
    except Exception:  # too deep, too long a number, or of a class whose own repr fails
        text = ""
    return text if 0 < len(text) <= 80 else f"an object of type {type(value).__name__}"


def is_array(value: Any) -> bool:
    """Says whether a value is a NumPy or JAX array, a tracer, or the shape of one."""
    # A class of arrays has these too, and streams of keys have every attribute.
    return isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "dtype")


def is_real(dtype: Any) -> bool:
    """Says whether a dtype is one of real numbers or bools."""
    kinds = (np.floating, np.integer, np.bool_)
    return any(jax.numpy.issubdtype(dtype, kind) for kind in kinds)


def is_traced(tree: Any) -> bool:
    """Says whether any leaf of a tree is a tracer."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def leaks(new: Any, old: Any) -> bool:
    """Says whether `new` holds a tracer of a transformation that `old` is no part of.

    If so, keeping `new` in place of `old` would outlive its tracers.
    """
    new_traces, old_traces = (
        {id(leaf._trace) for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.core.Tracer)}
        for tree in (new, old)
    )
    return not new_traces <= old_traces


def require_choice(name: str, value: Any, options: Iterable[str], cure: str = "") -> None:
    """Raises a ValueError, which names the nearest option, if a value is none of the options."""
    options = list(options)
    if isinstance(value, str) and value in options:
        return
    hint = did_you_mean(value, options) if isinstance(value, str) else ""
    listed = ", ".join(map(repr, options))
    raise ValueError(must(name, f"be one of {listed}", value, " ".join(filter(None, (hint, cure)))))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Asks for the known name that holds a wrong one or is nearest to it; "" if none is near."""
    known = list(known)
    near = [other for other in known if name in other.split("_")]
    near += difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else ""


def require_kind(name: str, value: Any, kind: Any, noun: str, cure: str = "") -> None:
    """Raises a TypeError if a value is not a `kind` (`noun` in words); a bool is no int here."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        if kind is dict and isinstance(value, Mapping):
            cure = cure or "Convert it: OmegaConf.to_container(...), or dict(...)."
        raise TypeError(must(name, f"be {noun}", value, cure))


def is_by_value(value: Any) -> bool:
    """Says whether an object is hashed and compared by value."""
    kind: Any = type(value)
    try:
        hash(value)
    except TypeError:  # its class says so, or what it holds
        return False
    # Functions, classes and members of an Enum are what they are, whatever happens.
    fixed = isinstance(value, enum.Enum | None) or (callable(value) and hasattr(value, "__name__"))
    return fixed or kind.__eq__ is not object.__eq__


def require_by_value(name: str, value: Any) -> None:
    """Raises a TypeError if an object is not hashed and compared by value."""
    if not is_by_value(value):
        cure = "Make its class a frozen dataclass, of what is hashable."
        raise TypeError(must(name, "be hashable by value", value, cure))


def require_whole(name: str, value: Any, low: int, high: int | None = None) -> None:
    """Raises a TypeError if a value is no int, a ValueError if it is not in [low, high)."""
    require_kind(name, value, int, "an int")
    if value < low or (high is not None and value >= high):
        bound = f"be at least {low}" if high is None else f"be in [{low}, {high})"
        raise ValueError(must(name, bound, value))


def require_number(name: str, value: Any, *, finite: bool = True) -> None:
    """Raises a TypeError if a value is no real number, a ValueError if it is NaN or not finite.

    Ints, floats and NumPy scalars of either are numbers; bools and arrays are not.
    """
    if not is_number(value):
        raise TypeError(must(name, "be a number", value))
    if value != value or (finite and abs(value) == math.inf):  # an int may be too large for isnan
        raise ValueError(must(name, "be finite" if finite else "not be NaN", value))


def is_number(value: Any) -> bool:
    """Says whether a value is an int, a float or a NumPy scalar of either; no bool, no array."""
    kinds = (int, float, np.integer, np.floating)
    return isinstance(value, kinds) and not isinstance(value, bool)


def names(mapping: Mapping[str, Any]) -> str:
    """Lists the keys of a mapping for an error message."""
    return ", ".join(repr(name) for name in mapping) or "nothing"
