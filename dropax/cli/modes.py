"""Modes as the command line takes them: a name, or a region as it is written in Python.

The text is parsed and never evaluated: it may hold literals and calls of region classes only.
"""

import argparse
import ast
import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any, NoReturn

from dropax.modes import MODES, TYPES, Mode


def parse_mode(text: str) -> str | Mode:
    """Returns the mode that a text says.

    Args:
      text: a mode's name, or a call of a region class, such as `Box(count=3)`. Arguments are
        numbers, strings, bools, None, tuples and lists of these, and such calls themselves.

    Raises:
      argparse.ArgumentTypeError: if it is neither; says what is wrong, and at which character.

    Example:
      >>> parse_mode("box"), parse_mode("Patch(size=(8, 16))")
      ('box', Patch(size=(8, 16), exact=False))
    """
    text = text.strip()
    if text in MODES:
        return text
    if "(" not in text:
        hint = f"pass {text}() for its defaults" if text in TYPES else _or_options(text)
        _refuse(f"invalid choice: {text!r} (choose from {', '.join(map(repr, MODES))}; {hint})")
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        _refuse(f"{error.msg}{_at(error.offset or 1)}: {text!r}")
    except (ValueError, RecursionError, MemoryError):
        _refuse("must be a mode's name or a call such as Box(count=3), and not nested too deep")
    if not isinstance(node, ast.Call):
        _refuse(f"must be a mode's name or one call such as Box(count=3); got {text!r}")
    region: Mode = _value(node, text)
    return region


def _value(node: ast.expr, text: str) -> Any:
    """Returns what an expression stands for."""
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(ast.USub(), ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Tuple(parts):
            return tuple(_value(part, text) for part in parts)
        case ast.List(parts):
            return [_value(part, text) for part in parts]
        case ast.Call(ast.Name(name), arguments, options):
            return _call(node, name, arguments, options, text)
    part = ast.get_source_segment(text, node)
    raise argparse.ArgumentTypeError(
        "must hold numbers, strings, bools, None, tuples and calls of regions only; got "
        f"{part!r}{_at(node.col_offset + 1)}"
    )


def _call(
    node: ast.Call,
    name: str,
    arguments: list[ast.expr],
    options: list[ast.keyword],
    text: str,
) -> Mode:
    """Makes the region that a call stands for."""
    if name not in TYPES:
        _refuse(f"there is no region {name!r}{_at(node.col_offset + 1)}; {_known(name, TYPES)}")
    kind: Any = TYPES[name]
    fields = dataclasses.fields(kind)
    known = [field.name for field in fields]
    positional = [field.name for field in fields if not field.kw_only]
    if len(arguments) > len(positional):
        at = _at(arguments[len(positional)].col_offset + 1)
        _refuse(f"{name} takes up to {len(positional)} options; got another{at}")
    values = zip(positional, (_value(part, text) for part in arguments), strict=False)
    given: dict[str, Any] = dict(values)
    for option in options:
        at = _at(option.col_offset + 1)
        if option.arg is None:
            _refuse(f"must name each option; got {ast.get_source_segment(text, option)!r}{at}")
        if option.arg not in known:
            _refuse(f"{name} has no option {option.arg!r}{at}; {_known(option.arg, known)}")
        if option.arg in given:
            _refuse(f"{name} has one option {option.arg!r}; got another{at}")
        given[option.arg] = _value(option.value, text)
    try:
        region: Mode = kind(**given)
        hash(region)  # what a config needs, and a list in it is not
    except (TypeError, ValueError) as error:
        why = str(error).replace(".__init__()", "").rstrip(".")
        _refuse(f"{why} (in the call{_at(node.col_offset + 1)})")
    return region


def _or_options(text: str) -> str:
    near = difflib.get_close_matches(text, MODES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}or write its options, as in 'Box(count=3)'"


def _known(name: str, names: Iterable[str]) -> str:
    """Names the nearest of some names, or lists all of them."""
    listed = list(names)
    near = difflib.get_close_matches(name, listed, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(listed) or 'none'}"


def _at(character: int) -> str:
    return f" at character {character}"


def _refuse(why: str) -> NoReturn:
    raise argparse.ArgumentTypeError(why)
