"""One of several modes, drawn for each record: `OneOf`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import sample_words, split_in_two
from dropax.kit.errors import must, require_kind, require_number
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
class OneOf(BuiltIn):
    """Drops what one of several modes drops, drawn for each record.

    Each mode gets the same rate. The masks of all modes are drawn, and one is selected, so that
    records of a batch may differ.

    Attributes:
      modes: names of modes or mode objects; names become objects.
      weights: how likely each mode is, in proportion to the others; None for equally. A mode of
        weight 0 is never drawn.

    Raises:
      TypeError: if an option is of the wrong type.
      ValueError: if there is no mode, a name is unknown, there is not one weight for each mode, or
        none is above 0.

    Example:
      >>> mode = OneOf(("box", "Patch(size=2)"), weights=(3, 1))
      >>> mode.sample(jax.random.key(0), (8, 8, 3), 0.2).shape
      (8, 8, 1)
    """

    modes: tuple[Any, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_kind("OneOf.modes", self.modes, tuple, "a tuple of modes")
        if not self.modes:
            raise ValueError(must("OneOf.modes", "hold a mode", self.modes))
        modes = [as_mode(mode, f"OneOf.modes[{n}]") for n, mode in enumerate(self.modes)]
        vars(self)["modes"] = tuple(modes)
        if self.weights is None:
            return
        require_kind("OneOf.weights", self.weights, tuple, "a tuple of numbers or None")
        if len(self.weights) != len(modes):
            constraint = f"have one number for each of {len(modes)} modes"
            raise ValueError(must("OneOf.weights", constraint, self.weights))
        for n, weight in enumerate(self.weights):
            require_number(f"OneOf.weights[{n}]", weight)
            if not 0 <= weight <= 1e9:
                raise ValueError(must(f"OneOf.weights[{n}]", "be from 0 to 1e9", weight))
        if not any(self.weights):
            raise ValueError(must("OneOf.weights", "not all be 0", self.weights))

    @property
    def counts(self) -> bool:
        """Whether what a mode drops depends on how many units may drop."""
        return any(map(counts_units, self.modes))

    def draw(self, key: jax.Array, shape: Shape, rate: Any, within: Within | None) -> jax.Array:
        """Returns a mask of the shape that those of all modes broadcast to."""
        choice_key, mask_key = split_in_two(key)
        # How many bounds a word has reached says which mode is drawn. Only one mode's mask is used,
        # so that all may draw from the same key.
        modes, shares = self._likely()
        bounds = np.round(np.cumsum(shares)[:-1] * 2**32).clip(0, 2**32 - 1)
        chosen = (sample_words(choice_key, ()) >= bounds.astype(np.uint32)).sum(dtype=jnp.int32)
        masks = [sample_mask(mode, mask_key, shape, rate, within) for mode in modes]
        selected = masks[0]
        for n, mask in enumerate(masks[1:], 1):
            selected = jnp.where(chosen == n, mask, selected)
        return selected

    def expected_dropped_fraction(self, element_shape: Shape, rate: Any) -> jax.Array:
        """Returns the mean of the fractions that the modes drop, by their weights."""
        modes, shares = self._likely()
        each = [expected_fraction(mode, element_shape, rate) for mode in modes]
        parts = zip(each, shares.astype(np.float32), strict=True)
        return sum((part * share for part, share in parts), jnp.float32(0))

    def _likely(self) -> tuple[list[Any], np.ndarray]:
        """Returns the modes that may be drawn, and the probability of each, float64."""
        weights = np.array(self.weights or (1,) * len(self.modes), np.float64)
        modes = [mode for mode, weight in zip(self.modes, weights, strict=True) if weight]
        return modes, weights[weights > 0] / weights.sum()
