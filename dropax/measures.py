"""How much is dropped: expected, measured, and what stays visible of boxes and points."""

import functools
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import GRID, drop_units
from dropax.config import DropoutOperatorConfig
from dropax.kit.arrays import as_int32, as_numbers, split_places
from dropax.kit.errors import must, require_kind
from dropax.kit.process import Process
from dropax.kit.serialization import plain
from dropax.layout import Layout
from dropax.masks import Corners, corners_of, length_mask, positions
from dropax.modes import expected_fraction


def expected_dropped_fraction(
    config: DropoutOperatorConfig, element_shape: tuple[int, ...]
) -> jax.Array:
    """Returns the fraction of an element that is dropped in expectation.

    That is the rate, with two exceptions: if `Channel(min_kept=...)` keeps more channels than
    the rate would, it is less (`Inverted` of it, more), and if `apply_probability` leaves records
    alone, these count. Of a range of rates it is the mean. With a `where_key` or an `extent_key` it
    is the fraction of what may drop; but `min_kept` then counts as if all channels might.

    Args:
      config: static fields used: `mode`, `channel_axis`. Dynamic: `dropout_rate`,
        `apply_probability`.
      element_shape: the element's own, without a batch axis.

    Returns:
      float32 scalar in [0, 1].

    Raises:
      TypeError: if the config or the shape is of the wrong type.
      ValueError: if the element lacks the `channel_axis`.

    Example:
      >>> from dropax import Channel
      >>> config = DropoutOperatorConfig(
      ...     field_key="image", mode=Channel(min_kept=1), dropout_rate=0.5
      ... )
      >>> expected_dropped_fraction(config, (32, 32, 3)).round(4)
      Array(0.4583, dtype=float32)
    """
    kind, name = DropoutOperatorConfig, "expected_dropped_fraction"
    require_kind(f"{name}.config", config, kind, f"a {kind.__name__}")
    sizes = plain(element_shape)
    if not (isinstance(sizes, tuple) and all(isinstance(size, int) for size in sizes)):
        raise TypeError(must(f"{name}.element_shape", "be a shape", element_shape))
    Process.require_own()
    shape = Layout.of(sizes, config.channel_axis).channel_last_shape
    rate = config.dropout_rate
    if isinstance(rate, tuple):
        # Rates are drawn from the multiples of 1 / GRID between the bounds. Each bound saturates,
        # and a higher bound below the lower one counts as the lower one. The expectation is smooth
        # in the rate: 256 rates in the middles of equal parts have its mean to float32.
        low, high = (drop_units(bound).astype(jnp.float32) / GRID for bound in rate)
        steps = (jnp.arange(256, dtype=jnp.float32) + 0.5) / 256
        each = jax.vmap(lambda at: expected_fraction(config.mode_object, shape, at))
        fraction = each(low + jnp.maximum(high - low, 0) * steps).mean()
    else:
        fraction = expected_fraction(config.mode_object, shape, rate)
    if config.apply_probability is None:
        return fraction
    # As many records are left alone as `sample_bernoulli` drops at 1 - apply_probability.
    skipped = drop_units(1 - jnp.asarray(config.apply_probability).astype(jnp.float32))
    return fraction * ((np.uint32(GRID) - skipped).astype(jnp.float32) / GRID)


