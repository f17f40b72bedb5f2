"""Meshes with explicit axes: records sharded over them are processed as over automatic axes.

Given a function of records and the records, calls it so that each device draws its own part of the
masks. Where axes are explicit, JAX asks each operation how its result lies over the mesh, and a
look-up in a table, such as a mode's, has no answer.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding


def explicit_mesh(tree: Any) -> Any:
    """Returns the mesh with explicit axes that an array of a tree lies on, or None.

    Under `vmap` the array itself need not be sharded: the axis that is mapped over may be.
    """
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array):  # statistics may hold anything
            mesh = jax.typeof(leaf).sharding.mesh
            if mesh.explicit_axes:
                return mesh
    return None


def over_mesh(
    function: Callable[..., tuple[Any, Any]], config: Any, state: Any, records: Any, *rest: Any
) -> Any:
    """Calls a function of records; if some have explicit axes, these are automatic inside it.

    All arguments are trees of arrays, and the function returns (records, summary). An array of its
    records lies as the first one of its shape did that was given, or else as the batch axis does,
    and the summary is on every device.
    """
    arguments = (config, state, records, *rest)
    mesh, given = explicit_mesh(arguments), jax.tree.leaves(records)
    if mesh is None:
        return function(*arguments)
    lies = {leaf.shape: jax.typeof(leaf).sharding for leaf in reversed(given)}
    by_batch = NamedSharding(mesh, jax.P(*lies[given[0].shape].spec[:1]))
    # Without how they lie, or the function would be traced over explicit axes after all.
    bare = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    made, _ = jax.eval_shape(function, *bare)
    out = (
        jax.tree.map(lambda leaf: lies.get(leaf.shape, by_batch), made),
        NamedSharding(mesh, jax.P()),
    )
    return jax.sharding.auto_axes(function, axes=mesh.explicit_axes, out_sharding=out)(*arguments)
