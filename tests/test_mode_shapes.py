"""Masks have the shape that their mode promises, read off independently of how they are drawn."""

import functools
import itertools

import jax
import numpy as np
import pytest

from cases import assert_refused, draw_masks, draw_words, refuses
from dropax import Band, Block, Blocks, Box, Channel, Grid, Patch, Pixel
from dropax.modes.rectangles import size_levels as levels

# An image, and elements with another number of axes or an axis of one position.
SHAPES = [(9, 7), (17,), (7, 1), (3, 4, 5)]
RATES = [0.02, 0.1, 0.5, 0.9]


@functools.cache
def masks_of(mode, spatial, channels=1):
    """Where 16 records at each rate drop, bool of shape (64, *spatial, channels)."""
    keys = jax.random.split(jax.random.key(3), 16)
    shape = (*spatial, channels)
    masks = np.concatenate([np.asarray(draw_masks(mode, shape, keys, rate)) for rate in RATES])
    return np.broadcast_to(~masks, (len(masks), *shape))


def profiles(mask):
    """For each axis, which positions hold any drop."""
    for axis in range(mask.ndim):
        yield mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis))


def product(parts):
    """Where all of one profile for each axis hold."""
    mask = np.ones((), bool)
    for part in parts:
        mask = np.multiply.outer(mask, part)
    return mask


def runs(line):
    """Lengths of the runs of True."""
    return [len(list(group)) for value, group in itertools.groupby(line) if value]


def by_turns(*modes):
    """Each of several modes on an image, and by turns on the other shapes."""
    others = zip(itertools.cycle(modes), SHAPES[1:])
    cases = [*((mode, SHAPES[0]) for mode in modes), *others]
    return pytest.mark.parametrize(("mode", "spatial"), cases, ids=str)


@by_turns(Box(border="clip"), Box())
def test_a_box_is_one_full_rectangle(mode, spatial):
    for mask in masks_of(mode, spatial)[..., 0]:
        lines = list(profiles(mask))
        np.testing.assert_array_equal(mask, product(lines))
        assert all(len(runs(line)) <= 1 for line in lines)


def test_a_box_that_fits_has_the_aspect_ratio_that_is_asked():
    for ratio in (0.5, 2):
        mode = Box(aspect_ratio=(ratio, ratio))
        for mask in masks_of(mode, (40, 40))[:48, ..., 0]:  # at the highest rate none fits
            if mask.any():
                height, width = (int(line.sum()) for line in profiles(mask))
                assert abs(height - ratio * width) <= 1 + ratio or height == 40 or width == 40


def test_boxes_are_tall_as_often_as_wide():
    _, sides = levels((64, 64), 1, (1 / 16, 16), "inside")
    logs = np.log(sides[:, 1:, 0] / sides[:, 1:, 1])
    np.testing.assert_allclose(logs.mean(axis=0), 0, atol=0.03)
    assert np.ptp(logs, axis=0).max() > 5, "of 5.55 between the least and the largest ratio"


def test_a_box_that_does_not_fit_gives_way():
    for mask in masks_of(Box(), (3, 200))[32:, ..., 0]:
        height, width = (int(line.sum()) for line in profiles(mask))
        assert (height, width) == (3, pytest.approx(mask.sum() / 3))


def test_boxes_are_as_many_as_asked_and_of_one_size():
    def boxes(height, width):
        """Every box of a size, each a row of 0 and 1."""
        for y, x in np.ndindex(5 - height, 6 - width):
            box = np.zeros((4, 5), bool)
            box[y : y + height, x : x + width] = True
            yield box.ravel()

    unions = {np.zeros(20, bool).tobytes()}
    for sides in itertools.product(range(1, 5), range(1, 6)):
        pairs = itertools.combinations_with_replacement(boxes(*sides), 2)
        unions |= {(one | other).tobytes() for one, other in pairs}
    assert len(unions) < 1000, "of 2 ** 20 masks"
    drawn = {mask.tobytes() for mask in masks_of(Box(count=2), (4, 5))}
    assert len(drawn) > 20
    assert drawn <= unions


@by_turns(Block(size=3), Block(size=2, per_channel=True))
def test_every_dropped_value_lies_in_a_full_block(mode, spatial):
    sides = [min(mode.size, size) for size in spatial]
    for mask in masks_of(mode, spatial, channels=2):
        for channel in np.moveaxis(mask, -1, 0):
            rebuilt = np.zeros_like(channel)
            for start in np.ndindex(*[n - s + 1 for n, s in zip(spatial, sides, strict=True)]):
                block = tuple(slice(a, a + s) for a, s in zip(start, sides, strict=True))
                if channel[block].all():
                    rebuilt[block] = True
            np.testing.assert_array_equal(rebuilt, channel)


