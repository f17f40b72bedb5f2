"""Whole records: `Record`."""

import dataclasses
from typing import Any, ClassVar

import jax

from dropax.bits import materialize, sample_bernoulli
from dropax.modes.base import one_dispatch


@dataclasses.dataclass(frozen=True)
class Record:
    """Drops whole records, each on its own.

    Known elsewhere as stochastic depth (Huang et al., 2016, arXiv:1603.09382) and DropPath (Larsson
    et al., 2016, arXiv:1605.07648); with `rescale=True`, on the output of a residual branch.

    Example:
      >>> Record().sample(jax.random.key(0), (4, 4, 3), 0.1).shape
      (1, 1, 1)
    """

    repeats: ClassVar[bool] = True
    is_even: ClassVar[bool] = True

    @one_dispatch
    def sample(self, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Draws the keep mask of one record; see `Mode.sample`.

        Returns:
          Keep mask, bool, of size 1 along every axis. Bit for bit
          `jax.random.bernoulli(key, float32(1) - float32(rate), shape)`.
        """
        kept = materialize(lambda key: sample_bernoulli(key, rate, ()), key)
        return kept.reshape((1,) * len(element_shape))