def dropped_fraction(
    keep_mask: Any, *, per_channel: bool = False, channel_axis: int = -1, extents: Any = None
) -> jax.Array:
    """Returns the fraction that masks drop, for each record, or each channel of it.

    Args:
      keep_mask: bool, True where kept, of shape (B, ...), as `generate_random_params` draws it.
      per_channel: whether each channel is counted on its own.
      channel_axis: which axis of the mask the channels are; a mask in channel mode has no other.
      extents: how much of each record is real, as the field of an `extent_key`: integers, (B,) for
        the first axis behind the batch axis that is not `channel_axis`, or (B, n) for the first n
        of them. Only that counts; 0 drops of nothing. None for all.

    Returns:
      float32, shape (B,), or (B, C).

    Raises:
      TypeError: if the mask is no array of bools, or another argument is of the wrong type.
      ValueError: if it lacks the batch axis or the channel axis, or `extents` do not fit it.

    Example:
      >>> masks = jnp.array([[True, True], [True, False]])
      >>> dropped_fraction(masks), dropped_fraction(masks, extents=jnp.array([2, 1]))
      (Array([0. , 0.5], dtype=float32), Array([0., 0.], dtype=float32))
    """
    keep_mask = as_numbers(keep_mask, "dropped_fraction.keep_mask", "bools")
    require_kind("dropped_fraction.per_channel", per_channel, bool, "a bool")
    require_kind("dropped_fraction.channel_axis", channel_axis, int, "an int")
    rank = len(keep_mask.shape)
    if rank < 1 or (per_channel and not (-rank <= channel_axis < rank and channel_axis % rank)):
        what = f"a channel axis {channel_axis}" if per_channel else "a batch axis"
        raise ValueError(must("dropped_fraction.keep_mask", f"have {what}", keep_mask))
    kept_axes = {0, channel_axis % rank} if per_channel else {0}
    axes = tuple(axis for axis in range(rank) if axis not in kept_axes)
    mask = jnp.asarray(keep_mask)
    if extents is None:
        return 1 - jnp.mean(mask, axis=axes, dtype=jnp.float32)
    extents = as_int32(as_numbers(extents, "dropped_fraction.extents", "integers"))
    given = tuple(extents.shape)
    if len(given) not in (1, 2) or given[:1] != mask.shape[:1] or sum(given[1:]) >= rank:
        constraint = f"have shape (B,) or (B, n) for masks of shape {mask.shape}"
        raise ValueError(must("dropped_fraction.extents", constraint, extents))
    real = jnp.ones((1,) * rank, jnp.bool_)
    # The channels come last: a mask may have none.
    along = sorted(range(1, rank), key=lambda axis: axis == channel_axis % rank)
    for axis, lengths in zip(along, jnp.asarray(extents).reshape(given[0], -1).T, strict=False):
        inside = length_mask(lengths, mask.shape[axis])
        if mask.shape[axis] == 1:  # holds for every position
            inside = (lengths > 0)[:, None]
        shape = [mask.shape[at] if at in (0, axis) else 1 for at in range(rank)]
        real = real & inside.reshape(shape)
    real = jnp.broadcast_to(real, mask.shape)
    dropped = (~mask & real).sum(axis=axes, dtype=jnp.float32)
    return dropped / jnp.maximum(real.sum(axis=axes, dtype=jnp.float32), 1)


def visible_fraction(keep_mask: Any, boxes: Any, *, channel_axis: int | None = -1) -> jax.Array:
    """Returns the fraction of each box that masks keep, so that hidden labels can weigh less.

    A box is (top, left, bottom, right), in pixels: pixel (y, x) is the square from (y, x) to
    (y + 1, x + 1), and a box reaches from its first corner to its second. Pixels that it covers in
    part count by that part. Only what lies inside the image counts, and of several channels the
    mean. A box of which nothing lies inside the image comes to 0: empty ones, those whose corners
    are the wrong way round or NaN, and so the usual padding. No result is NaN.

    An axis of size 1 holds for every position along it, and has no border. So does a mask in
    channel mode, which has no positions: each box gets the fraction of channels that are kept.

    Boxes of another convention are a matter of indexing: from (x, y, x, y) by
    `boxes[..., jnp.array([1, 0, 3, 2])]`.

    Args:
      keep_mask: bool, True where kept, of shape (B, H, W, C), or of size 1 along some of these
        axes, as `generate_random_params` draws it or `mask_key` writes it; or, of images with two
        spatial axes or more, (B, C).
      boxes: real numbers, of shape (B, N, 4); or (B, ..., 2 * axes) for images with another number
        of spatial axes: first the corner at which the box starts, then the one at which it ends.
      channel_axis: which axis of the mask the channels are; None if it has none, as (B, H, W).

    Returns:
      float32 in [0, 1], shape (B, N), or (B, ...): the shape of `boxes` without its last axis.
      Exact but for rounding to float32.

    Raises:
      TypeError: if the mask is no array of bools, the boxes are no array of real numbers, or
        `channel_axis` is no int.
      ValueError: if their shapes do not go together, or the mask lacks the channel axis.

    Example:
      >>> mask = jnp.ones((1, 4, 4, 3), bool).at[:, :2].set(False)  # the upper half is dropped
      >>> boxes = jnp.array([[[0, 0, 4, 4], [1, 0, 4, 2], [0, 0, 0, 0]]])
      >>> visible_fraction(mask, boxes).round(4)
      Array([[0.5   , 0.6667, 0.    ]], dtype=float32)
    """
    mask, places = _together("visible_fraction", keep_mask, boxes, "boxes", channel_axis)
    corners = corners_of(places) if isinstance(places, np.ndarray) else places
    return _kept_of_boxes(mask, corners)


