"""Kept and dropped tokens in static shapes, for transformers that compute on kept tokens only.

A keep mask says which tokens are kept. Here it becomes their ids, always as many, so that a jitted
step gathers the kept tokens, works on these, and puts them back beside what stands for the others.
Nothing is drawn: randomness is in the mask. Leading batch axes are allowed everywhere, and each
record is worked on alone, so that a batch over a mesh needs no collectives.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from dropax.fills import exact_fill
from dropax.kit.arrays import as_array, as_bools, as_int32, as_numbers
from dropax.kit.errors import is_array, is_number, is_traced, must, require_kind, require_whole
from dropax.kit.serialization import plain
from dropax.kit.trees import broadcast_rank
from dropax.modes.base import any_in_cells


class Tokens(NamedTuple):
    """Which tokens are kept, as ids: positions from 0 in the order of the tokens.

    Attributes:
      kept: int32 of shape (..., count), in ascending order; MAE's `ids_keep`.
      dropped: int32 of shape (..., n - count), in ascending order.
      restore: int32 of shape (..., n): where each token is in the kept ones followed by the
        dropped ones; MAE's `ids_restore`.
      mask: bool of shape (..., count), False for what was dropped and stands in as kept, as a
        traced mask kept fewer than `count`; for attention, and for the loss.
    """

    kept: jax.Array
    dropped: jax.Array
    restore: jax.Array
    mask: jax.Array


jax.export.register_namedtuple_serialization(Tokens, serialized_name="dropax.Tokens")


def patch_mask(
    keep_mask: Any, size: int | tuple[int, ...], *, channel_axis: int | None = -1
) -> jax.Array:
    """Returns an image's keep mask as one bool for each of its patches.

    A patch is kept if every value under it is. Patches are in row-major order, as a ViT numbers
    them.

    Args:
      keep_mask: bool or numbers, kept if not zero, of shape (..., H, W, C), with all positions
        of the spatial axes: such as a record's `mask_key`, or a mask of `Patch(size)`.
      size: of a patch in pixels along each spatial axis. A tuple, one for each, says how many
        spatial axes there are; an int stands for two of them.
      channel_axis: which axis of the mask the channels are; None if it has none, as (..., H, W).

    Returns:
      bool, of shape (..., patches).

    Raises:
      TypeError: if an argument is of the wrong type.
      ValueError: if the mask has too few axes, or a spatial axis is not a multiple of `size`.

    Example:
      >>> mask = jnp.ones((4, 6, 3), bool).at[0, 5].set(False)
      >>> patch_mask(mask, 2)
      Array([ True,  True, False,  True,  True,  True], dtype=bool)
    """
    mask = jnp.asarray(as_bools(keep_mask, "patch_mask.keep_mask"))
    size = plain(size)
    sizes = size if isinstance(size, tuple) else (size, size)
    for each in sizes:
        require_whole("patch_mask.size", each, 1)
    if not sizes:
        raise ValueError(must("patch_mask.size", "not be empty", size))
    if channel_axis is not None:
        require_kind("patch_mask.channel_axis", channel_axis, int, "an int or None")
        if not -mask.ndim <= channel_axis < mask.ndim:
            constraint = f"have a channel axis {channel_axis}"
            raise ValueError(must("patch_mask.keep_mask", constraint, keep_mask))
        mask = mask.all(axis=channel_axis)
    lead, spatial = mask.shape[: mask.ndim - len(sizes)], mask.shape[-len(sizes) :]
    if len(spatial) < len(sizes) or any(
        full % each for full, each in zip(spatial, sizes, strict=True)
    ):
        constraint = f"have {len(sizes)} spatial axes that are multiples of the patch size {size}"
        raise ValueError(must("patch_mask.keep_mask", constraint, keep_mask))
    patches = mask
    for axis, side in enumerate(sizes, len(lead)):
        patches = ~any_in_cells(~patches, axis, side)
    return patches.reshape(*lead, math.prod(patches.shape[len(lead) :]))


def keep_tokens(keep_mask: Any, count: int) -> Tokens:
    """Returns which tokens a mask keeps, as ids of a static number.

    Exactly `count` tokens are kept. If the mask keeps more, the last of them in token order are
    dropped, which favors the first tokens. If it keeps fewer, that is an error if it can be seen;
    of a traced mask the first of the dropped ones are made up for them, and `Tokens.mask` is False
    there. Draw masks that keep `count` tokens, such as those of `Patch(size, exact=True)`.

    In MAE (He et al., 2021, arXiv:2111.06377) `kept` is called `ids_keep`, `restore` is
    `ids_restore`, and the mask is 1 if a token is removed: `~keep_mask`.

    Args:
      keep_mask: bool or numbers, kept if not zero, of shape (..., n), one for each token.
      count: how many tokens are kept, in [1, n].

    Returns:
      `Tokens`, ids of shapes (..., count), (..., n - count) and (..., n), and a mask (..., count).

    Raises:
      TypeError: if the mask is no array of bools or numbers, or `count` is no int.
      ValueError: if the mask has no axis, `count` is out of range, or a concrete mask keeps fewer.

    Example:
      >>> tokens = keep_tokens(jnp.array([True, False, False, True]), 2)
      >>> tokens.kept, tokens.dropped, tokens.restore
      (Array([0, 3], dtype=int32), Array([1, 2], dtype=int32), Array([0, 2, 3, 1], dtype=int32))
    """
    mask, count = as_bools(keep_mask, "keep_tokens.keep_mask"), plain(count)
    if not mask.ndim:
        raise ValueError(must("keep_tokens.keep_mask", "have shape (..., n)", keep_mask))
    require_whole("keep_tokens.count", count, 1, mask.shape[-1] + 1)
    # What is traced, or lies on other hosts, cannot be looked at.
    if isinstance(mask, np.ndarray) or (not is_traced(mask) and mask.is_fully_addressable):
        fewest = np.asarray(mask).sum(axis=-1).min(initial=count)
        if fewest < count:
            constraint = f"be at most {fewest}, as many as every mask keeps"
            cure = "Or draw masks that keep as many: Patch(size, exact=True)."
            raise ValueError(must("keep_tokens.count", constraint, count, cure))
    return _keep_tokens(mask, count)


# Jitted with `inline=True`: one dispatch when called eagerly, inlined under an outer jit.
@functools.partial(jax.jit, static_argnums=1, inline=True)
def _keep_tokens(mask: jax.Array, count: int) -> Tokens:
    def ranks(chosen: jax.Array) -> jax.Array:
        """Numbers the chosen tokens from 0."""
        return jnp.cumsum(chosen, axis=-1, dtype=jnp.int32) - 1

    mask = jnp.asarray(mask)
    # The first `count` of the kept ones, and if they are fewer, the first of the others.
    missing = count - mask.sum(axis=-1, keepdims=True, dtype=jnp.int32)
    kept = jnp.where(mask, ranks(mask) < count, ranks(~mask) < missing)
    restore = jnp.where(kept, ranks(kept), count + ranks(~kept))
    # The inverse of the permutation: the kept ones first, both in ascending order.
    ids = jnp.argsort(restore, axis=-1).astype(jnp.int32)
    kept = ids[..., :count]
    return Tokens(kept, ids[..., count:], restore, _gather(mask[..., None], kept)[..., 0])


def gather_tokens(x: Any, ids: Any) -> jax.Array:
    """Returns the tokens with these ids, of each record its own.

    Of a class token and the like (timm's `num_prefix_tokens`), gather the others and concatenate.

    Args:
      x: any dtype, of shape (..., n, features).
      ids: integers in [0, n), of shape (..., count), such as `Tokens.kept`, with the leading axes
        of `x`. Others are clipped.

    Returns:
      An array of shape (..., count, features) and the dtype of `x`. Gradients reach the tokens that
      are gathered.

    Raises:
      TypeError: if `x` is no array, or the ids are no array of integers.
      ValueError: if the leading axes differ, or there is no token.

    Example:
      >>> x = jnp.arange(8).reshape(4, 2)
      >>> gather_tokens(x, jnp.array([0, 3]))
      Array([[0, 1],
             [6, 7]], dtype=int32)
    """
    x = jnp.asarray(as_numbers(x, "gather_tokens.x"))
    ids = jnp.asarray(as_int32(as_numbers(ids, "gather_tokens.ids", "integers")))
    if x.ndim < 2 or not x.shape[-2]:
        raise ValueError(must("gather_tokens.x", "have shape (..., n, features), n > 0", x))
    if ids.ndim != x.ndim - 1 or ids.shape[:-1] != x.shape[:-2]:
        constraint = f"have shape {(*x.shape[:-2], 'count')}"
        raise ValueError(must("gather_tokens.ids", constraint, ids))
    return _gather(x, ids)


def scatter_tokens(kept: Any, tokens: Tokens, fill: Any) -> jax.Array:
    """Puts kept tokens back in place, among what stands for the dropped ones.

    It is what MAE's decoder does with `ids_restore` and its `mask_token`.

    Args:
      kept: any dtype, of shape (..., count, features), such as an encoder's output for
        `gather_tokens(x, tokens.kept)`.
      tokens: as `keep_tokens` returns them, with the leading axes of `kept`.
      fill: what stands for a dropped token: a number, or an array of the dtype of `kept` that
        broadcasts to the result, such as a learned token of shape (features,). Gradients reach it.

    Returns:
      An array of shape (..., n, features) and the dtype of `kept`.

    Raises:
      TypeError: if `kept` is no array, `tokens` are no `Tokens`, or the fill is of another dtype.
      ValueError: if shapes do not fit, or the dtype does not hold the fill.

    Example:
      >>> tokens = keep_tokens(jnp.array([True, False, False, True]), 2)
      >>> scatter_tokens(jnp.array([[1.0], [2.0]]), tokens, 0.0).ravel()
      Array([1., 0., 0., 2.], dtype=float32)
    """
    kept = jnp.asarray(as_numbers(kept, "scatter_tokens.kept"))
    require_kind("scatter_tokens.tokens", tokens, Tokens, "what keep_tokens returns")
    restore = jnp.asarray(tokens.restore)
    count = tokens.kept.shape[-1]
    if kept.ndim < 2 or kept.shape[:-1] != (*restore.shape[:-1], count):
        constraint = f"have shape {(*restore.shape[:-1], count, 'features')}, as the tokens say"
        raise ValueError(must("scatter_tokens.kept", constraint, kept))
    shape = (*restore.shape, kept.shape[-1])
    fill = as_array(fill, "scatter_tokens.fill")
    if is_number(fill):
        fill = exact_fill(fill, kept.dtype, "scatter_tokens.fill", in_range=True)
    elif getattr(fill, "weak_type", False) and not fill.shape:  # a Python number, under `jit`
        fill = fill.astype(kept.dtype)
    elif not is_array(fill) or fill.dtype != kept.dtype:
        constraint = f"be a number, or an array of dtype {kept.dtype}"
        raise TypeError(must("scatter_tokens.fill", constraint, fill))
    fill = broadcast_rank(jnp.asarray(fill), shape, "scatter_tokens.fill")
    # A select, so that NaN of the one is not in the gradients of the other.
    is_kept = (restore < count)[..., None]
    return jnp.where(is_kept, _gather(kept, jnp.minimum(restore, count - 1)), fill)


def _gather(x: jax.Array, ids: jax.Array) -> jax.Array:
    """Returns rows of each record of x, (..., n, features)."""
    take = functools.partial(jnp.take, axis=0, mode="clip")
    for _ in ids.shape[:-1]:
        take = jax.vmap(take)
    return take(x, ids)
