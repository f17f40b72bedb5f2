"""Cells of a grid in rectangles: `Blocks`."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from dropax.bits import sample_words, store, whole_below
from dropax.kit.errors import must, require_whole
from dropax.kit.serialization import take_plain
from dropax.modes.base import (
    known_sizes,
    one_dispatch,
    require_aspect_ratio,
    require_sizes,
    sizes_along,
    spatial_shape,
)
from dropax.modes.calibration import ratios_between
from dropax.modes.counts import choose_lowest, draw_count

_RECTANGLES = 32  # of a record: at rates up to 0.5 they reach the number of cells all but always
_RANK_SHIFT = np.uint32(26)  # leaves six bits for 33 ranks


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Drops an exact number of a grid's cells, in rectangles: masked image modeling.

    Known elsewhere as the blockwise masking of BEiT (Bao et al., 2021, arXiv:2106.08254), used by
    iBOT (arXiv:2111.07832) and DINOv2 (arXiv:2304.07193). One rectangle after the other is placed
    anywhere inside the image, with an area uniform from `min_cells` to what is still missing, until
    rate x cells cells are covered. Of the last rectangle only so many cells drop as are missing,
    chosen at random, so that the number is exact. If rate x cells is not whole, a record drops the
    next lower or higher number, such that the rate drops in expectation.

    Differs from the papers' code: there the number is an upper bound, a rectangle that does not fit
    is drawn again (here its aspect ratio is reduced), and a loop on the host runs as long as it
    takes. Here there are 32 rectangles. At rates above 0.5 they may leave some cells missing, which
    are chosen at random from all others: on 14 x 14 cells one in a thousand of those that drop at
    rate 0.75, three in a hundred at 0.9.

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

    def __post_init__(self) -> None:
        take_plain(self)
        require_sizes("Blocks.size", self.size)
        require_aspect_ratio("Blocks.aspect_ratio", self.aspect_ratio)
        require_whole("Blocks.min_cells", self.min_cells, 1)

    @one_dispatch
    def sample(self, key: jax.Array, element_shape: tuple[int, ...], rate: Any) -> jax.Array:
        """Draws the keep mask of one record.

        Args:
          key: one typed key. Consumed; do not reuse.
          element_shape: `(..., channels)`, with one spatial axis or more.
          rate: the fraction dropped in expectation, exactly.

        Returns:
          Keep mask, bool, of `element_shape` with one channel, and of size 1 along all spatial axes
          but the last two.

        Raises:
          ValueError: if there is no spatial axis, or `size` does not match or divide the axes.
        """
        spatial = spatial_shape(self, element_shape)
        grid = known_sizes(self, spatial[-2:])
        sides = sizes_along("Blocks.size", self.size, grid)
        if any(size % side for size, side in zip(grid, sides, strict=True)):
            cure = "Pass a size that does, or crop or pad the images."
            raise ValueError(must("Blocks.size", f"divide the axes {grid}", self.size, cure))
        cells = [size // side for size, side in zip(grid, sides, strict=True)]
        rows, columns = cells if len(cells) == 2 else (1, *cells)

        mask = store(lambda key: self._sample_cells(key, rate, rows, columns), key)
        mask = mask.reshape((1,) * (len(spatial) - len(grid)) + (*cells, 1))
        for axis, side in enumerate(sides, len(spatial) - len(grid)):
            mask = jnp.repeat(mask, side, axis)
        return mask

    def _sample_cells(self, key: jax.Array, rate: Any, rows: int, columns: int) -> jax.Array:
        """Draws which cells are kept, bool of shape (rows, columns)."""
        count = rows * columns
        if count == 0:
            return jnp.ones((rows, columns), jnp.bool_)
        words = sample_words(key, (1 + 4 * _RECTANGLES + count,))
        dropped = draw_count(words[0], rate, count)
        of_rectangle = words[1 : 1 + 4 * _RECTANGLES].reshape(_RECTANGLES, 4)
        of_cell = words[1 + 4 * _RECTANGLES :]
        areas = jnp.asarray(_least_areas(self.aspect_ratio, rows))
        row, column = jnp.arange(rows, dtype=jnp.uint32), jnp.arange(columns, dtype=jnp.uint32)
        uncovered, one = np.uint32(_RECTANGLES), np.uint32(1)

        def place(ranks: jax.Array, rectangle: tuple[jax.Array, jax.Array]) -> Any:
            rank, (area_word, ratio_word, top_word, left_word) = rectangle
            covered = (ranks < uncovered).sum(dtype=jnp.uint32)
            # Once none is missing, whatever is placed comes after those that drop.
            missing = jnp.maximum(dropped, covered + one) - covered
            least = jnp.minimum(np.uint32(min(self.min_cells, count)), missing)
            area = least + whole_below(area_word, missing - least + one)
            # As high as the ratio says, but neither higher than the grid nor so low that the area
            # needs more than all columns; and as wide as the area then asks.
            height = (areas[whole_below(ratio_word, len(areas))] <= area).sum(dtype=jnp.uint32)
            height = jnp.maximum(height, (area + np.uint32(columns - 1)) // np.uint32(columns))
            width = jnp.clip((area + height // 2) // height, one, np.uint32(columns))
            top = whole_below(top_word, np.uint32(rows + 1) - height)
            left = whole_below(left_word, np.uint32(columns + 1) - width)
            # A difference of unsigned numbers is large if it would be negative.
            inside = (row - top < height)[:, None] & (column - left < width)[None]
            return jnp.where(inside, jnp.minimum(ranks, rank), ranks), None

        # Each cell is ranked by the first rectangle that covers it. The start is computed from the
        # words, so that it varies over the manual axes (`shard_map`) that they do.
        start = jnp.full((rows, columns), uncovered) + of_cell.reshape(rows, columns) * np.uint32(0)
        order = jnp.arange(_RECTANGLES, dtype=jnp.uint32)
        ranks, _ = jax.lax.scan(place, start, (order, of_rectangle))
        # Those of the lowest rank drop, within a rank at random.
        lowest = ranks.reshape(count) << _RANK_SHIFT | of_cell >> (np.uint32(32) - _RANK_SHIFT)
        return ~choose_lowest(lowest, dropped).reshape(rows, columns)


@functools.lru_cache(maxsize=64)
def _least_areas(aspect_ratio: tuple[float, float], rows: int) -> np.ndarray:
    """Returns for each aspect ratio from which area on a rectangle has 1, 2, ... rows.

    Returns:
      uint32, shape (ratios, rows): how many of its areas a rectangle reaches is its height.
    """
    ratios = ratios_between(*aspect_ratio)
    # The height is the root of area * ratio, rounded: above k rows from (k + 1/2)^2 / ratio on. It
    # is at least one row.
    least = (np.arange(rows) + 0.5) ** 2 / ratios[:, None]
    least[:, 0] = 0
    # What may differ in the last bits from one machine to the other decides nothing.
    return np.minimum(np.ceil(np.round(least, 6)), 2**32 - 1).astype(np.uint32)
