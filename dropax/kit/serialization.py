"""Configs as values that JSON knows, and the objects in them as text, written as in Python.

Text is parsed and never run: it holds literals and calls of known classes only. What has no such
form is refused by name.
"""

import ast
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, cast

import jax.numpy as jnp
import numpy as np

from dropax.kit.errors import did_you_mean, is_array, is_real, is_traced, must, require_choice

_CURE = "Functions, traced values and objects that are no dataclasses have no plain form."
_ARRAY = ("dtype", "shape", "values")


def plain(value: Any) -> Any:
    """Returns tuples for lists and Python numbers for NumPy's scalars; anything else as it is.

    Lists are all sequences, such as those of OmegaConf.
    """
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(map(plain, value))
    is_scalar = isinstance(value, np.ndarray | np.generic) and value.shape == ()
    return value.item() if is_scalar else value


Function = TypeVar("Function", bound=Callable[..., Any])


def takes_plain(function: Function) -> Function:
    """Lets a function take what is `plain` for the arguments that it names, not for its options."""
    named = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        given = {name: plain(one) if name in named else one for name, one in options.items()}
        return function(*map(plain, arguments), **given)

    return cast(Function, call)


def as_containers(tree: Any) -> Any:
    """Returns dicts and lists for other mappings and sequences, such as those of OmegaConf."""
    if isinstance(tree, Mapping) and (type(tree) is dict or not isinstance(tree, dict)):
        return {name: as_containers(part) for name, part in tree.items()}
    if isinstance(tree, Sequence) and not isinstance(tree, str | bytes | tuple):
        return list(map(as_containers, tree))
    return tree


