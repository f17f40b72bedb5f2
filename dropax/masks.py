"""Masks from boxes and lengths, such as for the `where_key` of a config.

Shapes are static and nothing is drawn, so that they can be made inside a jitted step.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.kit.errors import is_array, is_real, must, require_whole


def box_mask(boxes: Any, shape: tuple[int, ...]) -> jax.Array:
    """Returns which pixels lie in any of several boxes.

    A box is (top, left, bottom, right), in pixels, as for `visible_fraction`: pixel (y, x) is the
    square from (y, x) to (y + 1, x + 1), and a box reaches from its first corner to its second. A
    pixel that a box covers in part is inside. Empty boxes, those whose corners are the wrong way
    round or NaN, and so the usual padding, cover nothing.

    As the field of a `where_key`, `box_mask` drops in boxes only, and `~box_mask` protects them.

    Args:
      boxes: real numbers, of shape (..., n, 4); or (..., n, 2 * axes) for another number of spatial
        axes: first the corner at which the box starts, then the one at which it ends.
      shape: the sizes of the image's spatial axes, such as (height, width).

    Returns:
      bool, of shape (..., *shape), True inside any of the n boxes.

    Raises:
      TypeError: if the boxes are no array of real numbers, or the shape is no tuple of ints.
      ValueError: if a size is negative, or the boxes do not have two corners of as many numbers as
        `shape`.

    Example:
      >>> boxes = jnp.array([[0, 0, 1, 2], [2, 1.5, 3, 3]])
      >>> box_mask(boxes, (3, 3)).astype(int)
      Array([[1, 1, 0],
             [0, 0, 0],
             [0, 1, 1]], dtype=int32)
    """
    sizes = shape if isinstance(shape, tuple | list) else [None]
    if not all(isinstance(size, int | np.integer) and type(size) is not bool for size in sizes):
        raise TypeError(must("box_mask.shape", "be a tuple of ints", shape))
    if any(size < 0 for size in sizes):
        raise ValueError(must("box_mask.shape", "have no negative size", shape))
    if not (is_array(boxes) and is_real(boxes.dtype) and boxes.dtype != jnp.bool_):
        raise TypeError(must("box_mask.boxes", "be an array of real numbers", boxes))
    axes = len(sizes)
    if not axes or boxes.ndim < 2 or boxes.shape[-1] != 2 * axes:
        constraint = f"have shape (..., n, {2 * axes}), two corners in an image of shape {shape}"
        raise ValueError(must("box_mask.boxes", constraint, boxes))
    return _inside(jnp.asarray(boxes).astype(jnp.float32), tuple(sizes))


# Jitted with `inline=True`: one dispatch when called eagerly, inlined under an outer jit.
@functools.partial(jax.jit, static_argnums=1, inline=True)
def _inside(corners: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Returns which pixels lie in any box, (..., *sizes), of corners (..., n, 2 * axes)."""
    axes = len(sizes)
    inside: Any = True
    for axis, size in enumerate(sizes):
        first, last = (corners[..., at, None] for at in (axis, axis + axes))
        start = jnp.arange(size, dtype=jnp.float32).reshape([1] * (corners.ndim - 1) + [size])
        # The part from `start` to `start + 1` and the box have more than a point in common. Each
        # comparison with NaN is false.
        covered = (first < last) & (start + 1 > first) & (start < last)
        # (..., n, size) becomes (..., n, 1, size, 1) or the like, to be broadcast to all axes.
        others = [1] * axes
        others[axis] = size
        inside = inside & covered.reshape(*covered.shape[:-1], *others)
    return inside.any(axis=-1 - axes)


def length_mask(lengths: Any, size: int) -> jax.Array:
    """Returns which positions come before a length, such as the frames that are no padding.

    As the field of a `where_key`, it lets only these drop. An axis may be added for each further
    axis of the image: `length_mask(lengths, frames)[..., None]` fits spectrograms of shape
    (B, frames, bins).

    Args:
      lengths: integers of any shape. Below 0 they count as 0, above `size` as `size`.
      size: of the axis, at least 0.

    Returns:
      bool, of shape (*lengths.shape, size).

    Raises:
      TypeError: if the lengths are no array of integers, or `size` is no int.
      ValueError: if `size` is negative.

    Example:
      >>> length_mask(jnp.array([1, 3]), 4).astype(int)
      Array([[1, 0, 0, 0],
             [1, 1, 1, 0]], dtype=int32)
    """
    require_whole("length_mask.size", size, 0)
    if not (is_array(lengths) and jnp.issubdtype(lengths.dtype, jnp.integer)):
        raise TypeError(must("length_mask.lengths", "be an array of integers", lengths))
    lengths = jnp.asarray(lengths)
    # Clipped in their own dtype: it may not hold `size`, and its values may not fit int32.
    most = min(size, int(jnp.iinfo(lengths.dtype).max))
    bounded = jnp.clip(lengths, np.zeros((), lengths.dtype), np.asarray(most, lengths.dtype))
    positions = jnp.arange(size, dtype=jnp.int32).reshape([1] * lengths.ndim + [size])
    return positions < bounded.astype(jnp.int32)[..., None]
