"""Masks from boxes and lengths, such as for the `where_key` of a config.

Shapes are static and nothing is drawn, so that they can be made inside a jitted step.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dropax.kit.arrays import as_int32, as_numbers, split_places
from dropax.kit.errors import must, require_whole
from dropax.kit.serialization import plain


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
    sizes = plain(shape)
    if not (isinstance(sizes, tuple) and all(type(size) is int for size in sizes)):
        raise TypeError(must("box_mask.shape", "be a tuple of ints", shape))
    if any(size < 0 for size in sizes):
        raise ValueError(must("box_mask.shape", "have no negative size", shape))
    boxes = as_numbers(boxes, "box_mask.boxes", "real numbers")
    axes = len(sizes)
    if not axes or boxes.ndim < 2 or boxes.shape[-1] != 2 * axes:
        constraint = f"have shape (..., n, {2 * axes}), two corners in an image of shape {shape}"
        raise ValueError(must("box_mask.boxes", constraint, boxes))
    # On the host 64-bit numbers are read before JAX narrows them.
    return _inside(corners_of(boxes) if isinstance(boxes, np.ndarray) else boxes, sizes)


class Corners(NamedTuple):
    """Boxes of n axes: where they start and end, as `split_places` returns it, each (..., n)."""

    first: tuple[Any, Any]
    last: tuple[Any, Any]
    is_box: Any  # whether the one is before the other


def corners_of(boxes: Any) -> Corners:
    """Returns the corners of boxes (..., 2 * n), of NumPy or JAX."""
    xp: Any = np if isinstance(boxes, np.ndarray) else jnp
    axes = boxes.shape[-1] // 2
    is_box = boxes[..., :axes] < boxes[..., axes:]  # False for NaN
    whole, part = split_places(boxes)
    first, last = (whole[..., :axes], part[..., :axes]), (whole[..., axes:], part[..., axes:])
    # Within one pixel it is all the same how much of it: thin boxes need not be told in float32.
    is_within = is_box & (first[0] == last[0])
    first = first[0], xp.where(is_within, np.float32(0), first[1])
    last = last[0], xp.where(is_within, np.float32(1), last[1])
    return Corners(first, last, is_box)


# Jitted with `inline=True`: one dispatch when called eagerly, inlined under an outer jit.
@functools.partial(jax.jit, static_argnums=1, inline=True)
def _inside(boxes: jax.Array | Corners, sizes: tuple[int, ...]) -> jax.Array:
    """Returns which pixels lie in any of n boxes, (..., *sizes), of boxes (..., n, 2 * axes)."""
    axes = len(sizes)
    corners = boxes if isinstance(boxes, Corners) else corners_of(boxes)
    inside: Any = True
    for axis, size in enumerate(sizes):
        of_axis = jax.tree.map(operator.itemgetter((..., axis, None)), corners)
        (first, _), (last, part), is_box = of_axis
        pixel = positions(size, first.ndim)
        # From the pixel of the first corner to that before the last one, or to its own.
        covered = is_box & (pixel >= first) & ((pixel < last) | ((pixel == last) & (part > 0)))
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
    size = plain(size)
    require_whole("length_mask.size", size, 0)
    lengths = as_numbers(lengths, "length_mask.lengths", "integers")
    return positions(size, lengths.ndim + 1) < as_int32(lengths, 0, size)[..., None]


def positions(size: int, rank: int) -> jax.Array:
    """Returns the positions along the last of so many axes, int32."""
    return jnp.arange(size, dtype=jnp.int32).reshape([1] * (rank - 1) + [size])
