"""The rate is the expected dropped fraction in every mode, on every shape, and drops are uniform.

Calibration is checked twice: exactly, against all positions that a mode can take, and by
sampling. A statistical assertion fails on a right library with probability 1e-6 at most.
"""

import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bounds import assert_counts
from cases import draw_masks, draw_words
from dropax import Band, Block, Blocks, Box, Grid, Inverted, OneOf, Patch
from dropax.bits import GRID, drop_units
from dropax.modes import calibration
from dropax.modes.block import _levels as block_levels
from dropax.modes.calibration import box_fractions, largest_side
from dropax.modes.rectangles import size_levels as box_levels

RECORDS = 4096
KEYS = jax.random.split(jax.random.key(0), RECORDS)
RATES = [0.0, 0.02, 0.1, 0.5, 0.9, 1.0]
# Each mode on an image or, if it has another case there, on an element of other axes; what has a
# table for each axis also where it is a single pixel.
CASES = [
    (Block(), (33,)),
    (Block(size=3, per_channel=True), (9, 8)),
    (Patch(size=4), (9, 8)),
    (Patch(size=4), (33,)),
    (Box(), (9, 9)),
    (Box(count=3, aspect_ratio=(0.3, 3.3)), (9, 8)),
    (Box(count=(1, 4), aspect_ratio=(0.5, 2)), (9, 8)),
    (Box(count=(2, 3), border="clip"), (33,)),
    (Box(count=2, border="clip"), (5, 6, 7)),
    (Box(count=2, border="clip"), (1, 1)),
    (Grid(unit=5), (33,)),
    (Grid(unit=(3, 8)), (9, 8)),
    (Grid(unit=6, rotate=45), (9, 8)),
    (Band(), (33,)),
    (Band(axis=-1, count=3), (9, 8)),
    (Patch(size=4, exact=True), (9, 8)),
    (Blocks(size=1), (4, 5)),
    (OneOf((Block(size=2), "band"), weights=(1, 3)), (9, 8)),
    (Inverted(Box(count=2)), (9, 8)),
]


def dropped(mode, spatial, rate):
    """Where records drop, in the first channel, bool of shape (RECORDS, *spatial)."""
    masks = np.asarray(draw_masks(mode, (*spatial, 2), KEYS, rate))
    return np.broadcast_to(~masks[..., 0], (RECORDS, *spatial))


@pytest.mark.parametrize(("mode", "spatial"), CASES, ids=str)
def test_the_mean_dropped_fraction_is_the_rate(mode, spatial):
    for rate in RATES:
        # Along an axis on which all values drop together, one stands for all.
        kept = np.asarray(draw_masks(mode, (*spatial, 2), KEYS, rate)).reshape(RECORDS, -1)
        fractions = 1 - np.count_nonzero(kept, axis=1) / kept.shape[1]
        if rate in (0.0, 1.0):
            assert (fractions == rate).all()
        else:
            assert_counts(fractions.sum(), RECORDS, rate)


TIGHT = [Box(), Band(), Grid(), Blocks(size=8), Patch(size=8, exact=True)]
LOOSE = [Box(count=2), Box(border="clip"), Band(count=2), Block(), Patch(size=8)]


@pytest.mark.parametrize("mode", TIGHT + LOOSE, ids=str)
def test_the_documented_modes_keep_to_a_range_of_rates_in_every_record(mode):
    rates = np.linspace(0.2, 0.3, 256, dtype=np.float32)
    draw = jax.vmap(lambda key, rate: mode.sample(key, (64, 64, 1), rate).mean())
    dropped = 1 - np.asarray(draw(KEYS[:256], rates))
    assert (abs(dropped - rates).max() < 0.035) == (mode in TIGHT)


UNIFORM = [case for case in CASES if isinstance(case[0], Patch | Grid)]


@pytest.mark.parametrize(("mode", "spatial"), UNIFORM, ids=str)
def test_every_pixel_of_a_patch_or_a_grid_drops_at_the_rate(mode, spatial):
    drops = dropped(mode, spatial, 0.3)
    assert_counts(drops.sum(axis=0), RECORDS, 0.3)


def test_boxes_and_bands_start_anywhere_equally_often():
    # Rates that one size reaches exactly: three positions of 33, and two by two of nine by nine.
    drops = dropped(Band(), (33,), 3 / 33)
    assert (drops.sum(axis=1) == 3).all()
    assert_counts(np.bincount(drops.argmax(axis=1), minlength=31), RECORDS, 1 / 31)
    drops = dropped(Box(), (9, 9), 4 / 81)
    corners = drops.any(axis=2).argmax(axis=1) * 9 + drops.any(axis=1).argmax(axis=1)
    allowed = [9 * y + x for y in range(8) for x in range(8)]
    counts = np.bincount(corners, minlength=81)
    assert counts.sum() == counts[allowed].sum()
    assert_counts(counts[allowed], RECORDS, 1 / 64)