def visible_points(keep_mask: Any, points: Any, *, channel_axis: int | None = -1) -> jax.Array:
    """Says for each point whether masks keep the pixel that it lies on, such as for keypoints.

    A point is (y, x), in pixels: it lies on pixel (floor(y), floor(x)). Where whole numbers stand
    for the middles of pixels, add 0.5. A pixel is visible if at least one of its channels is
    kept. Points outside the image are not visible, nor are those with a NaN.

    An axis of size 1 holds for every position along it, and has no border. So does a mask in
    channel mode, which has no positions: its points are visible if a channel is kept.

    Args:
      keep_mask: as for `visible_fraction`.
      points: real numbers, of shape (B, N, 2); or (B, ..., axes) for images with another number of
        spatial axes, or for several points to an object.
      channel_axis: which axis of the mask the channels are; None if it has none, as (B, H, W).

    Returns:
      bool, shape (B, N), or (B, ...): the shape of `points` without its last axis.

    Raises:
      TypeError: if the mask is no array of bools, the points are no array of real numbers, or
        `channel_axis` is no int.
      ValueError: if their shapes do not go together, or the mask lacks the channel axis.

    Example:
      >>> mask = jnp.ones((1, 4, 4, 3), bool).at[:, :2].set(False)  # the upper half is dropped
      >>> visible_points(mask, jnp.array([[[1.9, 0.0], [2.0, 0.0], [4.0, 0.0]]]))
      Array([[False,  True, False]], dtype=bool)
    """
    mask, places = _together("visible_points", keep_mask, points, "points", channel_axis)
    return _kept_of_points(mask, split_places(places) if isinstance(places, np.ndarray) else places)


def _together(
    function: str, keep_mask: Any, places: Any, name: str, channel_axis: int | None
) -> tuple[jax.Array, Any]:
    """Checks masks and the places in them that are asked about, which are "boxes" or "points".

    Returns:
      (mask, places): of shape (B, *spatial, C), and of NumPy or JAX as they came.
    """
    keep_mask = as_numbers(keep_mask, f"{function}.keep_mask", "bools")
    if channel_axis is not None:
        require_kind(f"{function}.channel_axis", channel_axis, int, "an int or None")
    places = as_numbers(places, f"{function}.{name}", "real numbers")
    shape, corners, last = tuple(places.shape), 1, "such as (y, x)"
    if name == "boxes":
        corners, last = 2, "two corners such as (top, left, bottom, right)"
    if len(shape) < 2 or not shape[-1] or shape[-1] % corners:
        constraint = f"have shape (B, ..., n), the last axis {last}"
        raise ValueError(must(f"{function}.{name}", constraint, places))
    if keep_mask.shape[:1] != shape[:1]:
        constraint = f"have a mask for each of the {shape[0]} records of the {name}"
        raise ValueError(must(f"{function}.keep_mask", constraint, keep_mask))
    axes, rank = shape[-1] // corners, keep_mask.ndim
    mask = jnp.asarray(keep_mask)
    if channel_axis is None:
        mask = mask[..., None]
    elif rank == 2 and axes > 1:  # the channel mode's; with one axis it might be (B, L) as well
        mask = mask.reshape(mask.shape[0], *[1] * axes, mask.shape[1])
    elif not -rank <= channel_axis < rank or channel_axis % rank == 0:
        constraint = f"have a channel axis {channel_axis}"
        raise ValueError(must(f"{function}.keep_mask", constraint, keep_mask))
    else:
        mask = jnp.moveaxis(mask, channel_axis, -1)
    if mask.ndim != axes + 2:
        has = "no channel axis" if channel_axis is None else "a channel axis"
        constraint = f"have a batch axis, {axes} spatial axes as the {name} have, and {has}"
        cure = "" if channel_axis is None else "Pass channel_axis=None if it has no channels."
        raise ValueError(must(f"{function}.keep_mask", constraint, keep_mask, cure))
    return mask, places


