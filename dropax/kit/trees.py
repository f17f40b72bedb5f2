"""Arrays, and trees of them: how they are registered, stacked, copied, broadcast and shown."""

import functools
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, keystr, register_pytree_with_keys, tree_map_with_path

from dropax.kit.arrays import as_array
from dropax.kit.errors import is_array, must


def summarize(tree: Any) -> Any:
    """Shows a tree with `dtype[shape]` in place of its arrays, for a repr."""

    def shown(leaf: Any) -> Any:
        return _Text(f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]") if is_array(leaf) else leaf

    return repr(jax.tree.map(shown, tree))


def register_pytree(cls: type, leaves: tuple[str, ...], *, static: bool = False) -> None:
    """Registers a dataclass as a pytree of the fields `leaves`, rebuilt without its constructor.

    So `tree.map`, `vmap` axes and `device_get` may put anything into a leaf. If `static`, its other
    fields are its `static_part`, a tuple of (name, value), hashed and compared by value. Else they
    are no part of the tree and fall back to their defaults, and `jax.export` can write the class.
    """
    keys = [GetAttrKey(name) for name in leaves]

    def flatten(tree: Any) -> tuple[Any, Any]:
        return [getattr(tree, name) for name in leaves], tree.static_part if static else ()

    def flatten_with_keys(tree: Any) -> tuple[Any, Any]:
        children, rest = flatten(tree)
        return list(zip(keys, children, strict=True)), rest

    def unflatten(rest: Any, children: Any) -> Any:
        tree: Any = object.__new__(cls)
        if static:
            vars(tree).update(rest, static_part=rest)
        vars(tree).update(zip(leaves, children, strict=True))
        return tree

    register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    if not static:
        jax.export.register_pytree_node_serialization(
            cls,
            serialized_name=f"dropax.{cls.__name__}",
            serialize_auxdata=lambda _: b"",
            deserialize_auxdata=lambda _: (),
        )


class _Text(str):
    """Text that shows without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def stack_trees(trees: list[Any], part: str) -> Any:
    """Stacks the leaves of trees of one structure, arrays or numbers; returns {} for no trees.

    `part` says which part of a record they are, for the error if they differ.
    """
    first: Any = jax.tree.structure(trees[0]) if trees else None
    for position, other in enumerate(map(jax.tree.structure, trees)):
        if other != first:
            name = f"Batch.elements[{position}].{part}"
            raise ValueError(must(name, f"have the structure of the first, {first}", other))
    return tree_map_with_path(functools.partial(_stack, part), *trees) if trees else {}


def _stack(part: str, path: Any, *leaves: Any) -> jax.Array:
    first, arrays = leaves[0], []
    for position, leaf in enumerate(leaves):
        name = f"Batch.elements[{position}].{part}{keystr(path)}"
        if not is_array(leaf) and not isinstance(leaf, bool | int | float | complex):
            raise TypeError(must(name, "be an array or a number", leaf))
        if np.shape(leaf) != np.shape(first):
            raise ValueError(must(name, f"have the first's shape {np.shape(first)}", leaf))
        if _kind(leaf) != _kind(first):
            raise ValueError(must(name, f"have the first's dtype {_kind(first)}", leaf))
        arrays.append(as_array(leaf, name))
    try:
        return jnp.stack(arrays)
    except (TypeError, ValueError, OverflowError):
        name = f"Batch.elements: {part}{keystr(path)}"
        raise TypeError(must(name, "be of a dtype that JAX takes", arrays[0])) from None


def _kind(leaf: Any) -> str:
    return str(leaf.dtype) if is_array(leaf) else type(leaf).__name__


def copy_tree(tree: Any) -> Any:
    """Copies a tree's containers and arrays, and shares whatever else it holds."""
    return jax.tree.map(_copy_leaf, tree)


def _copy_leaf(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jnp.copy(leaf)  # its own `copy` fails for a key while something else is traced
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def copy_containers(tree: Any) -> Any:
    """Copies a tree's containers and NumPy arrays, which could be changed, and shares the rest."""
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, tree)


def broadcast_rank(array: Any, shape: tuple[int, ...], name: str) -> jax.Array:
    """Gives an array, which must broadcast to an element, as many axes as that has."""
    pairs = zip(reversed(array.shape), reversed(shape), strict=False)
    if array.ndim > len(shape) or any(size not in (1, full) for size, full in pairs):
        raise ValueError(must(name, f"broadcast to the element's shape {shape}", array))
    return jnp.reshape(array, (1,) * (len(shape) - array.ndim) + array.shape)
