"""All but what a mode would drop: `Inverted`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import GRID, drop_units, keep_threshold
from dropax.modes.base import (
    BuiltIn,
    Shape,
    Within,
    as_mode,
    counts_units,
    expected_fraction,
    sample_mask,
)


@dataclasses.dataclass(frozen=True)
class Inverted(BuiltIn):
    """Drops all but what a mode would drop.

    The mode draws at one minus the rate, so that the rate still drops: `Inverted("box")` keeps one
    rectangle. Of a mode that drops less than its rate (`Channel(min_kept=...)`) more drops here; at
    rate 0 nothing does.

    Attributes:
      mode: a mode's name or a mode object; a name becomes an object.

    Raises:
      TypeError: if `mode` is no mode.
      ValueError: if its name is unknown; when sampling, if the element lacks an axis that it needs.

    Example:
      >>> kept = Inverted("box").sample(jax.random.key(0), (10, 10, 3), 0.75)
      >>> int(kept.sum())
      25
    """

    mode: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        vars(self)["mode"] = as_mode(self.mode, "Inverted.mode")

    @property
    def repeats(self) -> bool:
        """Whether the mode's mask only repeats a few draws."""
        return bool(getattr(self.mode, "repeats", False))

    @property
    def counts(self) -> bool:
        """Whether what the mode drops depends on how many units may drop."""
        return counts_units(self.mode)

    def draw(self, key: jax.Array, shape: Shape, rate: Any, within: Within | None) -> jax.Array:
        """Returns what the mode drops at `1 - rate`."""
        mask = ~sample_mask(self.mode, key, shape, _kept_rate(rate), within)
        return mask | (drop_units(rate) == 0)  # a mode with `min_kept` keeps some at rate 1

    def expected_dropped_fraction(self, element_shape: Shape, rate: Any) -> jax.Array:
        """Returns what the mode keeps at one minus the rate."""
        dropped = 1 - expected_fraction(self.mode, element_shape, _kept_rate(rate))
        return jnp.where(drop_units(rate) == 0, 0, dropped)


def _kept_rate(rate: Any) -> jax.Array:
    """Returns one minus a rate, float32: exactly, in the multiples of 2^-23 that rates count in."""
    return keep_threshold(rate).astype(jnp.float32) / np.float32(GRID)