@functools.partial(jax.jit, inline=True)  # one dispatch if called eagerly
def _kept_of_boxes(mask: jax.Array, boxes: jax.Array | Corners) -> jax.Array:
    """Returns the kept fraction of boxes (B, ..., 2 * axes), or of their corners."""
    corners = boxes if isinstance(boxes, Corners) else corners_of(boxes)
    return _of_each(_kept_of_corners, mask, corners)


def _of_each(function: Any, mask: jax.Array, places: Any) -> jax.Array:
    """Maps a function of one record's places, each (n, axes), over records of (B, ..., axes)."""
    first = jax.tree.leaves(places)[0].shape
    shape = (first[0], math.prod(first[1:-1]), first[-1])
    flat = jax.tree.map(lambda leaf: leaf.reshape(shape), places)
    found: jax.Array = jax.vmap(function)(mask, flat).reshape(first[:-1])
    return found


def _kept_of_corners(mask: jax.Array, corners: Corners) -> jax.Array:
    """Returns the kept fraction of boxes of one record."""
    kept = mask.sum(axis=-1, dtype=jnp.float32)
    weights, total = [], jnp.full(len(corners.is_box), mask.shape[-1], jnp.float32)
    for axis, size in enumerate(kept.shape):
        *ends, is_box = jax.tree.map(operator.itemgetter((slice(None), axis)), corners)
        if size == 1:
            weight = is_box.astype(jnp.float32)[:, None]
            total = total * weight[:, 0]
        else:
            # Clipped to the image; then a pixel reaches as far into the box as both its ends tell.
            wholes = [whole.clip(0, size) for whole, _ in ends]
            parts = [
                jnp.where((whole == clipped) & (whole < size), part, 0)
                for (whole, part), clipped in zip(ends, wholes, strict=True)
            ]
            pixel = positions(size, 2)
            before = [
                ((whole[:, None] - pixel).clip(-1, 1).astype(jnp.float32) + part[:, None]).clip(
                    0, 1
                )
                for whole, part in zip(wholes, parts, strict=True)
            ]
            weight = before[1] - before[0]
            length = (wholes[1] - wholes[0]).astype(jnp.float32) + (parts[1] - parts[0])
            total = total * jnp.where(is_box, length, 0)
        weights.append(weight)
    # A box weighs rows and columns by the part of each that it covers, and one product of matrices
    # sums up all boxes. No term is negative, so that, unlike in differences of running sums, small
    # boxes of large images lose no digits. The mask goes to the left: to the right XLA takes a slow
    # path on CPU.
    exactly = jax.lax.Precision.HIGHEST
    covered = jnp.einsum("...s,ns->...n", kept, weights[-1], precision=exactly)
    for weight in reversed(weights[:-1]):
        covered = jnp.einsum("...sn,ns->...n", covered, weight, precision=exactly)
    some = total > 0
    return jnp.where(some, jnp.minimum(covered / jnp.where(some, total, 1), 1), 0)


@functools.partial(jax.jit, inline=True)
def _kept_of_points(mask: jax.Array, points: Any) -> jax.Array:
    """Says which points (B, ..., axes), or split ones, lie on a pixel that is kept."""
    places = points if isinstance(points, tuple) else split_places(points)
    return _of_each(_kept_of_places, mask, places)


def _kept_of_places(mask: jax.Array, places: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Says which points of one record lie on a pixel of which a channel is kept."""
    inside, index = ~jnp.isnan(places[1]).any(axis=1), []
    if 0 in mask.shape[:-1]:
        return jnp.zeros_like(inside)
    for size, at in zip(mask.shape[:-1], places[0].T, strict=True):
        if size > 1:
            inside = inside & (at >= 0) & (at < size)
        index.append(at.clip(0, size - 1))
    return inside & mask[tuple(index)].any(axis=1)
