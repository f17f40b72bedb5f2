"""Drops values of arrays of any number of sizes with few compiled programs."""

import hashlib
import os
import time
from typing import Any

import jax
import numpy as np

from dropax.config import DropoutOperatorConfig
from dropax.functional import drop_images
from dropax.modes import Channel, Pixel

HELD = 64
"""The most programs held. Each takes megabytes, and some 50 of a process's 65,530 mappings."""


def file_key(seed: int, name: str) -> jax.Array:
    """Folds the first eight bytes of the name's SHA-256 in, as two big-endian words."""
    key = jax.random.key(seed, impl="threefry2x32")
    for word in np.frombuffer(hashlib.sha256(os.fsencode(name)).digest()[:8], ">u4"):
        key = jax.random.fold_in(key, np.uint32(word))
    return key


class Programs:
    """The compiled programs of a run, of which a bounded number is held."""

    def __init__(self) -> None:
        self.held: dict[Any, Any] = {}

    def drop(
        self, config: DropoutOperatorConfig, key: jax.Array, array: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Drops values of an array.

        Args:
          config: of a field `image`, with `mask_key="keep_mask"`.
          key: record i draws from `fold_in(key, i)`; a single image is record 0.
          array: shape (H, W), (H, W, C) or (N, H, W, C).

        Returns:
          The array after the drop, its keep mask of the same shape, and the milliseconds that the
          compiled call took.
        """
        records = array.astype(array.dtype.newbyteorder("=")).reshape(
            (-1, *array.shape[array.ndim == 4 :])
        )
        length = records.shape[1]
        if isinstance(config.mode_object, Pixel | Channel) and not isinstance(config.fill, str):
            # Whether a value is kept depends on its row-major index or its channel alone. So images
            # of all sizes go as (length, 1, C), padded by up to a quarter to one of few lengths:
            # four to eight between a power of 2 and the next, all of them multiples of 256.
            length = records.shape[1] * records.shape[2]
            step = 1 << max(8, length.bit_length() - 3)
            records = records.reshape(len(records), length, 1, -1)
            records = np.pad(records, ((0, 0), (0, -length % step), (0, 0), (0, 0)))
        arguments = (config, key, jax.device_put(records))
        kind = (jax.tree.structure(config), records.shape, records.dtype)
        if kind not in self.held:
            if len(self.held) == HELD:
                self.held.clear()
                jax.clear_caches()  # they hold every program too
            self.held[kind] = drop_images.lower(*arguments, records.ndim - 1).compile()
        jax.block_until_ready(arguments)
        start = time.perf_counter()
        fields = jax.block_until_ready(self.held[kind](*arguments))
        milliseconds = 1000 * (time.perf_counter() - start)
        after, keep_mask = (
            np.asarray(padded)[:, :length].reshape(array.shape)
            for padded in (fields.image, fields.keep_mask)
        )
        return after.astype(array.dtype), keep_mask, milliseconds
