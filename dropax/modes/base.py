"""What a mode is: the protocol of modes, and what they share."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import GRID, drop_units
from dropax.kit.errors import is_number, must, require_whole
from dropax.kit.keys import as_key
from dropax.kit.process import Process
from dropax.kit.serialization import plain
from dropax.kit.trees import broadcast_rank

_Sample = TypeVar("_Sample", bound=Callable[..., jax.Array])


@runtime_checkable
class Mode(Protocol):
    """Which values drop together: anything frozen and hashable by value with `sample` is a mode.

    A mode that cannot always reach its rate also has a method
    `expected_dropped_fraction(element_shape, rate)`, which returns what it does reach. One whose
    mask only repeats a few draws says so by an attribute `repeats = True`: such a mask is not
    stored, but repeated where it is used.
    """

    def sample(self, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Draws the keep mask of one record.

        Args:
          key: one typed key. Consumed; do not reuse.
          element_shape: the element's shape, channels last: `(..., channels)`.
          rate: expected fraction dropped, a float or a scalar array that may be traced.

        Returns:
          Keep mask, bool, True where kept, of a shape that broadcasts to `element_shape`.
        """
        ...


def one_dispatch(sample: _Sample) -> _Sample:
    """Compiles a mode's `sample` for eager calls, and gives it a Threefry key for any other."""

    @functools.partial(jax.jit, static_argnums=(0, 2), inline=True)
    def compiled(mode: Any, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        key = as_key(key, f"{type(mode).__name__}.sample.key")
        return sample(mode, key, element_shape, rate)

    @functools.wraps(sample)
    def run(mode: Any, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        Process.require_own()
        return compiled(mode, key, known_shape(plain(element_shape)), rate)

    return cast(_Sample, run)


def fit_sampled(mask: Any, element_shape: tuple[int, ...]) -> jax.Array:
    """Returns what a mode's `sample` returned, checked, with as many axes as the element."""
    owner = "the mask that a mode's sample returns"
    if getattr(mask, "dtype", None) != jnp.bool_:
        raise TypeError(must(owner, "be an array of bools, True where kept", mask))
    return broadcast_rank(mask, element_shape, owner)


def sample_mask(mode: Mode, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
    """Draws the mask of a mode, possibly a user's own, with as many axes as the element."""
    return fit_sampled(mode.sample(key, element_shape, rate), element_shape)


def expected_fraction(mode: Mode, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
    """Returns the expected dropped fraction of a mode: the rate, unless the mode says otherwise."""
    own = getattr(mode, "expected_dropped_fraction", None)
    if own is not None:
        return jnp.asarray(own(element_shape, rate), jnp.float32)
    return drop_units(rate).astype(jnp.float32) / GRID


def spatial_shape(mode: Any, element_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns all sizes of an element but that of the channels, which must not be the only one."""
    if len(element_shape) < 2:
        owner = f"the element that {type(mode).__name__} drops from"
        raise ValueError(must(owner, "have a spatial axis beside the channels", element_shape))
    return tuple(element_shape[:-1])


def known_shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
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


def require_sizes(owner: str, sizes: Any) -> None:
    """Refuses what is neither a positive int nor a tuple of them."""
    if not isinstance(sizes, tuple):
        require_whole(owner, sizes, 1)
        return
    if not sizes:
        raise ValueError(must(owner, "not be empty", sizes))
    for position, size in enumerate(sizes):
        require_whole(f"{owner}[{position}]", size, 1)


def require_aspect_ratio(owner: str, bounds: Any) -> None:
    """Refuses what is no range of aspect ratios (low, high)."""
    if not isinstance(bounds, tuple) or not all(map(is_number, bounds)):
        cure = "Pass a tuple such as (0.5, 2.0)."
        raise TypeError(must(owner, "be a tuple of two numbers", bounds, cure))
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
        raise ValueError(must(owner, "be (low, high) with 0 < low <= high", bounds))
    if not (bounds[0] >= 1e-9 and bounds[1] <= 1e9):
        raise ValueError(must(owner, "be from 1e-9 to 1e9", bounds))


def sizes_along(
    owner: str, sizes: int | tuple[int, ...], spatial: Sequence[int]
) -> tuple[int, ...]:
    """Returns a size for each spatial axis, none larger than the axis, and none below 1."""
    each = sizes if isinstance(sizes, tuple) else (sizes,) * len(spatial)
    if len(each) != len(spatial):
        raise ValueError(must(owner, f"have one size for each of {len(spatial)} axes", sizes))
    return tuple(min(size, max(full, 1)) for size, full in zip(each, spatial, strict=True))