class _NaN(float):
    """NaN that is equal to NaN."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NaN)

    def __hash__(self) -> int:
        return 0


def static_number(number: Any) -> Any:
    """Returns a Python number that is equal to those that do the same: NaN, and 0.0 for -0.0."""
    is_nan = isinstance(number, float) and math.isnan(number)
    return _NaN(number) if is_nan else number + 0


def changed_fields(instance: Any) -> Iterator[tuple[str, Any]]:
    """Yields (name, value) of each field of a dataclass that has not its default, type included."""
    for field in dataclasses.fields(instance):
        value, default = getattr(instance, field.name), field.default
        is_default = value is default or (type(value) is type(default) and bool(value == default))
        if field.init and not is_default:
            yield field.name, value


def shortest(value: Any, names: Mapping[str, Any]) -> Any:
    """Returns the name that stands for an object, or the object itself; of a tuple, of each."""
    if isinstance(value, tuple):
        return tuple(shortest(part, names) for part in value)
    named = (name for name, one in names.items() if type(one) is type(value) and one == value)
    return next(named, value)


def write_text(value: Any, name: str) -> str:
    """Writes an object as Python does, without the options that have their defaults.

    An object is None, a bool, a number, a string, a tuple of these, or a dataclass of them.

    Example:
      >>> from dropax import Box, OneOf
      >>> write_text(OneOf(("grid", Box(count=3))), "mode")
      'OneOf(modes=(Grid(), Box(count=3)))'
    """
    value = plain(value)
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, tuple):
        parts = [write_text(part, f"{name}[{n}]") for n, part in enumerate(value)]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value).__name__
        options = [
            f"{option}={write_text(part, f'{kind}.{option}')}"
            for option, part in changed_fields(value)
        ]
        return f"{kind}({', '.join(options)})"
    raise TypeError(must(name, "be plain values", value, _CURE))


def read_text(
    text: str, names: Mapping[str, Any], types: Mapping[str, type], name: str, example: str
) -> Any:
    """Returns what a text stands for, or raises a ValueError that says what is wrong, and where.

    The text is one of `names`, which stand for objects, or a call of one of `types`, a number, or a
    tuple or list of these, whose arguments are such values, strings, bools and None. An error says
    the `name` of the argument and an `example` of a text that would do.

    Example:
      >>> from dropax import Box
      >>> read_text("Box(count=3)", {}, {"Box": Box}, "mode", "Box()").count
      3
    """
    source = text.strip().replace("\n", " ")
    if source in names:
        return names[source]
    first = len(text) - len(text.lstrip()) + 1  # the number of its first character

    def refuse(why: str, at: int, hint: str = "") -> NoReturn:
        cure = f"At character {at}: {why}. {hint}".rstrip()
        raise ValueError(must(name, f"be written as in Python, such as {example!r}", text, cure))

    def place(node: Any) -> int:
        return len(source.encode()[: node.col_offset].decode()) + first

    def value_of(node: Any) -> Any:
        match node:
            case ast.Constant(value=None | bool() | int() | float() | str() as value):
                return value
            case ast.Name(id="inf" | "nan" as name):
                return float(name)
            case ast.UnaryOp(ast.USub(), ast.Constant(int() | float()) | ast.Name("inf") as number):
                return -value_of(number)
            case ast.Tuple(parts) | ast.List(parts):
                return tuple(map(value_of, parts))
            case ast.Call(ast.Name(name), arguments, options):
                return call(node, name, arguments, options)
        part = ast.get_source_segment(source, node)
        return refuse(f"{part!r} is neither a literal nor a call of a class", place(node))

    def call(node: Any, name: str, arguments: list[Any], options: list[Any]) -> Any:
        if name not in types:
            listed = did_you_mean(name, types) or f"There are {', '.join(types)}."
            refuse(f"there is no {name!r}", place(node), listed)
        known = [field.name for field in dataclasses.fields(types[name]) if field.init]
        given, named = [value_of(part) for part in arguments], {}
        for option in options:
            if option.arg not in known:
                hint = did_you_mean(str(option.arg), known)
                refuse(f"{name} has no option {option.arg!r}", place(option), hint)
            if option.arg in named:
                refuse(f"the option {option.arg!r} is repeated", place(option))
            named[option.arg] = value_of(option.value)
        try:
            return types[name](*given, **named)
        except (TypeError, ValueError) as error:
            return refuse(str(error).replace(".__init__()", "").rstrip("."), place(node))

    if not source or (source.isidentifier() and source not in ("inf", "nan")):
        hint = f"{source}()" if source in types else example
        require_choice(name, source, names, f"Or write it as in Python, such as {hint!r}.")
    try:
        tree = ast.parse(source, mode="eval")
    except SyntaxError as error:
        refuse(error.msg, max(error.offset or 1, 1) + first - 1)
    except (ValueError, RecursionError, MemoryError):
        refuse("it cannot be parsed, or is nested too deep", 1)
    return value_of(tree.body)


def _is_json(value: Any) -> bool:
    is_exact = value is None or isinstance(value, bool | int | str)
    return is_exact or (isinstance(value, float) and math.isfinite(value))


def write_value(value: Any, name: str) -> Any:
    """Writes a config's value: what JSON has no form for, as text; tuples as lists."""
    if is_array(value) and value.shape == () and not is_traced(value):
        value = np.asarray(value).item()
    if isinstance(value, list | tuple):
        return [write_value(part, f"{name}[{n}]") for n, part in enumerate(value)]
    return value if _is_json(value) else write_text(value, name)


def write_statistics(value: Any, name: str) -> Any:
    """Writes nested dicts and lists of plain values and of arrays: `{dtype, shape, values}`."""
    if _is_json(value):
        return value
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value) or value.keys() == set(_ARRAY):
            constraint = f"be named by strings, which are not just {', '.join(_ARRAY)}"
            raise TypeError(must(name, constraint, value))
        return {key: write_statistics(part, f"{name}[{key!r}]") for key, part in value.items()}
    if isinstance(value, list):
        return [write_statistics(part, f"{name}[{n}]") for n, part in enumerate(value)]
    if is_array(value) and not is_traced(value) and is_real(value.dtype):
        array = np.asarray(value)
        wide = array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array
        values = [write_value(number, name) for number in wide.ravel().tolist()]
        return {"dtype": str(array.dtype), "shape": list(array.shape), "values": values}
    cure = "A tuple would come back as a list, and NaN as text: pass arrays."
    raise TypeError(must(name, "be finite numbers, text, lists or arrays", value, cure))


def read_statistics(value: Any, name: str) -> Any:
    """Returns what `write_statistics` wrote."""
    if isinstance(value, list):
        return [read_statistics(part, f"{name}[{n}]") for n, part in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if value.keys() != set(_ARRAY):
        return {key: read_statistics(part, f"{name}[{key!r}]") for key, part in value.items()}
    try:
        numbers = [float(part) if isinstance(part, str) else part for part in value["values"]]
        return np.array(numbers, jnp.dtype(value["dtype"])).reshape(value["shape"])
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(must(name, "be an array as to_dict writes it", value)) from error
