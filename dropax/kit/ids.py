"""Which record is which: ids and epochs, and the keys that follow from them.

Given the ids of records and an epoch, returns a key for each record that depends on nothing else:
not on the batch that it came in, its place there, or the devices. So a run can be resumed,
shuffled or spread over other devices, and every record meets the same masks.
"""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.kit.arrays import as_array
from dropax.kit.errors import is_array, must, require_whole
from dropax.kit.keys import as_key, threefry_key
from dropax.kit.serialization import plain

# Folded in first, so that keys of ids are not those of steps and positions.
_IDS = np.uint32(2**32 - 1)


def as_record_ids(ids: Any) -> Any:
    """Returns record ids in the form that goes through `jit` whole.

    JAX silently truncates 64-bit integers to 32 bits. Ids that come as such are split here
    before they reach it. `apply_batch` and `Batch.from_parts` do so by themselves; call this for
    ids that are an argument of a jitted function of your own.

    Args:
      ids: (B,) integers, NumPy or a list, none negative, up to 64 bits; or a JAX array of unsigned
        integers; or (B, 2) uint32 words (low, high).

    Returns:
      uint32, of shape (B,) for ids of up to 32 bits, and (B, 2), words (low, high), for 64 bits. An
      id has the same masks in either form. NumPy stays NumPy.

    Raises:
      TypeError: if the ids are no integers, or a JAX array of signed ones.
      ValueError: if one is negative, or the shape is neither (B,) nor (B, 2).

    Example:
      >>> as_record_ids([7, 2**40])
      array([[  7,   0],
             [  0, 256]], dtype=uint32)
    """
    ids = as_array(ids, "record_ids")
    if not is_array(ids):
        try:
            numbers = [operator.index(number) for number in ids]
            # NumPy would turn small and large ints into floats.
            ids = np.array(numbers, np.int64 if min(numbers, default=0) < 0 else np.uint64)
        except (TypeError, OverflowError):  # no ints, or past 64 bits
            raise TypeError(must("record_ids", "be integers of up to 64 bits", ids)) from None
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(must("record_ids", "be integers of up to 64 bits", ids))
    on_host = isinstance(ids, np.ndarray | np.generic)
    if jnp.issubdtype(ids.dtype, jnp.signedinteger):
        if not on_host:
            cure = "What is traced cannot be looked at; if none is negative: ids.astype('uint32')."
            raise TypeError(must("record_ids", "be unsigned if they are a JAX array", ids, cure))
        if ids.size and ids.min() < 0:
            raise ValueError(must("record_ids", "not be negative", int(ids.min())))
    words = ids.ndim == 2 and ids.shape[1] == 2 and ids.dtype == np.uint32
    if ids.ndim != 1 and not words:
        constraint = "have shape (B,), or (B, 2) for uint32 words (low, high)"
        raise ValueError(must("record_ids", constraint, ids))
    if ids.dtype.itemsize < 8:
        return ids.astype(np.uint32)
    wide = ids.astype(np.uint64)
    stack = np.stack if on_host else jnp.stack
    return stack([(wide & 0xFFFFFFFF).astype(np.uint32), (wide >> 32).astype(np.uint32)], axis=1)


def as_epoch(epoch: Any) -> Any:
    """Returns an epoch, an int in [0, 2^32) or an integer scalar array, as a uint32 scalar."""
    epoch = plain(as_array(epoch, "epoch"))
    if not is_array(epoch):
        require_whole("epoch", epoch, 0, 2**32)
        return np.uint32(epoch)
    if not jnp.issubdtype(epoch.dtype, jnp.integer):
        raise TypeError(must("epoch", "be an int", epoch))
    if epoch.shape != ():
        raise ValueError(must("epoch", "be one number, of shape ()", epoch))
    return epoch.astype(jnp.uint32)


def record_keys(key: Any, record_ids: Any, epoch: Any) -> jax.Array:
    """Returns the keys that `apply_batch` draws its records from, given their ids and an epoch.

    A key depends on the operator's key, the epoch and the record's id alone, so that whatever draws
    from it drops the same in any batch, micro-batch, pipeline stage or shard. Fold the number of a
    layer or of a view into `key` to get other masks for it.

    Args:
      key: one typed or legacy key, such as an `OperatorState` holds; may be used for other ids.
      record_ids: (B,) or (B, 2), as `as_record_ids` takes them.
      epoch: an int in [0, 2^32), or an integer scalar array, which may be traced.

    Returns:
      (B,) typed keys, for `dropout` or `generate_random_params`.

    Raises:
      TypeError, ValueError: as `as_record_ids`; if `key` is not one key, or `epoch` not one number.

    Example:
      >>> import dropax
      >>> keys = record_keys(jax.random.key(0), range(4), epoch=0)
      >>> dropax.dropout(keys, jnp.ones((4, 8, 8, 3)), rate=0.2).shape
      (4, 8, 8, 3)
    """
    return id_keys(as_key(key, "record_keys.key"), as_epoch(epoch), as_record_ids(record_ids))


def id_keys(key: jax.Array, epoch: Any, ids: Any) -> jax.Array:
    """Returns the key of each record: `fold_in` of a tag, the epoch, the high and the low word.

    `key` is an operator's own; `ids` are as `as_record_ids` returns them.
    """
    fold_in = jax.random.fold_in
    base = fold_in(fold_in(threefry_key(key), _IDS), epoch)
    ids = jnp.asarray(ids)
    low, high = (ids, jnp.zeros_like(ids)) if ids.ndim == 1 else (ids[:, 0], ids[:, 1])
    return jax.vmap(lambda low, high: fold_in(fold_in(base, high), low))(low, high)
