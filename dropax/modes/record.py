"""Whole records: `Record`."""

import dataclasses
from typing import Any, ClassVar

import jax

from dropax.bits import materialize, sample_bernoulli
from dropax.modes.base import BuiltIn, Shape, Within


@dataclasses.dataclass(frozen=True)
class Record(BuiltIn):
    """Drops whole records, each on its own.

    Known elsewhere as stochastic depth (Huang et al., 2016, arXiv:1603.09382) and DropPath (Larsson
    et al., 2016, arXiv:1605.07648); with `rescale=True`, on the output of a residual branch. The
    mask is bit for bit `jax.random.bernoulli(key, float32(1) - float32(rate))`.

    Example:
      >>> Record().sample(jax.random.key(0), (4, 4, 3), 0.1).shape
      (1, 1, 1)
    """

    repeats: ClassVar[bool] = True
    is_even: ClassVar[bool] = True

    def draw(self, key: jax.Array, shape: Shape, rate: Any, within: Within | None) -> jax.Array:
        """Returns a mask of size 1 along every axis."""
        kept = materialize(lambda key: sample_bernoulli(key, rate, ()), key)
        return kept.reshape((1,) * len(shape))
