"""Fields of an element, by dotted path.

Given a nested dict and a path such as `"camera.rgb"`, returns or replaces what lies there.
Reading never changes a dict, and writing copies the dicts on its way. A key that itself holds
dots is found first, as it stands.
"""

import copy
from collections.abc import Mapping
from typing import Any

from dropax.kit.errors import must, names


def get_field(data: Any, path: str) -> Any:
    """Returns what lies at a dotted path.

    Args:
      data: nested dicts with string keys.
      path: the names from the outermost dict inwards, joined by dots.

    Returns:
      The value there, itself and not a copy.

    Raises:
      KeyError: if the path leads nowhere; the message lists what is there instead.

    Example:
      >>> get_field({"camera": {"rgb": 1, "depth": 2}}, "camera.depth")
      2
    """
    node, walked = data, ""
    for name in _split(data, path):
        where = repr(walked) if walked else "the data"
        if not isinstance(node, Mapping):
            raise KeyError(f"field {path!r} not found: {where} is not a dict.")
        if name not in node:
            raise KeyError(f"field {path!r} not found: {where} has {names(node)}.")
        node = node[name]
        walked = f"{walked}.{name}" if walked else name
    return node


def set_field(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Returns a copy of nested dicts with a value put at a dotted path.

    Args:
      data: nested dicts with string keys; left as it is. What is not on the path is shared.
      path: where to put the value. Dicts that are missing on the way are made.
      value: what to put there.

    Returns:
      A new outermost dict, of the same type.

    Raises:
      TypeError: if the path leads through something that is not a dict.

    Example:
      >>> set_field({"image": 1}, "views.dropped", 2)
      {'image': 1, 'views': {'dropped': 2}}
    """
    return _with(data, _split(data, path), value, path)


def remove_field(data: dict[str, Any], path: str) -> dict[str, Any]:
    """Returns a copy of nested dicts without what lies at a dotted path.

    Args:
      data: nested dicts with string keys; left as it is.
      path: leads to what is to be left out.

    Returns:
      A new outermost dict, of the same type.

    Raises:
      KeyError: if the path leads nowhere.

    Example:
      >>> remove_field({"image": 1, "aux": {"depth": 2, "pose": 3}}, "aux.depth")
      {'image': 1, 'aux': {'pose': 3}}
    """
    get_field(data, path)
    return _without(data, _split(data, path))


def _split(data: Any, path: str) -> list[str]:
    return [path] if isinstance(data, Mapping) and path in data else path.split(".")


def _without(node: Any, parts: list[str]) -> dict[str, Any]:
    name, *rest = parts
    changed = copy.copy(node)
    if rest:
        changed[name] = _without(node[name], rest)
    else:
        del changed[name]
    return changed


def _with(node: Any, parts: list[str], value: Any, path: str) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise TypeError(must(f"field {path!r}", "lead through dicts only", node))
    name, rest = parts[0], parts[1:]
    changed = copy.copy(node)
    changed[name] = _with(node.get(name, {}), rest, value, path) if rest else value
    return changed
