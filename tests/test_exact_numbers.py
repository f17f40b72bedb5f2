"""Exact numbers of cells, channels and groups, and the rectangles of `Blocks`.

A statistical assertion fails on a right library with probability 1e-6 at most.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bounds import assert_counts
from cases import assert_refused, draw_masks, draw_words
from dropax import Blocks, Channel, Patch
from dropax.bits import GRID, drop_units
from dropax.modes.blocks import _RECTANGLES
from dropax.modes.counts import choose_lowest, draw_count, expected_count

RECORDS = 4096
LAST = 2**32 - 1
count_of = jax.jit(draw_count, static_argnums=2)


def kept(mode, shape, rate, records=RECORDS):
    """Keep masks of many records."""
    keys = jax.random.split(jax.random.key(5), records)
    return np.asarray(draw_masks(mode, shape, keys, rate))


def test_a_rate_that_is_a_whole_number_of_units_always_drops_that_number():
    cases = [(0.75, 196, 147), (0.6, 40, 24), (0.9, 1960, 1764), (0.1, 10, 1)]
    for units in (1, 3, 7, 10, 36, 49, 196, 1000, 65_536):
        for count in np.unique(np.linspace(0, units, 40).round().astype(int)):
            rates = count / units, np.float32(count / units), 1 - (units - count) / units
            cases += [(rate, units, count) for rate in rates]
    for rate, units, count in cases:
        assert {int(count_of(np.uint32(word), rate, units)) for word in (0, LAST)} == {count}


@pytest.mark.parametrize(("rate", "units"), [(0.6, 36), (0.9, 196), (1e-6, 3), (0.999, 7)])
def test_other_numbers_are_rounded_at_random_such_that_the_mean_is_right(rate, units):
    words = jnp.asarray((np.arange(2**16) + 0.5) * 2**16, jnp.uint32)  # evenly over all words
    counts = np.asarray(jax.jit(jax.vmap(lambda word: draw_count(word, rate, units)))(words))
    product = units * int(drop_units(rate)) / GRID
    assert set(counts) <= {math.floor(product), math.floor(product) + 1}
    assert counts.mean() == pytest.approx(product, abs=2**-16)
    assert float(expected_count(rate, units, units)) == pytest.approx(product, rel=1e-6)


def test_the_mean_of_a_number_that_is_cut_off_is_that_of_the_lesser():
    for rate, most in ((0.5, 3), (0.5, 2), (0.9, 4), (1.0, 0)):
        low = math.floor(rate * 5)
        share = rate * 5 - low
        expected = (1 - share) * min(low, most) + share * min(low + 1, most)
        assert float(expected_count(rate, 5, most)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("units", [0, 1, 2, 5, 64, 257])
def test_the_lowest_words_are_chosen_and_of_equal_ones_the_first(units):
    rng = np.random.default_rng(units)
    choose = jax.jit(choose_lowest)
    for words in (
        rng.integers(0, 2**32, units, np.uint32),
        rng.integers(0, 3, units).astype(np.uint32),
        np.full(units, LAST, np.uint32),
    ):
        order = np.argsort(words, kind="stable")
        for count in {0, 1, units // 3, units - 1, units} & set(range(units + 1)):
            expected = np.isin(np.arange(units), order[:count])
            np.testing.assert_array_equal(choose(words, np.uint32(count)), expected)


def test_every_set_of_cells_is_equally_likely():
    for rate, sizes in ((0.5, {2: 1.0}), (0.4, {1: 0.4, 2: 0.6})):
        masks = ~kept(Patch(size=2, exact=True), (4, 4, 3), rate)[:, ::2, ::2, 0].reshape(-1, 4)
        assert set(masks.sum(axis=1)) == set(sizes)
        for size, share in sizes.items():
            chance = share / math.comb(4, size)
            for chosen in itertools.combinations(range(4), size):
                wanted = np.isin(np.arange(4), chosen)
                assert_counts((masks == wanted).all(axis=1).sum(), RECORDS, chance)


def test_a_patch_drops_whole_cells_and_an_exact_number_of_them():
    mask = kept(Patch(size=(16, 8), exact=True), (40, 30, 3), 0.75, records=64)
    cells = np.pad(mask[..., 0], ((0, 0), (0, 8), (0, 2)), "edge").reshape(64, 3, 16, 4, 8)
    assert (cells == cells[:, :, :1, :, :1]).all()
    assert set((~cells[:, :, 0, :, 0]).sum(axis=(1, 2))) == {9}


def test_a_large_number_of_cells_takes_memory_in_proportion():
    draw = jax.jit(lambda key, rate: Patch(size=1, exact=True).sample(key, (2**20, 1), rate))
    key, rate = jax.random.key(0), jnp.float32(0.3)
    assert int((~draw(key, rate)).sum()) in {314_572, 314_573}  # 0.3 * 2^20 = 314572.8
    program = draw.lower(key, rate).compile()
    assert program.memory_analysis().temp_size_in_bytes < 16 * 2**20


@pytest.mark.parametrize("mode", [Patch(size=2, exact=True), Channel(exact=True)], ids=str)
def test_a_number_that_is_a_python_float_draws_the_bits_of_a_traced_one(mode, key):
    traced = jax.jit(lambda rate: mode.sample(key, (6, 4, 7), rate))
    for rate in (0.0, 0.5, 0.6, 3 / 7, 1.0):
        np.testing.assert_array_equal(traced(rate), mode.sample(key, (6, 4, 7), rate))
    assert traced._cache_size() == 1


GROUPS = ((0, 2), (1,), (3, 4, 5))


def test_channels_of_a_group_drop_together_and_groups_on_their_own():
    masks = ~kept(Channel(groups=GROUPS), (4, 4, 6), 0.3)[:, 0, 0]
    groups = np.stack([masks[:, group[0]] for group in GROUPS], axis=1)
    for number, group in enumerate(GROUPS):
        assert (masks[:, list(group)] == groups[:, number, None]).all()
    for pattern in np.ndindex(2, 2, 2):
        chance = math.prod(0.3 if gone else 0.7 for gone in pattern)
        assert_counts((groups == np.array(pattern, bool)).all(axis=1).sum(), RECORDS, chance)


def test_groups_of_one_channel_draw_what_channels_draw(key):
    apart = Channel(min_kept=1, groups=((0,), (1,), (2,)))
    for rate in (0.0, 0.4, 1.0):
        mask = Channel(min_kept=1).sample(key, (4, 4, 3), rate)
        np.testing.assert_array_equal(apart.sample(key, (4, 4, 3), rate), mask)


@pytest.mark.parametrize("least", [1, 2])
def test_channels_that_must_be_kept_are_and_none_is_preferred(least):
    masks = kept(Channel(min_kept=least), (4, 4, 3), 0.6)[:, 0, 0]
    counts = masks.sum(axis=1)
    assert counts.min() == least
    chances = [math.comb(3, k) * 0.4**k * 0.6 ** (3 - k) for k in range(4)]
    assert_counts((counts == least).sum(), RECORDS, sum(chances[: least + 1]))
    for channel in range(3):
        only = masks[counts == least][:, channel]
        assert_counts(only.sum(), only.size, least / 3)


@pytest.mark.parametrize("exact", [False, True])
def test_so_many_groups_are_kept(exact):
    mode = Channel(min_kept=1, exact=exact, groups=GROUPS)
    masks = kept(mode, (4, 4, 6), 0.9)[:, 0, 0]
    counts = masks[:, [0, 1, 3]].sum(axis=1)
    assert counts.min() == 1
    if exact:
        assert counts.max() == 1


WRONG = [
    ((0, 1), TypeError, "groups must be a tuple of tuples of channels; got (0, 1). Pass"),
    (((0,), 1), TypeError, "groups must be a tuple of tuples of channels; got ((0,), 1)"),
    (((0, 1), ()), ValueError, "groups[1] must hold a channel; got ()."),
    (((0, -1),), ValueError, "groups[0][1] must be at least 0; got -1."),
    (((0, 1.0),), TypeError, "groups[0][1] must be an int; got 1.0."),
    ((), ValueError, "groups must hold each channel from 0 on once; got ()"),
    (((0, 2),), ValueError, "groups must hold each channel from 0 on once; got ((0, 2),)"),
    (((0, 1), (1, 2)), ValueError, "groups must hold each channel from 0 on once; got ((0"),
]


@pytest.mark.parametrize(("groups", "error", "text"), WRONG, ids=str)
def test_what_is_no_grouping_of_channels_is_refused(groups, error, text):
    assert_refused(Channel, {"groups": groups}, error, text)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4, 0.5, 0.75, 0.95, 1.0])
def test_blocks_drop_an_exact_number_of_whole_cells(rate):
    masks = ~kept(Blocks(size=(2, 3)), (16, 30, 3), rate, records=256)
    assert masks.shape == (256, 16, 30, 1)
    cells = masks.reshape(256, 8, 2, 10, 3)
    assert (cells == cells[:, :, :1, :, :1]).all()
    assert set(cells[:, :, 0, :, 0].sum(axis=(1, 2))) == {round(rate * 80)}


def hidden(words, dropped, rows, columns, mode):
    """The documented rule on the words that a record draws, in floating point and in a loop."""
    low, high = mode.aspect_ratio
    first, words = int(words[0]), words[1:]
    of_rectangle, of_cell = words[: 4 * _RECTANGLES].reshape(-1, 4), words[4 * _RECTANGLES :]
    count, ranks = rows * columns, np.full((rows, columns), _RECTANGLES)
    least = min(mode.min_cells, dropped)
    for rank, word in enumerate(of_rectangle / 2**32):
        if rank % 8 == 0:  # a round: all is missing in the first one, an eighth in the others
            missing = dropped if rank == 0 else dropped // 8
        area = least + int(word[0] * (max(missing, least) - least + 1))
        share = max(1 - 1.25 * (dropped - missing) / count, 0)
        # As the code has it: a share of 1 is almost 2^32 words.
        share *= (2**32 - 1) // (4 * count) * 4 * count / 2**32
        missing -= min(missing, math.floor(round(share * area, 9)))
        ratio = low * (high / low) ** ((int(word[1] * 64) + 0.5) / 64)
        height = min(max(round(math.sqrt(area * ratio)), 1, math.ceil(area / columns)), rows)
        width = min(max(math.floor(area / height + 0.5), 1), columns)
        top, left = int(word[2] * (rows - height + 1)), int(word[3] * (columns - width + 1))
        part = ranks[top : top + height, left : left + width]
        part[part == _RECTANGLES] = rank
    row, column = np.indices(ranks.shape)
    row = rows - 1 - row if first & 1 else row
    column = columns - 1 - column if first & 2 else column
    place = column * rows + row if first & 4 else row * columns + column
    within = np.where(ranks < _RECTANGLES, place, of_cell.reshape(rows, columns) >> 6)
    order = np.lexsort((np.arange(count), within.ravel(), ranks.ravel()))
    mask = np.zeros(count, bool)
    mask[order[:dropped]] = True
    return mask.reshape(rows, columns)


@pytest.mark.parametrize(
    ("mode", "rows", "columns"),
    [(Blocks(1), 14, 14), (Blocks(1, (0.1, 9), min_cells=9), 5, 12), (Blocks(1), 1, 30)],
    ids=str,
)
def test_blocks_are_placed_by_the_documented_rule(mode, rows, columns):
    rate = 0.4
    size = 1 + 4 * _RECTANGLES + rows * columns
    keys = jax.random.split(jax.random.key(0), 32)
    masks = ~np.asarray(draw_masks(mode, (rows, columns, 1), keys, rate))[..., 0]
    for mask, own in zip(masks, np.asarray(draw_words(keys, size), np.int64), strict=True):
        expected = hidden(own, int(mask.sum()), rows, columns, mode)
        np.testing.assert_array_equal(mask, expected)


def test_along_a_third_axis_the_same_cells_drop_and_one_axis_has_intervals():
    tubes = Blocks(size=2).sample(jax.random.key(0), (5, 8, 8, 3), 0.5)
    assert tubes.shape == (1, 8, 8, 1)
    assert int((~tubes).sum()) == 32
    lines = ~kept(Blocks(size=1, min_cells=4), (64, 1), 0.25, records=128)[..., 0]
    assert set(lines.sum(axis=1)) == {16}
    edges = np.diff(lines.astype(int), axis=1).clip(0).sum(axis=1) + lines[:, 0]
    assert edges.mean() < 5  # single values would have 12
