"""Presets against their papers' rules, written out slowly."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bounds import assert_counts
from dropax import Block, Box, Grid, generate_random_params, presets

RECORDS = 4096


def dropped(config, spatial):
    shapes = {"image": (RECORDS, *spatial, 3)}
    draw = jax.jit(lambda key: generate_random_params(config, key, shapes)["keep_mask"])
    masks = ~np.asarray(draw(jax.random.key(2)))
    return np.broadcast_to(masks, (RECORDS, *spatial, masks.shape[-1]))[..., 0]


def spans(drops):
    """First position and length along both axes of the one rectangle of each record."""
    for axis in (1, 2):
        lines = drops.any(axis=3 - axis)
        yield lines.argmax(axis=1), lines.sum(axis=1)


def compare(ours, theirs, bounds):
    """Compares two samples by how many lie below some bounds: each with half of the doubt."""
    for bound in bounds:
        chance = (theirs < bound).mean()
        if 0.01 < chance < 0.99:
            # Their sample is sixteen times as large, so its own error adds a quarter at most.
            counts = np.array([(ours < bound).sum()])
            deviation = math.sqrt(len(ours) * chance * (1 - chance))
            assert abs(counts - len(ours) * chance).max() < 7 * deviation


@pytest.mark.parametrize("length", [8, 16, 20])
def test_cutout_is_that_of_the_paper(length):
    config = presets.cutout("image", image_shape=(32, 32), length=length)
    drops = dropped(config, (32, 32))
    # The paper: a centre anywhere, and from length // 2 before it to length // 2 past it, clipped.
    rule = []
    for centre in range(32):
        low, high = np.clip([centre - length // 2, centre + length // 2], 0, 32)
        rule.append((int(low), int(high - low)))
    for found in spans(drops):
        pairs = list(zip(*(part.tolist() for part in found), strict=True))
        assert set(pairs) <= set(rule)
        for pair in set(rule):
            assert_counts(pairs.count(pair), RECORDS, rule.count(pair) / 32)
    assert_counts(drops.mean(axis=(1, 2)).sum(), RECORDS, config.dropout_rate)


def test_the_known_fraction_of_cutout():
    rates = [presets.cutout("i", image_shape=(32, 32), length=n).dropout_rate for n in (8, 16, 20)]
    assert [round(rate, 3) for rate in rates] == [0.055, 0.191, 0.278]


def test_several_holes_are_placed_each_on_its_own():
    config = presets.cutout("image", image_shape=(32, 32), length=8, holes=4)
    assert config.mode == Box(count=4, border="clip")
    drops = dropped(config, (32, 32))
    covers = np.zeros(32)
    for centre in range(32):
        covers[max(0, centre - 4) : centre + 4] += 1 / 32
    expected = 1 - (1 - np.outer(covers, covers)) ** 4
    assert_counts(drops.sum(axis=0), RECORDS, expected)


def erase(rng, height, width, scale, ratio):
    """The paper's rule: draw area and aspect ratio, and again until the rectangle fits."""
    while True:
        area = rng.uniform(*scale) * height * width
        aspect = math.exp(rng.uniform(*map(math.log, ratio)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            return h, w, rng.integers(height - h + 1), rng.integers(width - w + 1)


def test_random_erasing_is_that_of_the_paper():
    # Areas up to a tenth: larger ones may not fit, where the paper draws again and this gives way.
    scale, ratio = (0.02, 0.1), (0.3, 3.3)
    config = presets.random_erasing("image", scale=scale, ratio=ratio, probability=1.0)
    drops = dropped(config, (96, 96))
    rng = np.random.default_rng(0)
    theirs = np.array([erase(rng, 96, 96, scale, ratio) for _ in range(16 * RECORDS)])
    (top, height), (left, width) = spans(drops)
    compare(height * width / 96**2, theirs[:, 0] * theirs[:, 1] / 96**2, np.linspace(0.03, 0.09, 7))
    compare(
        np.log(height / width), np.log(theirs[:, 0] / theirs[:, 1]), np.linspace(-1, 1, 9) + 0.02
    )
    for start, side, rule in ((top, height, theirs[:, 2]), (left, width, theirs[:, 3])):
        assert (start + side <= 96).all()
        compare(start, rule, range(5, 90, 10))


def test_gridmask_is_that_of_the_paper():
    config = presets.gridmask("image", unit=(12, 20), ratio=0.6, rotate=0, probability=1.0)
    drops = dropped(config, (64, 64))
    # The paper: squares of unit * (1 - ratio), of which only whole pixels are drawn.
    sides = []
    for line in drops.any(axis=2):
        rises, falls = (np.flatnonzero(np.diff(line.astype(int)) == sign) for sign in (1, -1))
        units = set(np.diff(rises)) | set(np.diff(falls))
        assert len(units) == 1
        side = int((falls[falls > rises[0]][0]) - rises[0])
        sides.append((units.pop(), side))
    for unit in range(12, 21):
        found = [side for own, side in sides if own == unit]
        assert_counts(len(found), RECORDS, 1 / 9)
        assert set(found) <= {math.floor(unit * 0.4), math.floor(unit * 0.4) + 1}
    assert_counts(drops.sum(axis=0), RECORDS, 0.16)


def test_a_turned_gridmask_drops_as_much_and_everywhere():
    drops = dropped(presets.gridmask("image", unit=(12, 20), probability=1.0), (32, 32))
    assert_counts(drops.sum(axis=0), RECORDS, 0.16)


def test_dropblock_is_that_of_the_paper_with_overlaps_counted():
    config = presets.dropblock("image", rate=0.1, block_size=7)
    assert (config.mode, config.rescale) == (Block(size=7), True)
    drops = dropped(config, (14, 14))
    rng = np.random.default_rng(0)
    # The paper's seeds at a probability for which, with overlaps, a tenth drops.
    starts = np.zeros((14, 14, 8, 8), bool)
    for y, x in np.ndindex(8, 8):
        starts[y : y + 7, x : x + 7, y, x] = True
    low, high = 0.0, 1.0
    for _ in range(50):
        gamma = (low + high) / 2
        mean = (1 - (1 - gamma) ** starts.sum(axis=(2, 3))).mean()
        low, high = (gamma, high) if mean < 0.1 else (low, gamma)
    seeds = rng.random((RECORDS, 64)) < gamma
    theirs = (seeds.astype(np.float32) @ starts.reshape(196, 64).T.astype(np.float32)) > 0
    expected = 1 - (1 - gamma) ** starts.sum(axis=(2, 3))
    assert_counts(drops.sum(axis=0), RECORDS, expected)
    assert_counts((~drops.any(axis=(1, 2))).sum(), RECORDS, (1 - gamma) ** 64)
    assert_counts((~theirs.any(axis=1)).sum(), RECORDS, (1 - gamma) ** 64)


def test_options_of_the_config_are_taken_and_the_papers_own_can_be_changed():
    config = presets.random_erasing("a.b", fill="noise", apply_probability=1.0, seed=3)
    assert (config.field_key, config.fill, config.apply_probability) == ("a.b", "noise", 1.0)
    assert presets.gridmask("i").mode == Grid(unit=(96, 223), rotate=360)
    assert presets.dropblock("i", rate=jnp.float32(0.2), rescale=False).rescale is False


WRONG = [
    (
        lambda: presets.cutout("i", image_shape=32),
        TypeError,
        "cutout.image_shape must be a tuple of sizes; got 32.",
    ),
    (
        lambda: presets.cutout("i", image_shape=()),
        ValueError,
        "cutout.image_shape must have an axis; got ().",
    ),
    (
        lambda: presets.cutout("i", image_shape=(32, 0)),
        ValueError,
        "cutout.image_shape[1] must be at least 1; got 0.",
    ),
    (
        lambda: presets.cutout("i", image_shape=(32, 32), length=0),
        ValueError,
        "cutout.length must be at least 1; got 0.",
    ),
    (
        lambda: presets.cutout("i", image_shape=(32, 32), holes=65),
        ValueError,
        "cutout.holes must be in [1, 65); got 65.",
    ),
    (
        lambda: presets.gridmask("i", ratio="x"),
        TypeError,
        "gridmask.ratio must be a number; got 'x'.",
    ),
    (
        lambda: presets.gridmask("i", ratio=2),
        ValueError,
        "gridmask.ratio must be in [0, 1]; got 2.",
    ),
]


@pytest.mark.parametrize(("make", "error", "text"), WRONG, ids=[text for *_, text in WRONG])
def test_a_wrong_argument_is_refused(make, error, text):
    with pytest.raises(error) as refused:
        make()
    assert str(refused.value) == text
