"""Overlapping blocks around random seeds: `Block`."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import materialize, sample_words, split_in_two
from dropax.modes.base import (
    BuiltIn,
    Shape,
    Within,
    positions_of,
    require_sizes,
    sizes_along,
    spatial_shape,
)
from dropax.modes.calibration import (
    fraction_units,
    gauss_rule,
    longest_sum,
    pick_level,
    run_itself,
)

_LEVELS = 1024
_SHORT = 512  # seeds on an axis, for which a product takes a TPU less time than doubling
# Of the polynomials that stand for exp(-x) up to the x that occur: some 60 on three axes, where
# what is left out is below 1e-15.
_DEGREE = 40


@dataclasses.dataclass(frozen=True)
class Block(BuiltIn):
    """Drops blocks around random seeds; blocks may overlap.

    Known elsewhere as DropBlock (Ghiasi et al., 2018, arXiv:1810.12890). A block starts wherever it
    fits into the image, each with the same small probability. That is chosen such that, with
    overlaps and borders, exactly the rate drops in expectation; the paper's formula neglects the
    overlaps. The edges of the image are dropped less often than its middle.

    Attributes:
      size: the side of a block, or one for each spatial axis; no more than the image counts.
      per_channel: True draws blocks for every channel on its own, False drops channels together.

    Raises:
      TypeError: if an option is of the wrong type.
      ValueError: if `size` is below 1; when sampling, if it does not match the spatial axes.

    Example:
      >>> Block(size=3).sample(jax.random.key(0), (8, 8, 3), 0.2).shape
      (8, 8, 1)
    """

    size: int | tuple[int, ...] = 7
    per_channel: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes("Block.size", self.size)

    def draw(self, key: jax.Array, shape: Shape, rate: Any, within: Within | None) -> jax.Array:
        """Returns a mask of the element's shape, or with one channel."""
        spatial = spatial_shape(self, shape)
        sides = sizes_along("Block.size", self.size, spatial)
        # Without an axis of one channel, which a TPU would pad to 128.
        channels = shape[-1:] if self.per_channel else ()
        starts = [size - side + 1 for size, side in zip(spatial, sides, strict=True)]
        units, thresholds = _levels(spatial, sides)

        def draw(key: jax.Array) -> jax.Array:
            level_key, seed_key = split_in_two(key)
            level = pick_level(sample_words(level_key, ()), rate, units)
            seeds = sample_words(seed_key, (*starts, *channels)) < jnp.asarray(thresholds)[level]
            # No uint32 threshold is above every word, so the last level is explicit: it drops all.
            return seeds | (level == len(thresholds) - 1)

        dropped = materialize(draw, key)
        positions = positions_of(within, range(len(spatial)), spatial)
        for axis, (side, position) in enumerate(zip(sides, positions, strict=True)):

            def spread(seeds: jax.Array, axis: int = axis, side: int = side) -> jax.Array:
                marked = _spread(seeds, axis, side)
                return marked if within is None else within.read_axis(marked, axis)

            if dropped.shape[axis] > _SHORT:
                dropped = spread(dropped)
            else:
                by_product = functools.partial(
                    _spread_by_product, axis=axis, side=side, positions=position
                )
                dropped = jax.lax.platform_dependent(dropped, tpu=by_product, default=spread)
        return ~dropped if self.per_channel else ~dropped[..., None]


@functools.lru_cache(maxsize=64)
def _levels(spatial: tuple[int, ...], sides: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns what each level of seeds drops, and below which word a block starts."""
    if 0 in spatial:  # there is nothing to drop, so any seed will do
        spatial = sides = (1,) * len(spatial)
    # How many blocks can cover a pixel, and how many pixels are so, as shares of all.
    covers: np.ndarray = np.ones(1)
    weights: np.ndarray = np.ones(1)
    for size, side in zip(spatial, sides, strict=True):
        # Along an axis it is 1, 2, ... from either end, up to a plateau.
        top = min(side, size - side + 1)
        rule = gauss_rule if top - 1 > longest_sum(_DEGREE) else run_itself
        points, shares = rule(np.array([top - 1]), _DEGREE)
        values = np.append(points[0] + 1, top)
        portions = np.append(shares[0] * 2 * (top - 1), size - 2 * (top - 1)) / size
        products = np.outer(covers, values).ravel()
        covers, places = np.unique(products, return_inverse=True)
        weights = np.bincount(places, np.outer(weights, portions).ravel())
    fractions = np.arange(_LEVELS) / _LEVELS
    seeded = -np.expm1(np.log1p(-fractions) / (covers * weights).sum())
    thresholds = np.round(seeded * 2**32)
    missed = np.log1p(-thresholds / 2**32)
    # In parts of a few megabytes. Elementwise, as linear algebra starts threads.
    parts = np.array_split(missed, 1 + len(missed) * len(covers) // 2**20)
    dropped = [(-np.expm1(part[:, None] * covers) * weights).sum(axis=1) for part in parts]
    units = fraction_units(np.append(np.concatenate(dropped), 1.0))
    return units, np.append(thresholds, 2**32 - 1).astype(np.uint32)


def _spread(seeds: jax.Array, axis: int, side: int) -> jax.Array:
    """Marks the `side` positions from each seed on, along one axis, which grows by `side` - 1."""
    padding = [(side - 1, side - 1) if other == axis else (0, 0) for other in range(seeds.ndim)]
    marked, width = jnp.pad(seeds, padding), 1
    while width < side:
        step = min(width, side - width)
        size = marked.shape[axis]
        earlier = jax.lax.slice_in_dim(marked, 0, size - step, axis=axis)
        marked = earlier | jax.lax.slice_in_dim(marked, step, size, axis=axis)
        width += step
    return marked


def _spread_by_product(seeds: jax.Array, axis: int, side: int, positions: jax.Array) -> jax.Array:
    """`_spread`, read at some positions, as a product with a matrix of 0 and 1.

    A TPU has a unit for that. It counts the seeds that reach a position. bfloat16 holds 0 and 1,
    and sums are in float32, so that a count is positive exactly if there is a seed.
    """
    ahead = positions[:, None] - jnp.arange(seeds.shape[axis], dtype=positions.dtype)[None]
    reaches = ((ahead >= 0) & (ahead < side)).astype(jnp.bfloat16)
    counts = jnp.tensordot(
        reaches, seeds.astype(jnp.bfloat16), (1, axis), preferred_element_type=jnp.float32
    )
    return jnp.moveaxis(counts > 0, 0, axis)
