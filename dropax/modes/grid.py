"""A regular lattice: `Grid`."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import GRID, drop_units, materialize, sample_words, whole_below
from dropax.kit.errors import is_number, must, require_whole
from dropax.modes.base import BuiltIn, Shape, Within, spatial_shape
from dropax.modes.calibration import fraction_units, pick_level

_MOST = 256  # units that are told apart
_LONGEST = 2**16
_TABLE = 2**17  # levels of all units together; below, there is one for each side of a square


@dataclasses.dataclass(frozen=True)
class Grid(BuiltIn):
    """Drops a regular lattice of squares, or on one axis of stripes and on three of cubes.

    Known elsewhere as GridMask (Chen et al., 2020, arXiv:2001.04086). The lattice is shifted at
    random, so that every pixel drops at the rate. Its squares are of the two sizes of whole pixels
    that come nearest to the rate, so that exactly the rate drops in expectation.

    Attributes:
      unit: the period of the lattice in pixels, or (lowest, highest), of which each record draws
        one, each equally likely; of more than 256, 256 that are spread evenly. At most 65536. Of
        many units above 511 the sizes of large squares differ by up to 2 %.
      rotate: the lattice is turned by an angle from -rotate to rotate, in degrees, about the corner
        of the image. On two spatial axes only; its sine and cosine are computed in floating point,
        and the same on one backend only.

    Raises:
      TypeError: if an option is of the wrong type.
      ValueError: if an option is out of range; when sampling, if there is no spatial axis, or
        `rotate` is given and there are not two.

    Example:
      >>> Grid(unit=4).sample(jax.random.key(0), (8, 8, 3), 0.2).shape
      (8, 8, 1)
    """

    unit: int | tuple[int, int] = 32
    rotate: float = 0

    is_even: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        unit: Any = self.unit
        if isinstance(unit, tuple):
            for position, bound in enumerate(unit):
                require_whole(f"Grid.unit[{position}]", bound, 1, _LONGEST + 1)
            if len(unit) != 2 or unit[0] > unit[1]:
                raise ValueError(must("Grid.unit", "be (low, high) with low <= high", unit))
        else:
            require_whole("Grid.unit", unit, 1, _LONGEST + 1)
        if not is_number(self.rotate):
            raise TypeError(must("Grid.rotate", "be a number of degrees", self.rotate))
        if not 0 <= self.rotate <= 360:
            raise ValueError(must("Grid.rotate", "be in [0, 360]", self.rotate))

    def draw(self, key: jax.Array, shape: Shape, rate: Any, within: Within | None) -> jax.Array:
        """Returns a mask with one channel."""
        spatial = spatial_shape(self, shape)
        if self.rotate:
            return self._sample_turned(key, spatial, rate)
        units, sides, table = _levels(self.unit, len(spatial))

        def draw(key: jax.Array) -> tuple[jax.Array, ...]:
            words = sample_words(key, (2 + len(spatial),))
            row = whole_below(words[0], len(units))
            unit = jnp.asarray(units)[row]
            # Past its own unit a row repeats its last level, the whole unit.
            level = pick_level(words[1], rate, jnp.asarray(table)[row])
            side = jnp.minimum(jnp.asarray(sides)[level], unit)
            shifts = whole_below(words[2:], unit)
            return tuple(
                (jnp.arange(size, dtype=jnp.uint32) + shift) % unit < side
                for size, shift in zip(spatial, shifts, strict=True)
            )

        covered = materialize(draw, key)
        kept = jnp.zeros((1,) * (len(spatial) + 1), jnp.bool_)
        for axis, cover in enumerate(covered):
            kept = kept | ~cover.reshape([n if at == axis else 1 for at, n in enumerate(shape)])
        return kept

    def _sample_turned(self, key: jax.Array, spatial: Shape, rate: Any) -> jax.Array:
        if len(spatial) != 2:
            constraint = f"be 0 for an element with {len(spatial)} spatial axes"
            raise ValueError(must("Grid.rotate", constraint, self.rotate))
        units = _levels(self.unit, 2)[0]

        def draw(key: jax.Array) -> jax.Array:
            words = sample_words(key, (4,))
            unit = jnp.asarray(units)[whole_below(words[0], len(units))].astype(jnp.float32)
            turn = (words[1] >> np.uint32(8)).astype(jnp.float32) / np.float32(2**24)
            angle = np.float32(np.deg2rad(self.rotate)) * (2 * turn - 1)
            cosine, sine = _turns(jnp.cos(angle) / unit), _turns(jnp.sin(angle) / unit)
            fraction = drop_units(rate).astype(jnp.float32) / np.float32(GRID)
            y = jnp.arange(spatial[0], dtype=jnp.uint32)[:, None, None]
            x = jnp.arange(spatial[1], dtype=jnp.uint32)[None, :, None]
            # Phases of the lattice, shifted by up to a unit. They count in 2^-32 of a unit, and so
            # wrap where a unit ends: exactly, however long the axes are.
            along = cosine * y + sine * x + words[2]
            across = cosine * x - sine * y + words[3]
            side = _turns(jnp.sqrt(fraction))
            return ~((along < side) & (across < side) | (fraction >= 1))

        return materialize(draw, key)


def _turns(share: jax.Array) -> jax.Array:
    """Returns float32 from -1 to 1 as multiples of 2^-32, modulo one, uint32."""
    size = (jnp.abs(share) * np.float32(2**31)).astype(jnp.uint32) << np.uint32(1)
    return jnp.where(share < 0, np.uint32(0) - size, size)


@functools.lru_cache(maxsize=64)
def _levels(unit: int | tuple[int, int], axes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the units, the side of each level, and for each unit what each level drops."""
    low, high = unit if isinstance(unit, tuple) else (unit, unit)
    units = np.linspace(low, high, min(high - low + 1, _MOST)).round().astype(np.uint32)
    levels = high + 1
    sides = np.arange(levels)
    if len(units) > 1 and len(units) * levels > _TABLE:
        # Half of the levels are the least sides, and the others grow by a constant factor.
        first = _TABLE // len(units) // 2
        sides = np.append(sides[:first], np.geomspace(first, high, first).round().astype(int))
    fractions = (np.minimum(sides, units[:, None]) / units[:, None]) ** axes
    return units, sides.astype(np.uint32), fraction_units(fractions)
