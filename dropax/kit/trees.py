"""Trees of arrays: how many records they hold, how they are stacked, shown and exported."""

from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from dropax.kit.errors import is_array, must


def leading_size(tree: Any, owner: str) -> int:
    """Returns the length of the leading axis that all leaves share.

    Args:
      tree: nested dicts of arrays.
      owner: whose tree it is, for the error.

    Returns:
      That length.

    Raises:
      TypeError: if a leaf is no array.
      ValueError: if there is no leaf, one without axes, or two that differ.
    """
    refuse_endless(tree, owner)
    first: tuple[str, int] | None = None
    for path, leaf in tree_flatten_with_path(tree)[0]:
        name = keystr(path, simple=True, separator=".")
        if not is_array(leaf):
            raise TypeError(must(f"{owner}: leaf {name!r}", "be an array", leaf))
        if not leaf.shape:
            raise ValueError(must(f"{owner}: leaf {name!r}", "have a leading batch axis", leaf))
        first = first or (name, leaf.shape[0])
        if leaf.shape[0] != first[1]:
            constraint = f"have {first[1]} records along its leading axis, as {first[0]!r} has"
            raise ValueError(must(f"{owner}: leaf {name!r}", constraint, leaf))
    if first is None:
        raise ValueError(f"{owner} must hold at least one array; got none.")
    return first[1]


def refuse_endless(tree: Any, owner: str) -> None:
    """Refuses containers that hold themselves: JAX would take the whole process down.

    Args:
      tree: nested dicts, lists and tuples of anything.
      owner: whose tree it is, for the error.

    Raises:
      ValueError: if it is nested deeper than 100 containers, as one that holds itself is.
    """

    def walk(node: Any, depth: int) -> None:
        if depth > 100:
            raise ValueError(must(owner, "be nested no deeper than 100 containers", tree))
        if isinstance(node, dict | list | tuple):
            for part in node.values() if isinstance(node, dict) else node:
                walk(part, depth + 1)

    walk(tree, 0)


def summarize(tree: Any) -> Any:
    """Shows a tree with `dtype[shape]` in place of its arrays, for a repr."""
    shown = jax.tree.map(
        lambda leaf: (
            _Text(f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]") if is_array(leaf) else leaf
        ),
        tree,
    )
    return repr(shown)


def register_export(cls: type, static: Any) -> None:
    """Lets `jax.export` write functions that take or return objects of a class.

    Args:
      cls: a registered pytree, of which only leaves differ from object to object.
      static: what its flattening gives beside the leaves.
    """
    jax.export.register_pytree_node_serialization(
        cls,
        serialized_name=f"dropax.{cls.__name__}",
        serialize_auxdata=lambda _: b"",
        deserialize_auxdata=lambda _: static,
    )


class _Text(str):
    """Text that shows without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _kind(leaf: Any) -> str:
    return str(leaf.dtype) if is_array(leaf) else type(leaf).__name__


def stack_trees(trees: list[Any], part: str) -> Any:
    """Stacks the leaves of trees of one structure.

    Args:
      trees: one for each record; their leaves are arrays or numbers.
      part: which part of a record they are, for the error.

    Returns:
      A tree of the same structure, with a leading axis of one entry a record; {} for no trees.

    Raises:
      TypeError: if a leaf is no array or number.
      ValueError: if structures, shapes or dtypes differ.
    """
    if not trees:
        return {}
    for position, tree in enumerate(trees):
        refuse_endless(tree, f"Batch.elements[{position}].{part}")
    paths = tree_flatten_with_path(trees[0])[0]
    structure: Any = jax.tree.structure(trees[0])
    columns: list[list[Any]] = [[] for _ in paths]
    for position, tree in enumerate(trees):
        leaves, other = jax.tree.flatten(tree)
        if other != structure:
            owner = f"Batch.elements[{position}].{part}"
            raise ValueError(must(owner, f"have the structure of the first, {structure}", other))
        for column, leaf, (path, first) in zip(columns, leaves, paths, strict=True):
            owner = f"Batch.elements[{position}].{part}{keystr(path)}"
            if not is_array(leaf) and not isinstance(leaf, (bool, int, float, complex)):
                raise TypeError(must(owner, "be an array or a number", leaf))
            if np.shape(leaf) != np.shape(first):
                constraint = f"have the first's shape {np.shape(first)}"
                raise ValueError(must(owner, constraint, leaf))
            if _kind(leaf) != _kind(first):
                raise ValueError(must(owner, f"have the first's dtype {_kind(first)}", leaf))
            column.append(leaf)
    stacked = []
    for column, (path, _) in zip(columns, paths, strict=True):
        try:
            stacked.append(jnp.stack(column))
        except (TypeError, ValueError, OverflowError):
            owner = f"Batch.elements: {part}{keystr(path)}"
            raise TypeError(must(owner, "be of a dtype that JAX takes", column[0])) from None
    return jax.tree.unflatten(structure, stacked)


def copy_tree(tree: Any) -> Any:
    """Copies a tree's containers and arrays, and shares whatever else it holds."""
    return jax.tree.map(_copy_leaf, tree)


def _copy_leaf(leaf: Any) -> Any:
    if not is_array(leaf) or not hasattr(leaf, "copy"):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        # A key's own `copy` fails where the key is concrete and something else is being traced.
        data = jnp.array(jax.random.key_data(leaf), copy=True)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return leaf.copy()


def copy_containers(tree: Any) -> Any:
    """Copies a tree's containers and NumPy arrays, which could be changed, and shares the rest."""
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, tree)
