"""Cells of a grid in rectangles: `Blocks`."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import materialize, sample_words, whole_below
from dropax.kit.errors import must, require_whole
from dropax.modes.base import (
    BuiltIn,
    Shape,
    Within,
    require_aspect_ratio,
    require_sizes,
    sizes_along,
    spatial_shape,
)
from dropax.modes.calibration import ratios_between
from dropax.modes.counts import choose_by_size, choose_lowest, draw_count

_RECTANGLES = 32  # of a record, each a bit of a word
_ROUNDS = 4  # of rectangles, each round with areas of its own
_RANK_SHIFT = np.uint32(26)  # leaves the upper six bits for 33 ranks


@dataclasses.dataclass(frozen=True)
class Blocks(BuiltIn):
    """Drops an exact number of a grid's cells, in rectangles: masked image modeling.

    Known elsewhere as the blockwise masking of BEiT (Bao et al., 2021, arXiv:2106.08254), used by
    iBOT (arXiv:2111.07832) and DINOv2 (arXiv:2304.07193). Rectangles are placed anywhere inside
    the image, until rate x cells cells are covered. The area of each is uniform from `min_cells` to
    what is still missing if every rectangle before covered as many cells as it does on average. Of
    the last rectangle only so many cells drop as are missing, so that the number is exact. If
    rate x cells is not whole, a record drops the next lower or higher number, such that the rate
    drops in expectation.

    Differs from the papers' code: there the number is an upper bound, areas depend on what is
    really missing, a rectangle that does not fit is drawn again (here its aspect ratio is reduced),
    and a loop on the host runs as long as it takes. Here there are 32 rectangles, so that a GPU
    draws them at once. At rates above 0.5 they may leave some cells missing, which are chosen at
    random from all others: on 14 x 14 cells one in a thousand of those that drop at rate 0.75, two
    in a hundred at 0.9.

    Cells near the edges of the image are dropped less often than those in its middle.

    Attributes:
      size: the side of a cell, or one for each axis of the grid. It must divide the image: of cells
        that are cut off at its edges, another fraction than the rate would drop.
      aspect_ratio: (lowest, highest) height / width of a rectangle, log-uniform, from 64 steps.
        If such a rectangle does not fit, the ratio is reduced.
      min_cells: least area of a rectangle in cells, as long as so many are missing.

    The grid is that of the last two spatial axes. With a third in front, as of video or volumes,
    the same cells drop all along it. On one spatial axis rectangles are intervals.

    Raises:
      TypeError: if an option is of the wrong type.
      ValueError: if an option is out of range; when sampling, if there is no spatial axis, or
        `size` does not match or divide the axes.

    Example:
      >>> mask = Blocks(size=4).sample(jax.random.key(0), (16, 16, 3), 0.5)
      >>> mask.shape, int(mask.sum())
      ((16, 16, 1), 128)
    """

    size: int | tuple[int, ...] = 16
    aspect_ratio: tuple[float, float] = (0.3, 3.3)
    min_cells: int = 4

    repeats: ClassVar[bool] = True
    counts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sizes("Blocks.size", self.size)
        require_aspect_ratio("Blocks.aspect_ratio", self.aspect_ratio)
        require_whole("Blocks.min_cells", self.min_cells, 1)

    def draw(self, key: jax.Array, shape: Shape, rate: Any, within: Within | None) -> jax.Array:
        """Returns a mask with one channel, of size 1 along all spatial axes but the last two."""
        spatial = spatial_shape(self, shape)
        grid = spatial[-2:]
        sides = sizes_along("Blocks.size", self.size, grid)
        if any(size % side for size, side in zip(grid, sides, strict=True)):
            cure = "Pass a size that does, or crop or pad the images."
            raise ValueError(must("Blocks.size", f"divide the axes {grid}", self.size, cure))
        cells = [size // side for size, side in zip(grid, sides, strict=True)]
        rows, columns = cells if len(cells) == 2 else (1, *cells)

        of_cells, sizes = None, None
        if within is not None:
            lead = len(spatial) - len(grid)  # axes along which the same cells drop
            where = within.where.any(axis=tuple(range(lead)))
            within = Within(where, within.extents[lead:])
            of_cells, sizes = within.of_cells(sides), _real_sizes(within, cells, sides)
            if len(cells) == 1:
                of_cells = Within(of_cells.where[None], (None, *of_cells.extents))

        def draw(key: jax.Array) -> jax.Array:
            return self._sample_cells(key, rate, rows, columns, of_cells, sizes)

        mask = materialize(draw, key)
        mask = mask.reshape((1,) * (len(spatial) - len(grid)) + tuple(cells))
        for axis, side in enumerate(sides, len(spatial) - len(grid)):
            mask = jnp.repeat(mask, side, axis)
        return mask[..., None]

    def _sample_cells(
        self,
        key: jax.Array,
        rate: Any,
        rows: int,
        columns: int,
        within: Within | None,
        sizes: jax.Array | None,
    ) -> jax.Array:
        """Draws which cells are kept, bool of shape (rows, columns)."""
        count = rows * columns
        if count == 0:
            return jnp.ones((rows, columns), jnp.bool_)
        words = sample_words(key, (1 + 4 * _RECTANGLES + count + (sizes is not None),))
        dropped = draw_count(words[0], rate, count)
        of_rectangle = words[1 : 1 + 4 * _RECTANGLES].reshape(_RECTANGLES, 4)
        of_cell = words[1 + 4 * _RECTANGLES :][:count]
        area = self._draw_areas(of_rectangle[:, 0], dropped, count)
        # As high as the ratio says, but neither higher than the grid nor so low that the area needs
        # more than all columns; and as wide as the area then asks.
        areas = jnp.asarray(_least_areas(self.aspect_ratio, rows))
        height = areas[whole_below(of_rectangle[:, 1], len(areas))] <= area[:, None]
        height = height.sum(axis=1, dtype=jnp.uint32)
        height = jnp.maximum(height, (area + np.uint32(columns - 1)) // np.uint32(columns))
        width = jnp.clip((area + height // 2) // height, np.uint32(1), np.uint32(columns))
        top = whole_below(of_rectangle[:, 2], np.uint32(rows + 1) - height)
        left = whole_below(of_rectangle[:, 3], np.uint32(columns + 1) - width)
        # Each cell is ranked by the first rectangle that covers it. In a word with a bit for each
        # rectangle, that is how many bits are 0 below the lowest 1: all 32 if none covers it.
        row, column = jnp.arange(rows, dtype=jnp.uint32), jnp.arange(columns, dtype=jnp.uint32)
        covers = _bits_of(row, top, height)[:, None] & _bits_of(column, left, width)[None]
        ranks = jax.lax.population_count(~covers & (covers - np.uint32(1))).reshape(count)
        # Those of the lowest rank drop: of the last rectangle line by line from one of its corners,
        # so that they stay in one piece, and of what no rectangle covers at random.
        from_bottom, from_right, by_columns = (words[0] >> np.uint32(bit) & 1 for bit in range(3))
        row = jnp.where(from_bottom, np.uint32(rows - 1) - row, row)[:, None]
        column = jnp.where(from_right, np.uint32(columns - 1) - column, column)[None]
        by_rows = row * np.uint32(columns) + column
        place = jnp.where(by_columns, column * np.uint32(rows) + row, by_rows).reshape(count)
        is_covered, at_random = ranks < np.uint32(_RECTANGLES), of_cell >> np.uint32(6)
        order = ranks << _RANK_SHIFT | jnp.where(is_covered, place, at_random)
        if within is not None:
            may_drop = jnp.broadcast_to(within.where, (rows, columns)).reshape(count)
            order = within.read(order.reshape(rows, columns)).reshape(count)
            order = jnp.where(may_drop, order, np.uint32(2**32 - 1))
            each = may_drop.astype(jnp.uint32)
            each = each if sizes is None else each * sizes.reshape(count)
            dropped = draw_count(words[0], rate, each.sum(dtype=jnp.uint32))
            if sizes is not None:
                return ~choose_by_size(order, each, dropped, words[-1]).reshape(rows, columns)
        return ~choose_lowest(order, dropped).reshape(rows, columns)

    def _draw_areas(self, words: jax.Array, dropped: jax.Array, count: int) -> jax.Array:
        """Draws the areas of the rectangles, each from `min_cells` to what is missing by then.

        What is missing is known only after the rectangles before are placed, and a GPU would launch
        each of these steps by itself. So a round of rectangles counts on what each adds on average.
        As that may fall short, further rounds assume that an eighth of the cells is still missing.
        All rounds are drawn side by side, a word and a uint32 area for each rectangle.
        """
        least = jnp.clip(dropped, np.uint32(1), np.uint32(min(self.min_cells, count)))
        is_first = jnp.arange(_ROUNDS) == 0
        missing = jnp.where(is_first, dropped, dropped // np.uint32(8))
        whole = np.uint32(4 * count)
        areas = []
        for word in words.reshape(_ROUNDS, -1).T:
            area = least + whole_below(word, jnp.maximum(missing, least) - least + np.uint32(1))
            # Rectangles meet in the middle of the image, so that more of a new one is covered than
            # of all cells, by about a quarter. In multiples of 1 / whole, and then of 2^-32.
            covered = jnp.minimum(np.uint32(5) * (dropped - missing), whole)
            share = (whole - covered) * np.uint32((2**32 - 1) // whole)
            missing = missing - jnp.minimum(missing, whole_below(share, area))
            areas.append(area)
        return jnp.stack(areas, axis=1).reshape(-1)


def _real_sizes(within: Within, cells: Sequence[int], sides: Sequence[int]) -> Any:
    """Returns how many positions of each cell are real, uint32; 1 for each if none is cut.

    Cells at the edges drop less often than others, so that those that are cut off count by size.
    None without extents.
    """
    if not any(within.extents):
        return None
    sizes: Any = np.uint32(1)
    for axis, (count, side) in enumerate(zip(cells, sides, strict=True)):
        extent = within.extents[axis]
        along = jnp.full(count, side, jnp.uint32)
        if extent is not None:
            start = jnp.arange(count, dtype=jnp.uint32) * np.uint32(side)
            along = jnp.minimum(jnp.maximum(extent[0], start) - start, along)
        sizes = sizes * along.reshape([-1 if at == axis else 1 for at in range(len(cells))])
    is_cut = ((sizes > 0) & (sizes < np.uint32(math.prod(sides)))).any()
    return jnp.where(is_cut, sizes, (sizes > 0).astype(jnp.uint32))


def _bits_of(position: jax.Array, first: jax.Array, length: jax.Array) -> jax.Array:
    """Returns for each position which intervals hold it, uint32: bit n is set for interval n."""
    # A difference of unsigned numbers is large if it would be negative.
    inside = position[None] - first[:, None] < length[:, None]
    bits = np.uint32(1) << np.arange(_RECTANGLES, dtype=np.uint32)
    return (inside.astype(jnp.uint32) * bits[:, None]).sum(axis=0, dtype=jnp.uint32)


@functools.lru_cache(maxsize=64)
def _least_areas(aspect_ratio: tuple[float, float], rows: int) -> np.ndarray:
    """Returns for each aspect ratio from which area on a rectangle has 1, 2, ... rows.

    Of shape (ratios, rows): how many of its areas a rectangle reaches is its height.
    """
    ratios = ratios_between(*aspect_ratio)
    # The height is the root of area * ratio, rounded: above k rows from (k + 1/2)^2 / ratio on. It
    # is at least one row.
    least = (np.arange(rows) + 0.5) ** 2 / ratios[:, None]
    least[:, 0] = 0
    # What may differ in the last bits from one machine to the other decides nothing.
    return np.minimum(np.ceil(np.round(least, 6)), 2**32 - 1).astype(np.uint32)
