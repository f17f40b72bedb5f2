"""Fields of records: nested dicts of arrays, by dotted path, and how many records they hold.

Reading never changes a dict, and writing copies the dicts on its way. A key that itself holds dots
is found first, as it stands.
"""

import copy
from collections.abc import Mapping
from typing import Any

from jax.tree_util import keystr, tree_flatten_with_path

from dropax.kit.errors import must, names


def get_field(data: Any, path: str) -> Any:
    """Returns what is at a dotted path, itself; a KeyError lists what is there instead.

    Example:
      >>> get_field({"camera": {"rgb": 1, "depth": 2}}, "camera.depth")
      2
    """
    node, walked = data, ""
    whole = isinstance(data, Mapping) and path in data
    for name in [path] if whole else path.split("."):
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

    What is not on the path is shared, and dicts that are missing on the way are made. A TypeError
    if the path leads through anything else, a ValueError if it ends at a dict with fields.

    Example:
      >>> set_field({"image": 1}, "views.dropped", 2)
      {'image': 1, 'views': {'dropped': 2}}
    """
    *parts, last = [path] if isinstance(data, Mapping) and path in data else path.split(".")
    outermost: dict[str, Any] = {"": data}
    node: Any = outermost
    for name in ("", *parts):
        inner = node.get(name, {})
        if not isinstance(inner, dict):
            raise TypeError(must(f"field {path!r}", "lead through dicts only", inner))
        node[name] = node = copy.copy(inner)
    if isinstance(node.get(last), dict) and node[last] and value is not _GONE:
        constraint = f"not take the place of a dict with {names(node[last])}"
        raise ValueError(must(f"field {path!r}", constraint, path))
    node[last] = value
    if value is _GONE:
        del node[last]
    changed: dict[str, Any] = outermost[""]
    return changed


_GONE = object()


def remove_field(data: dict[str, Any], path: str) -> dict[str, Any]:
    """Returns a copy of nested dicts without what is at a dotted path; KeyError if nothing is.

    Example:
      >>> remove_field({"image": 1, "aux": {"depth": 2, "pose": 3}}, "aux.depth")
      {'image': 1, 'aux': {'pose': 3}}
    """
    get_field(data, path)
    return set_field(data, path, _GONE)


def by_path(tree: Any) -> list[tuple[str, Any]]:
    """Returns the leaves of a tree, each with its dotted path."""
    leaves = tree_flatten_with_path(tree)[0]
    return [(keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]


def leading_size(tree: Any) -> int:
    """Returns the length of the leading axis that all arrays of a tree share."""
    first: tuple[str, int] | None = None
    for name, leaf in by_path(tree):
        shape = getattr(leaf, "shape", None)
        if not isinstance(shape, tuple):
            raise TypeError(must(f"leaf {name!r}", "be an array", leaf))
        if not shape:
            raise ValueError(must(f"leaf {name!r}", "have a leading batch axis", leaf))
        first = first or (name, shape[0])
        if shape[0] != first[1]:
            constraint = f"have {first[1]} records along its leading axis, as {first[0]!r} has"
            raise ValueError(must(f"leaf {name!r}", constraint, leaf))
    if first is None:
        raise ValueError("a batch must hold at least one array; got none.")
    return first[1]
