"""Regions made from others: `OneOf`, `Shared` and `Inverted`."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import GRID, drop_units, keep_threshold, sample_words, split_in_two, store
from dropax.kit.errors import must, require_kind, require_number
from dropax.kit.serialization import Plain
from dropax.regions.base import Region, expected_fraction, fit_sampled, one_dispatch
from dropax.regions.cells import Blocks
from dropax.regions.modes import MODES, as_region

# A region in a region is one of these, in its plain form. Completed below by those of this file.
_TYPES: dict[str, type] = {
    kind.__name__: kind for kind in [*(type(region) for region in MODES.values()), Blocks]
}


@dataclasses.dataclass(frozen=True)
class OneOf(Plain):
    """Drops what one of several modes drops, drawn for each record.

    Each mode gets the same rate. The masks of all modes are drawn, and one is selected, so that
    records of a batch may differ.

    Attributes:
      modes: names of modes or region objects; names become objects.
      weights: how likely each mode is, in proportion to the others; None for equally.

    Raises:
      TypeError: if an option is of the wrong type.
      ValueError: if there is no mode, a name is unknown, or there is not one positive weight for
        each mode.

    Example:
      >>> region = OneOf(("box", Blocks(size=2)), weights=(3, 1))
      >>> region.sample(jax.random.key(0), (8, 8, 3), 0.2).shape
      (8, 8, 1)
    """

    modes: tuple[Any, ...]
    weights: tuple[float, ...] | None = None

    plain_types: ClassVar[dict[str, type]] = _TYPES

    def __post_init__(self) -> None:
        require_kind("OneOf.modes", self.modes, tuple, "a tuple of modes")
        if not self.modes:
            raise ValueError(must("OneOf.modes", "hold a mode", self.modes))
        regions = [as_region(mode, f"OneOf.modes[{n}]") for n, mode in enumerate(self.modes)]
        vars(self)["modes"] = tuple(regions)
        if self.weights is None:
            return
        require_kind("OneOf.weights", self.weights, tuple, "a tuple of numbers or None")
        if len(self.weights) != len(regions):
            constraint = f"have one number for each of {len(regions)} modes"
            raise ValueError(must("OneOf.weights", constraint, self.weights))
        for n, weight in enumerate(self.weights):
            require_number(f"OneOf.weights[{n}]", weight)
            if not 0 < weight <= 1e9:
                constraint = "be above 0, and at most 1e9"
                raise ValueError(must(f"OneOf.weights[{n}]", constraint, weight))

    @one_dispatch
    def sample(self, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Draws the keep mask of one record.

        Args:
          key: one typed key. Consumed; do not reuse. The mode is drawn by the first of
            `jax.random.split(key)`, and draws from the second.
          element_shape: `(..., channels)`.
          rate: the fraction dropped in expectation, in each mode.

        Returns:
          Keep mask, bool, of the shape that the masks of all modes broadcast to.

        Raises:
          ValueError: if the element lacks an axis that one of the modes needs.
        """
        choice_key, mask_key = split_in_two(key)
        # How many bounds a word has reached says which mode is drawn. Only one mode's mask is used,
        # so that all may draw from the same key.
        bounds = np.round(np.cumsum(self._shares())[:-1] * 2**32).clip(0, 2**32 - 1)
        chosen = (sample_words(choice_key, ()) >= bounds.astype(np.uint32)).sum(dtype=jnp.int32)
        masks = [_sample_mask(region, mask_key, element_shape, rate) for region in self.modes]
        selected = masks[0]
        for n, mask in enumerate(masks[1:], 1):
            selected = jnp.where(chosen == n, mask, selected)
        return selected

    def expected_dropped_fraction(self, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Returns the mean of the fractions that the modes drop, by their weights.

        Args:
          element_shape: `(..., channels)`.
          rate: a float or a scalar array that may be traced.

        Returns:
          float32 scalar.
        """
        each = [expected_fraction(region, element_shape, rate) for region in self.modes]
        shares = self._shares().astype(np.float32)
        return sum((part * share for part, share in zip(each, shares, strict=True)), jnp.float32(0))

    def _shares(self) -> np.ndarray:
        """Returns the probability of each mode, float64."""
        weights = np.array(self.weights or (1,) * len(self.modes), np.float64)
        return weights / weights.sum()


@dataclasses.dataclass(frozen=True)
class Shared(Plain):
    """Drops what a mode drops, the same all along some axes.

    The mode sees an element without these axes, or with one channel, and its mask repeats along
    them. Known elsewhere as `broadcast_dims`, and on video as tube masking (Tong et al., 2022,
    arXiv:2203.12602): `Shared(Patch(16, exact=True), axes=0)`.

    Attributes:
      mode: a mode's name or a region object; a name becomes an object.
      axes: the axis or axes that share a mask, of the element with its channels last: spatial axes,
        and -1 for the channels.

    Raises:
      TypeError: if an option is of the wrong type.
      ValueError: if the mode's name is unknown, or no axis or one twice is named; when sampling, if
        the element has no such axis, or lacks an axis that the mode needs.

    Example:
      >>> Shared("pixel", axes=0).sample(jax.random.key(0), (8, 16, 16, 3), 0.2).shape
      (1, 16, 16, 3)
    """

    mode: Any
    axes: int | tuple[int, ...]

    # What repeats is stored once, as far as it does not repeat.
    repeats: ClassVar[bool] = True
    plain_types: ClassVar[dict[str, type]] = _TYPES

    def __post_init__(self) -> None:
        vars(self)["mode"] = as_region(self.mode, "Shared.mode")
        for n, axis in enumerate(self._named_axes()):
            owner = f"Shared.axes[{n}]" if isinstance(self.axes, tuple) else "Shared.axes"
            require_kind(owner, axis, int, "an int")
        if not self._named_axes() or len(set(self._named_axes())) < len(self._named_axes()):
            raise ValueError(must("Shared.axes", "name one axis or several, once", self.axes))

    @one_dispatch
    def sample(self, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Draws the keep mask of one record.

        Args:
          key: one typed key. Consumed; do not reuse.
          element_shape: `(..., channels)`.
          rate: the fraction dropped in expectation, as in the mode.

        Returns:
          Keep mask, bool, of size 1 along the axes that share it.

        Raises:
          ValueError: if the element has no such axis, an axis is named twice, or the element lacks
            an axis that the mode needs.
        """
        shared, inner = self._split(element_shape)
        mask = store(lambda key: _sample_mask(self.mode, key, inner, rate), key)
        return jnp.expand_dims(mask, shared)

    def expected_dropped_fraction(self, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Returns what the mode drops from an element without the shared axes.

        Args:
          element_shape: `(..., channels)`.
          rate: a float or a scalar array that may be traced.

        Returns:
          float32 scalar.
        """
        return expected_fraction(self.mode, self._split(element_shape)[1], rate)

    def _named_axes(self) -> tuple[Any, ...]:
        return self.axes if isinstance(self.axes, tuple) else (self.axes,)

    def _split(self, element_shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the shared spatial axes, from 0, and the shape that the mode sees."""
        rank = len(element_shape)
        axes = [axis % rank for axis in self._named_axes() if -rank <= axis < rank]
        if len(set(axes)) < len(self._named_axes()):
            constraint = f"name axes of an element of shape {element_shape}, each once"
            raise ValueError(must("Shared.axes", constraint, self.axes))
        last = rank - 1
        spatial = [size for axis, size in enumerate(element_shape[:-1]) if axis not in axes]
        channels = 1 if last in axes else element_shape[-1]
        return tuple(axis for axis in axes if axis != last), (*spatial, channels)


@dataclasses.dataclass(frozen=True)
class Inverted(Plain):
    """Drops all but what a mode would drop.

    The mode draws at one minus the rate, so that the rate still drops: `Inverted("box")` keeps one
    rectangle. Of a mode that drops less than its rate (`Channel(min_kept=...)`) more drops here; at
    rate 0 nothing does.

    Attributes:
      mode: a mode's name or a region object; a name becomes an object.

    Raises:
      TypeError: if `mode` is no mode.
      ValueError: if its name is unknown; when sampling, if the element lacks an axis that it needs.

    Example:
      >>> kept = Inverted("box").sample(jax.random.key(0), (10, 10, 3), 0.75)
      >>> int(kept.sum())
      25
    """

    mode: Any

    plain_types: ClassVar[dict[str, type]] = _TYPES

    def __post_init__(self) -> None:
        vars(self)["mode"] = as_region(self.mode, "Inverted.mode")

    @property
    def repeats(self) -> bool:
        """Whether the mode's mask only repeats a few draws."""
        return bool(getattr(self.mode, "repeats", False))

    @one_dispatch
    def sample(self, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Draws the keep mask of one record.

        Args:
          key: one typed key. Consumed; do not reuse.
          element_shape: `(..., channels)`.
          rate: the fraction dropped in expectation, if the mode drops one minus it.

        Returns:
          Keep mask, bool: what the mode drops at `1 - rate`.

        Raises:
          ValueError: if the element lacks an axis that the mode needs.
        """
        mask = ~_sample_mask(self.mode, key, element_shape, _kept_rate(rate))
        return mask | (drop_units(rate) == 0)  # a mode with `min_kept` keeps some at rate 1

    def expected_dropped_fraction(self, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Returns what the mode keeps at one minus the rate.

        Args:
          element_shape: `(..., channels)`.
          rate: a float or a scalar array that may be traced.

        Returns:
          float32 scalar.
        """
        dropped = 1 - expected_fraction(self.mode, element_shape, _kept_rate(rate))
        return jnp.where(drop_units(rate) == 0, 0, dropped)


_TYPES |= {kind.__name__: kind for kind in (OneOf, Shared, Inverted)}


def _kept_rate(rate: Any) -> jax.Array:
    """Returns one minus a rate, float32: exactly, in the multiples of 2^-23 that rates count in."""
    return keep_threshold(rate).astype(jnp.float32) / np.float32(GRID)


def _sample_mask(
    region: Region, key: jax.Array, element_shape: tuple[int, ...], rate: Any
) -> jax.Array:
    """Draws a region's mask, which may be of a user's own, with as many axes as the element."""
    return fit_sampled(region.sample(key, element_shape, rate), element_shape)
