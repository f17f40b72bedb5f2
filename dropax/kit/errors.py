"""The wording of errors.

Given what was asked and what came, returns the one sentence a user reads:
`<owner>.<argument> must <constraint>; got <value>. <the cure, where there is one>`
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np


def must(owner: str, constraint: str, value: Any, cure: str = "") -> str:
    """Builds an error message of the house's one form.

    Args:
      owner: the argument, with what it belongs to: `Config.rate`.
      constraint: what it must do or be.
      value: what came instead; shown by `describe`.
      cure: a sentence, or sentences, on what to do.

    Returns:
      The message.

    Example:
      >>> must("Config.rate", "be in [0.0, 1.0]", 1.5)
      'Config.rate must be in [0.0, 1.0]; got 1.5.'
    """
    message = f"{owner} must {constraint}; got {describe(value)}."
    return f"{message} {cure}" if cure else message


def describe(value: Any) -> str:
    """Shows a value in a few characters, without reading an array's contents.

    Args:
      value: anything.

    Returns:
      Shape and dtype of an array, the type of a container, else a clipped `repr`.

    Example:
      >>> import numpy as np
      >>> describe(np.zeros((2, 3), np.uint8))
      'an array of shape (2, 3) and dtype uint8'
    """
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
    """Says whether a tree holds a tracer of a transformation that another tree is no part of.

    Args:
      new: what is to be kept in place of `old`.
      old: what is kept so far; concrete, or traced where it is an argument of a transformation.

    Returns:
      Whether keeping `new` would outlive its tracers.
    """
    return not _traces(new) <= _traces(old)


def _traces(tree: Any) -> set[int]:
    leaves = jax.tree.leaves(tree)
    return {id(leaf._trace) for leaf in leaves if isinstance(leaf, jax.core.Tracer)}


def require_choice(owner: str, value: Any, options: Iterable[str], cure: str = "") -> None:
    """Refuses a value that is none of the options, and names the nearest.

    Args:
      owner: the argument, with what it belongs to.
      value: what came.
      options: the strings that are taken.
      cure: what else would do.

    Raises:
      ValueError: if `value` is not one of the options.
    """
    options = list(options)
    if isinstance(value, str) and value in options:
        return
    near = difflib.get_close_matches(value, options, n=1) if isinstance(value, str) else []
    hint = f"Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(map(repr, options))
    raise ValueError(
        must(owner, f"be one of {listed}", value, " ".join(filter(None, (hint, cure))))
    )


def require_kind(owner: str, value: Any, kind: type, noun: str, cure: str = "") -> None:
    """Refuses a value of another type than `kind`.

    Args:
      owner: the argument, with what it belongs to.
      value: what came.
      kind: the type it must have. A bool is no int here.
      noun: that type in words, with its article.
      cure: what to do.

    Raises:
      TypeError: if `value` is not a `kind`.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(must(owner, f"be {noun}", value, cure))


def require_whole(owner: str, value: Any, low: int, high: int | None = None) -> None:
    """Refuses what is not an int of `low` or more, and below `high` if that is given.

    Args:
      owner: the argument, with what it belongs to.
      value: what came.
      low: the least that is taken.
      high: the first that is not taken, or None.

    Raises:
      TypeError: if `value` is no int.
      ValueError: if it is out of range.
    """
    require_kind(owner, value, int, "an int")
    if value < low or (high is not None and value >= high):
        bound = f"be at least {low}" if high is None else f"be in [{low}, {high})"
        raise ValueError(must(owner, bound, value))


def require_number(owner: str, value: Any, *, finite: bool = True) -> None:
    """Refuses what is not a plain real number.

    Args:
      owner: the argument, with what it belongs to.
      value: what came; ints and floats pass, NumPy scalars among them, bools do not.
      finite: whether infinities are refused. NaN always is.

    Raises:
      TypeError: if `value` is no number.
      ValueError: if it is NaN, or infinite where it must be finite.
    """
    if not is_number(value):
        raise TypeError(must(owner, "be a number", value))
    if value != value or (finite and abs(value) == math.inf):  # an int may be too large for isnan
        raise ValueError(must(owner, "be finite" if finite else "not be NaN", value))


def is_number(value: Any) -> bool:
    """Says whether a value is an int, a float or a NumPy scalar of either; no bool, no array."""
    kinds = (int, float, np.integer, np.floating)
    return isinstance(value, kinds) and not isinstance(value, bool)


def names(mapping: Mapping[str, Any]) -> str:
    """Lists the keys of a mapping for an error message."""
    return ", ".join(repr(name) for name in mapping) or "nothing"
