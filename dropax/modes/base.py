"""What a mode is: the protocol, what a user may pass for one, and what modes share."""

import abc
import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import GRID, drop_units
from dropax.kit.errors import is_number, must, require_by_value, require_kind, require_whole
from dropax.kit.keys import as_key
from dropax.kit.process import Process
from dropax.kit.serialization import plain, read_text
from dropax.kit.trees import broadcast_rank

Shape = tuple[int, ...]


@runtime_checkable
class Mode(Protocol):
    """Which values drop together: anything frozen and hashable by value with `sample` is a mode.

    A mode that cannot always reach its rate also has a method
    `expected_dropped_fraction(element_shape, rate)`, which returns what it does reach. One whose
    mask only repeats a few draws says so by an attribute `repeats = True`: such a mask is not
    stored, but repeated where it is used.

    The masks of records that are smaller than their arrays (`extent_key`) are read from masks of
    the whole shape, so that holes shrink with the record; but not those of a mode with an attribute
    `is_even = True`, which drops as much of any part of the element.
    """

    def sample(self, key: jax.Array, element_shape: Shape, rate: Any) -> jax.Array:
        """Draws the keep mask of one record.

        Args:
          key: one typed key. Consumed; do not reuse.
          element_shape: the element's shape, channels last: `(..., channels)`.
          rate: expected fraction dropped, a float or a scalar array that may be traced.

        Returns:
          Keep mask, bool, True where kept, of a shape that broadcasts to `element_shape`.
        """
        ...


@dataclasses.dataclass(frozen=True)
class BuiltIn(abc.ABC):
    """A mode of this package: checked options, and a `sample` that is one dispatch when eager.

    A subclass defines `draw`. Its options that are a bool or an int are checked here.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            name, value = f"{type(self).__name__}.{field.name}", plain(vars(self)[field.name])
            vars(self)[field.name] = value
            if field.type in (bool, int):
                require_kind(name, value, field.type, "a bool" if field.type is bool else "an int")

    def sample(self, key: jax.Array, element_shape: Shape, rate: Any) -> jax.Array:
        """Draws the keep mask of one record; see `Mode.sample`.

        Raises:
          TypeError: if `key` is no PRNG key.
          ValueError: if it is an array of keys, or the element lacks an axis that the mode needs.
        """
        Process.require_own()
        return self._sample(key, known_shape(plain(element_shape)), rate)

    @functools.partial(jax.jit, static_argnums=(0, 2), inline=True)
    def _sample(self, key: jax.Array, shape: Shape, rate: Any) -> jax.Array:
        return self.draw(as_key(key, f"{type(self).__name__}.sample.key"), shape, rate, None)

    @abc.abstractmethod
    def draw(self, key: jax.Array, shape: Shape, rate: Any, within: "Within | None") -> jax.Array:
        """Draws the keep mask of one record, of as many axes as its shape.

        Args:
          key: one Threefry key.
          shape: the element's, channels last.
          rate: as for `Mode.sample`.
          within: what of the record may drop, by which the mode draws; None for all of it, and for
            a mode that `is_even`. Where nothing may drop the mask may be anything.
        """


MODES: dict[str, Mode] = {}
"""The objects that names stand for; `dropax.modes` fills both tables."""

TYPES: dict[str, type] = {}
"""The classes that text may hold, by name."""


def add_mode(kind: type, name: str | None) -> None:
    """Lets text hold a mode's class, and a name, if there is one, stand for its defaults."""
    TYPES[kind.__name__] = kind
    if name is not None:
        MODES[name] = kind()


def as_mode(mode: Any, name: str, types: Mapping[str, type] = {}) -> Mode:
    """Returns the mode object of a name, a text, which may hold `types` too, or an object."""
    if isinstance(mode, str):
        mode = read_text(mode, MODES, {**TYPES, **types}, name, "Box(count=3)")
    if not callable(getattr(type(mode), "sample", None)):
        raise TypeError(must(name, "be a mode's name or a mode object such as Pixel()", mode))
    require_by_value(name, mode)
    given: Mode = mode
    return given