def test_each_number_of_boxes_of_a_range_is_as_likely_and_drops_as_much():
    # Of 12 boxes and of none, few positions are covered twice: their number is that of the boxes.
    drops = dropped(Box(count=(1, 3)), (4096,), 1 / 256)
    found = np.diff(drops, axis=1, prepend=False).sum(axis=1)
    starts = np.ceil(found / 2).astype(int)
    for count in (1, 2, 3):
        apart = starts == count
        # Two boxes of some 5 to 16 of 4,096 positions meet in less than one record in 64.
        assert abs(apart.mean() - 1 / 3) < 1 / 64 + 5 * np.sqrt(2 / 9 / RECORDS)
        assert drops[apart].mean() == pytest.approx(1 / 256, rel=0.03)
    assert set(starts) <= {1, 2, 3}


def test_records_and_axes_are_drawn_independently():
    drops = dropped(Box(), (9, 9), 4 / 81)
    starts = drops.any(axis=2).argmax(axis=1), drops.any(axis=1).argmax(axis=1)
    pairs = np.bincount(starts[0] // 4 * 2 + starts[1] // 4, minlength=4)
    assert_counts(pairs, RECORDS, 1 / 4)
    following = np.bincount(starts[0][:-1:2] // 4 * 2 + starts[0][1::2] // 4, minlength=4)
    assert_counts(following, RECORDS // 2, 1 / 4)


EVENLY = jnp.asarray((np.arange(2**16) + 0.5) * 2**16, jnp.uint32)  # over all words


def intervals(size, side, border):
    """Every interval that is drawn, each equally likely."""
    firsts = range(size - side + 1) if border == "inside" else range(-(side // 2), size - side // 2)
    for first in firsts:
        yield [first <= position < first + side for position in range(size)]


@pytest.mark.parametrize("border", ["inside", "clip"])
@pytest.mark.parametrize("count", [1, 2])
def test_boxes_cover_what_the_table_says_over_all_positions(border, count):
    spatial = (3, 4)
    for sides in itertools.product(*(range(1, largest_side(n, border) + 1) for n in spatial)):
        axes = [list(intervals(n, s, border)) for n, s in zip(spatial, sides, strict=True)]
        boxes = [np.outer(rows, columns) for rows, columns in itertools.product(*axes)]
        unions = [np.any(chosen, axis=0) for chosen in itertools.product(boxes, repeat=count)]
        table = box_fractions(np.array([sides]), spatial, count, border)[0]
        assert table == pytest.approx(np.mean(unions), abs=1e-12)
        several = box_fractions(np.array([sides]), spatial, (1, 2), border)[0]
        assert several[count - 1] == pytest.approx(table, abs=1e-12)


@pytest.mark.parametrize("border", ["inside", "clip"])
@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_a_few_points_of_an_axis_stand_for_all_of_them(border, count):
    for size in (1, 2, 3, 8, 13, 50):
        sides = np.arange(largest_side(size, border) + 1)
        every = np.arange(count + 1)
        table = calibration.coverage(sides, size, border, every[:, None], every)
        covers = [np.sum([*intervals(size, side, border)], axis=0) for side in sides]
        starts = [len([*intervals(size, side, border)]) for side in sides]
        hits = np.stack(covers) / np.array(starts)[:, None]
        for total, chosen in {(1, 0), (1, 1), (count, 0), (count, count // 2), (count, count)}:
            ways = math.comb(total, chosen)
            expected = (ways * hits**chosen * (1 - hits) ** (total - chosen)).mean(axis=1)
            np.testing.assert_allclose(table[:, total, chosen], expected, atol=1e-12)


@pytest.mark.parametrize("degree", [1, 2, 9, 50, 64])
def test_a_gauss_rule_is_exact_for_polynomials_on_runs_of_integers(degree):
    least = calibration.longest_sum(degree) + 1
    lengths = np.array([*range(least, least + 40), 1000, 4096, 30_000])
    points, weights = calibration.gauss_rule(lengths, degree)
    for length, places, shares in zip(lengths, points, weights, strict=True):
        run = np.arange(length) / length
        for power in {0, 1, degree // 2, degree}:
            for values, sampled in ((run, places / length), (1 - run, 1 - places / length)):
                expected = np.mean(values**power)
                assert shares @ sampled**power == pytest.approx(expected, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("size", [2 * 10**4, 2 * 10**5])
def test_on_a_long_axis_the_two_nearest_sizes_are_drawn_and_their_mean_is_the_rate(size):
    # More sizes than have a level of their own, so that many lie between two levels. Rates count
    # in 2^-23, of which one is up to 1/42 of a position here.
    units, sides = (table[0] for table in box_levels((size,), 1, (1, 1), "inside"))
    pick = jax.jit(jax.vmap(calibration.pick_sides, (0, None, None, None)))
    for rate in (5e-5, 1.65e-4, 0.0123, 0.1, 0.12347, 0.77):
        drawn = np.asarray(pick(EVENLY, rate, units, sides))
        nearest = int(drop_units(rate)) / GRID * size
        assert np.abs(drawn - nearest).max() < 1.03
        assert len(set(drawn.ravel())) <= 2
        assert drawn.mean() == pytest.approx(nearest, abs=2**-15 + size / GRID)


# (mode, batch), at rates that are traced. Of more boxes the table is as large.
LARGE = [
    (Box(count=8, aspect_ratio=(0.3, 3.3)), (8, 256, 256, 256, 1)),
    (Block(size=4000), (2, 8000, 8000, 3)),
    (Band(count=50), (16, 10**6, 1)),
    (Box(count=2), (1, 2**28, 1)),
    (Grid(unit=(1, 65536)), (2, 4096, 4096, 3)),
    (Blocks(), (2, 4096, 4096, 3)),
]


@pytest.mark.parametrize(("mode", "shape"), LARGE, ids=str)
def test_tables_take_a_hundredth_of_a_large_batch(mode, shape, monkeypatch):
    # Linear algebra starts threads, which take seconds to find a core on a busy machine.
    monkeypatch.setattr(np.linalg, "eigh", None)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), shape[0]))
    masks = jax.vmap(lambda key, rate: mode.sample(key, shape[1:], rate), (0, None))
    program = jax.jit(masks).lower(keys, jax.ShapeDtypeStruct((), jnp.float32)).as_text()
    tables = [len(digits) // 2 for digits in re.findall(r'dense<"0x(\w+)"', program)]  # bytes
    assert 0 < sum(tables) < 0.01 * math.prod(shape)


def test_a_turned_lattice_drops_as_much_on_a_long_axis_as_in_double_precision():
    rate, degrees, size = 0.01, 10, 100_000
    masks = draw_masks(Grid(unit=1, rotate=degrees), (1, size, 1), KEYS[:16], rate)
    exact = []
    for _, turn, *shifts in np.asarray(draw_words(KEYS[:16], 4)) / 2**32:
        angle, x = np.deg2rad(degrees) * (2 * turn - 1), np.arange(size)
        places = np.sin(angle) * x + shifts[0], np.cos(angle) * x + shifts[1]
        exact.append(np.mean((places[0] % 1 < rate**0.5) & (places[1] % 1 < rate**0.5)))
    assert 1 - np.asarray(masks).mean() == pytest.approx(np.mean(exact), rel=0.002)


def test_an_axis_of_a_million_positions_costs_no_more_than_a_short_one():
    size, sides = 10**6, np.array([1, 10, 1000, 333_333, 10**6])
    one = box_fractions(sides[:, None], (size,), 1, "inside")
    np.testing.assert_allclose(one, sides / size, atol=1e-15)
    many = box_fractions(np.array([[1000]]), (size,), 64, "inside")[0]
    from_an_end = np.arange(1, size + 1)
    covers = np.minimum(np.minimum(from_an_end, from_an_end[::-1]), 1000)
    expected = np.mean(1 - (1 - covers / (size - 999)) ** 64)
    assert many == pytest.approx(expected, abs=1e-12)
    for mode in (Box(count=2), Block(), Grid()):
        mask = mode.sample(jax.random.key(0), (size, 1), 0.25)
        assert 0.15 < 1 - np.asarray(mask).mean() < 0.35


@pytest.mark.parametrize(
    ("spatial", "sides"), [((9,), (3,)), ((6, 5), (3, 2)), ((4, 4, 3), (2,) * 3)]
)
def test_blocks_drop_what_the_levels_say(spatial, sides):
    units, thresholds = block_levels(spatial, sides)
    assert (np.diff(units.astype(np.int64)) >= 0).all()
    assert (units[0], units[-1]) == (0, GRID)
    pairs = zip(spatial, sides, strict=True)
    axes = [np.sum(list(intervals(*pair, "inside")), axis=0) for pair in pairs]
    covers = axes[0]
    for axis in axes[1:]:
        covers = np.multiply.outer(covers, axis)
    for level in (1, 100, 700, 1023):
        expected = np.mean(1 - (1 - thresholds[level] / 2**32) ** covers)
        assert units[level] / GRID == pytest.approx(expected, abs=2**-22)


def test_a_level_is_drawn_as_often_as_makes_up_the_difference():
    units = calibration.fraction_units(np.array([0.0, 0.2, 0.5, 1.0]))
    pick = jax.jit(jax.vmap(calibration.pick_level, (0, None, None)))
    for rate in (0.0, 0.05, 0.2, 0.4, 0.5, 0.9, 1.0):
        levels = np.asarray(pick(EVENLY, rate, units))
        assert units[levels].mean() / GRID == pytest.approx(rate, abs=2**-15)
        assert len(set(levels)) <= 2
    # A rate that is a level draws no other.
    assert set(np.asarray(pick(EVENLY, 0.2, units))) == {1}
