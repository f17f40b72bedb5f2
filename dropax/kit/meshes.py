"""Meshes with explicit axes: records sharded over them are processed as over automatic axes.

Given a function of records and the records, calls it so that each device draws its own part of the
masks. Where axes are explicit, JAX asks each operation how its result lies over the mesh, and a
look-up in a table, such as a mode's, has no answer.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding


def explicit_axes(tree: Any) -> tuple[str, ...]:
    """Returns the names of the explicit mesh axes that an array of a tree is sharded over."""
    mesh = _mesh_of(tree)
    kinds = () if mesh is None else zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind is AxisType.Explicit)


def call_over_mesh(function: Callable[..., tuple[Any, Any]], records: Any, *rest: Any) -> Any:
    """Calls a function of records; inside it, explicit axes are automatic.

    Args:
      function: `(records, *rest) -> (records, summary)`. Where axes are explicit it is compiled,
        once for each function that is not equal to one before.
      records: a tree of arrays with a leading batch axis.
      *rest: trees of arrays and numbers.

    Returns:
      What the function returns. Over explicit axes, an array of its records lies as the first one
      of its shape did that was given, or else as the batch axis does, and the summary is on every
      device.
    """
    if not explicit_axes((records, rest)):
        return function(records, *rest)
    return _call_on_auto_axes(function, records, *rest)


@functools.partial(jax.jit, static_argnums=0)
def _call_on_auto_axes(function: Any, records: Any, *rest: Any) -> Any:
    arguments = (records, *rest)
    mesh = _mesh_of(arguments)
    given = jax.tree.leaves(records)
    lies = {leaf.shape: jax.typeof(leaf).sharding for leaf in reversed(given)}
    by_batch = NamedSharding(mesh, jax.P(*lies[given[0].shape].spec[:1]))
    # Without how they lie, or the function would be traced over explicit axes after all.
    bare = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    made, _ = jax.eval_shape(function, *bare)
    out = (
        jax.tree.map(lambda leaf: lies.get(leaf.shape, by_batch), made),
        NamedSharding(mesh, jax.P()),
    )
    axes = explicit_axes(arguments)
    return jax.sharding.auto_axes(function, axes=axes, out_sharding=out)(*arguments)


def _mesh_of(tree: Any) -> Any:
    """Returns the mesh of the first array that is cut over one, or None."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array):  # statistics may hold anything
            sharding = jax.typeof(leaf).sharding
            if any(part is not None for part in sharding.spec):
                return sharding.mesh
    return None