def test_blocks_are_drawn_for_each_channel_or_for_all():
    apart = masks_of(Block(size=2, per_channel=True), (9, 7), channels=2)
    assert (apart[..., 0] != apart[..., 1]).any()
    together = masks_of(Block(size=3), (9, 7), channels=2)
    np.testing.assert_array_equal(together[..., 0], together[..., 1])


@by_turns(Patch(size=4), Patch(size=100), Patch(size=1))
def test_a_patch_is_the_same_all_over_each_cell(mode, spatial):
    cells = product([np.ones(n, bool) for n in spatial]).astype(int)
    for axis, n in enumerate(spatial):
        index = np.arange(n) // mode.size
        cells = cells * 1000 + index.reshape([n if a == axis else 1 for a in range(len(spatial))])
    for mask in masks_of(mode, spatial)[..., 0]:
        for cell in np.unique(cells):
            assert len(np.unique(mask[cells == cell])) == 1


def test_a_patch_may_have_a_size_for_each_axis():
    masks = masks_of(Patch(size=(1, 4)), (6, 8))[..., 0]
    grouped = masks.reshape(-1, 6, 2, 4)
    assert (grouped == grouped[..., :1]).all()
    assert (grouped[:, 1:] != grouped[:, :-1]).any()


@pytest.mark.parametrize("spatial", [(9, 7), (17,), (3, 4, 5)], ids=str)
def test_a_grid_is_a_lattice_of_equal_squares(spatial):
    unit = 4
    for mask in masks_of(Grid(unit=unit), spatial)[..., 0]:
        lines = list(profiles(mask))
        np.testing.assert_array_equal(mask, product(lines))
        for line in lines if mask.any() else ():
            np.testing.assert_array_equal(line[unit:], line[:-unit] if len(line) > unit else [])
        full = [int(line[:unit].sum()) for line in lines if len(line) >= unit]
        assert not mask.any() or len(set(full)) <= 1


@pytest.mark.parametrize("degrees", [30, 360])
def test_a_grid_turns_either_way_by_up_to_its_angle(degrees):
    size, unit, rate = 9, 5, 0.3
    keys = jax.random.split(jax.random.key(0), 8)
    masks = draw_masks(Grid(unit=unit, rotate=degrees), (size, size, 1), keys, rate)
    words = np.asarray(draw_words(keys, 4)) / 2**32
    for dropped, (_, turn, *shifts) in zip(~np.asarray(masks)[..., 0], words, strict=True):
        angle = np.deg2rad(degrees) * (2 * turn - 1)
        y, x = np.indices((size, size))
        along = (np.cos(angle) * y + np.sin(angle) * x) / unit + shifts[0]
        across = (np.cos(angle) * x - np.sin(angle) * y) / unit + shifts[1]
        # Where rounding cannot decide.
        clear = np.ones((size, size), bool)
        for place in (along, across):
            clear &= np.abs(place % 1 - np.sqrt(rate)) > 1e-4
            clear &= np.abs(place % 1 - 0.5) < 0.5 - 1e-4
        expected = (along % 1 < np.sqrt(rate)) & (across % 1 < np.sqrt(rate))
        np.testing.assert_array_equal(dropped[clear], expected[clear])
        assert clear.mean() > 0.95


def test_the_unit_of_a_grid_is_drawn_from_its_range():
    found = set()
    for mask in masks_of(Grid(unit=(3, 5)), (64,))[16:48, :, 0]:  # at rates that leave gaps
        rises = np.flatnonzero(np.diff(mask.astype(int)) == 1)
        found |= set(np.diff(rises))
    assert found == {3, 4, 5}


BANDS = [((17,), 0, 3), ((9, 7), 1, 1), ((9, 7), 0, 3), ((3, 4, 5), 1, 1), ((3, 4, 6), -1, 3)]


@pytest.mark.parametrize(("spatial", "axis", "count"), BANDS, ids=str)
def test_bands_run_across_the_whole_image(spatial, axis, count):
    most = 0
    for mask in masks_of(Band(axis=axis, count=count), spatial)[..., 0]:
        line = list(profiles(mask))[axis]
        assert (np.moveaxis(mask, axis, -1) == line).all()
        most = max(most, len(runs(line)))
    assert most == min(count, (spatial[axis] + 1) // 2)


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3), (4, 4, 0)], ids=str)
def test_an_image_without_pixels_has_a_mask_without_pixels(shape, key):
    modes = (Block(), Patch(), Patch(exact=True), Blocks(), Box(), Grid(), Band())
    for mask in jax.jit(lambda key: [mode.sample(key, shape, 0.5) for mode in modes])(key):
        assert np.broadcast_shapes(mask.shape, shape) == shape