class Within(NamedTuple):
    """What of a record may drop.

    Attributes:
      where: bools with the element's axes, channels last, each of its size or 1; True where values
        may drop, so False beyond the extents.
      extents: for each spatial axis (extent, shift), uint32 scalars: how many positions are real,
        and a random integer below the axis' size. None for an axis that is real throughout.
    """

    where: jax.Array
    extents: tuple[tuple[jax.Array, jax.Array] | None, ...]

    def positions(self, axis: int, size: int) -> jax.Array:
        """Returns which position of a whole axis each one of a record reads, int32."""
        extent = self.extents[axis]
        if extent is None:
            return jnp.arange(size, dtype=jnp.int32)
        return positions_within(size, *extent)

    def read(self, mask: jax.Array) -> jax.Array:
        """Returns the mask of a record from that of the whole shape, or of what it broadcasts to.

        Over all positions and shifts, each position of the whole mask is read equally often, so
        that as much drops of the record as would of all. A full extent reads the mask as it is.
        """
        return functools.reduce(self.read_axis, range(len(self.extents)), mask)

    def read_axis(self, mask: jax.Array, axis: int) -> jax.Array:
        """Does so along one spatial axis."""
        size = mask.shape[axis]
        if self.extents[axis] is None or size == 1:
            return mask
        return jnp.take(mask, self.positions(axis, size), axis, mode="clip")

    def of_cells(self, sides: Sequence[int]) -> "Within":
        """Returns the same for a grid of cells: one may drop if any of its values may."""
        where = self.where.any(axis=-1)
        extents = []
        for axis, (extent, side) in enumerate(zip(self.extents, sides, strict=True)):
            where = any_in_cells(where, axis, side)
            cut = np.uint32(side)
            extents.append(extent and ((extent[0] + cut - np.uint32(1)) // cut, extent[1] // cut))
        return Within(where, tuple(extents))


def positions_of(
    within: Within | None, axes: Iterable[int], sizes: Iterable[int]
) -> list[jax.Array]:
    """Returns the positions that a record reads along some spatial axes; without extents, all."""
    if within is None:
        return [jnp.arange(size, dtype=jnp.int32) for size in sizes]
    return [within.positions(axis, size) for axis, size in zip(axes, sizes, strict=True)]


def positions_within(size: int, extent: jax.Array, shift: jax.Array) -> jax.Array:
    """Returns `(i * size + shift) // extent` for each position i, at most the last one; int32.

    The product may take more than 32 bits, so it is divided digit by digit of i, from the highest
    on, as one divides on paper.
    """
    digit = 30 - size.bit_length()  # bits of one, such that nothing below reaches 2^32
    index, extent = jnp.arange(size, dtype=jnp.uint32), jnp.maximum(extent, np.uint32(1))
    quotient = remainder = jnp.zeros(size, jnp.uint32)
    for at in reversed(range(0, size.bit_length(), digit)):
        part = index >> np.uint32(at) & np.uint32(2**digit - 1)
        total = (remainder << np.uint32(digit)) + part * np.uint32(size)
        total = total if at else total + shift
        quotient = (quotient << np.uint32(digit)) + total // extent
        remainder = total % extent
    return jnp.minimum(quotient, np.uint32(max(size - 1, 0))).astype(jnp.int32)


def any_in_cells(mask: jax.Array, axis: int, side: int) -> jax.Array:
    """Joins each `side` positions along an axis, the last ones maybe fewer: True if any is."""
    size = mask.shape[axis]
    if side == 1 or size <= 1:
        return mask
    padding = [(0, -size % side if at == axis else 0) for at in range(mask.ndim)]
    shape = (*mask.shape[:axis], -(-size // side), side, *mask.shape[axis + 1 :])
    return jnp.pad(mask, padding).reshape(shape).any(axis=axis + 1)


def sample_mask(
    mode: Mode, key: jax.Array, shape: Shape, rate: Any, within: Within | None = None
) -> jax.Array:
    """Draws the mask of a mode, possibly a user's own; see `BuiltIn.draw`."""
    within = None if getattr(mode, "is_even", False) else within
    if isinstance(mode, BuiltIn) and type(mode).sample is BuiltIn.sample:
        return mode.draw(key, shape, rate, within)
    mask, name = mode.sample(key, shape, rate), "the mask that a mode's sample returns"
    if getattr(mask, "dtype", None) != jnp.bool_:
        raise TypeError(must(name, "be an array of bools, True where kept", mask))
    mask = broadcast_rank(mask, shape, name)
    return mask if within is None else within.read(mask)


def counts_units(mode: Any) -> bool:
    """Says whether a mode drops a number of units that depends on how many may drop."""
    return isinstance(mode, BuiltIn) and bool(getattr(mode, "counts", False))


def expected_fraction(mode: Mode, element_shape: Shape, rate: Any) -> jax.Array:
    """Returns the expected dropped fraction of a mode: the rate, unless the mode says otherwise."""
    own = getattr(mode, "expected_dropped_fraction", None)
    if own is not None:
        return jnp.asarray(own(element_shape, rate), jnp.float32)
    return drop_units(rate).astype(jnp.float32) / GRID


def spatial_shape(mode: Any, element_shape: Shape) -> Shape:
    """Returns all sizes of an element but that of the channels, which must not be the only one."""
    if len(element_shape) < 2:
        name = f"the element that {type(mode).__name__} drops from"
        raise ValueError(must(name, "have a spatial axis beside the channels", element_shape))
    return tuple(element_shape[:-1])


def known_shape(shape: tuple[Any, ...]) -> Shape:
    """Returns the shape of an element as ints.

    A ValueError if a size is symbolic (`jax.export`), or there are more values than a word counts.
    """
    if not all(isinstance(size, int | np.integer) for size in shape):
        cure = "Only the batch axis may be symbolic."
        raise ValueError(must("the shape of an element", "be known", shape, cure))
    known = tuple(map(int, shape))
    if math.prod(known) > 2**32:
        raise ValueError(must("an element", "have at most 2^32 values", shape))
    return known


def require_sizes(name: str, sizes: Any) -> None:
    """Refuses what is neither a positive int nor a tuple of them."""
    if not isinstance(sizes, tuple):
        require_whole(name, sizes, 1)
        return
    if not sizes:
        raise ValueError(must(name, "not be empty", sizes))
    for position, size in enumerate(sizes):
        require_whole(f"{name}[{position}]", size, 1)


def require_aspect_ratio(name: str, bounds: Any) -> None:
    """Refuses what is no range of aspect ratios (low, high)."""
    if not isinstance(bounds, tuple) or not all(map(is_number, bounds)):
        cure = "Pass a tuple such as (0.5, 2.0)."
        raise TypeError(must(name, "be a tuple of two numbers", bounds, cure))
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
        raise ValueError(must(name, "be (low, high) with 0 < low <= high", bounds))
    if not (bounds[0] >= 1e-9 and bounds[1] <= 1e9):
        raise ValueError(must(name, "be from 1e-9 to 1e9", bounds))


def sizes_along(name: str, sizes: int | tuple[int, ...], spatial: Sequence[int]) -> Shape:
    """Returns a size for each spatial axis, none larger than the axis, and none below 1."""
    each = sizes if isinstance(sizes, tuple) else (sizes,) * len(spatial)
    if len(each) != len(spatial):
        raise ValueError(must(name, f"have one size for each of {len(spatial)} axes", sizes))
    return tuple(min(size, max(full, 1)) for size, full in zip(each, spatial, strict=True))