ORDERED = "aspect_ratio must be (low, high) with 0 < low <= high; got "
RANGE = "aspect_ratio must be from 1e-9 to 1e9; got "
WRONG = [
    (Block, {"size": 0}, ValueError, "size must be at least 1; got 0."),
    (Block, {"size": ()}, ValueError, "size must not be empty; got ()."),
    (Block, {"size": (3, 0)}, ValueError, "size[1] must be at least 1; got 0."),
    (Block, {"size": 2.0}, TypeError, "size must be an int; got 2.0."),
    (Block, {"per_channel": 1}, TypeError, "per_channel must be a bool; got 1."),
    (Patch, {"size": "16"}, TypeError, "size must be an int; got '16'."),
    (Patch, {"exact": 1}, TypeError, "exact must be a bool; got 1."),
    (Box, {"count": 0}, ValueError, "count must be from 1 to 64; got 0."),
    (Box, {"count": 65}, ValueError, "count must be from 1 to 64; got 65. For more holes, take "),
    (Box, {"aspect_ratio": 2}, TypeError, "aspect_ratio must be a tuple of two numbers; got 2. P"),
    (Box, {"aspect_ratio": (2, 1)}, ValueError, ORDERED + "(2, 1)."),
    (Box, {"aspect_ratio": (0, 1)}, ValueError, ORDERED + "(0, 1)."),
    (Box, {"aspect_ratio": (1e-300, 1)}, ValueError, RANGE + "(1e-300, 1)."),
    (Box, {"aspect_ratio": (1, float("inf"))}, ValueError, RANGE + "(1, inf)."),
    (Box, {"border": "in"}, ValueError, "border must be one of 'inside', 'clip'; got 'in'."),
    (Grid, {"unit": 0}, ValueError, "unit must be in [1, 65537); got 0."),
    (Grid, {"unit": (1, 2**33)}, ValueError, "unit[1] must be in [1, 65537); got 8589934592."),
    (Grid, {"unit": (5, 3)}, ValueError, "unit must be (low, high) with low <= high; got (5, 3)."),
    (Grid, {"rotate": -1}, ValueError, "rotate must be in [0, 360]; got -1."),
    (Grid, {"rotate": "x"}, TypeError, "rotate must be a number of degrees; got 'x'."),
    (Band, {"axis": "x"}, TypeError, "axis must be an int; got 'x'."),
    (Band, {"count": 65}, ValueError, "count must be from 1 to 64; got 65."),
    (Blocks, {"size": 0}, ValueError, "size must be at least 1; got 0."),
    (Blocks, {"min_cells": 0}, ValueError, "min_cells must be at least 1; got 0."),
    (Blocks, {"aspect_ratio": (2, 1)}, ValueError, ORDERED + "(2, 1)."),
    (Pixel, {"per_channel": 1}, TypeError, "per_channel must be a bool; got 1."),
    (Channel, {"min_kept": -1}, ValueError, "min_kept must be at least 0; got -1."),
    (Channel, {"min_kept": True}, TypeError, "min_kept must be an int; got True."),
    (Channel, {"exact": None}, TypeError, "exact must be a bool; got None."),
]


def test_the_extremes_of_options_are_allowed():
    assert Box(count=64, aspect_ratio=(1e-9, 1e9)).count == Band(count=64).count == 64
    assert Grid(rotate=360).rotate == 360


@pytest.mark.parametrize(("kind", "given", "error", "text"), WRONG)
def test_a_wrong_option_is_refused(kind, given, error, text):
    assert_refused(kind, given, error, text)


UNFIT = [
    (Box(), (3,), "the element that Box drops from must have a spatial axis beside the channels;"),
    (Band(axis=2), (4, 4, 3), "Band.axis must name one of 2 axes; got 2"),
    (Band(axis=-3), (4, 4, 3), "Band.axis must name one of 2 axes; got -3"),
    (Block((3, 3)), (4, 3), "Block.size must have one size for each of 1 axes; got (3, 3)"),
    (Patch((3,)), (4, 4, 3), "Patch.size must have one size for each of 2 axes; got (3,)"),
    (Blocks((2,) * 3), (4,) * 4, "Blocks.size must have one size for each of 2 axes; got (2, 2,"),
    (Blocks(4), (8, 10, 3), "Blocks.size must divide the axes (8, 10); got 4. Pass a size that"),
    (Grid(rotate=5), (4, 3), "Grid.rotate must be 0 for an element with 1 spatial axes; got 5"),
    (Box(), (2**28 + 1, 3), "a spatial axis that boxes or bands are drawn on must have at most 26"),
    (Channel(groups=((0,), (1,))), (4, 3), "Channel.groups must hold each of the 3 channels; got"),
    (Channel(3, groups=((0, 2), (1,))), (4, 3), "Channel.min_kept must be at most the 2 groups; g"),
    (Channel(4), (2, 3), "Channel.min_kept must be at most the 3 channels; got 4"),
]


@pytest.mark.parametrize(("mode", "shape", "text"), UNFIT, ids=[text for _, _, text in UNFIT])
def test_an_element_that_does_not_fit_is_refused(mode, shape, text, key):
    with refuses(ValueError, text):
        mode.sample(key, shape, 0.5)
