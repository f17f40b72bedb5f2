"""Presets against their papers' rules, written out slowly."""

import functools
import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropax
from bounds import assert_counts
from cases import assert_refused, draw_masks
from dropax import Band, Block, Blocks, Box, Grid, Patch, Shared, generate_random_params, presets
from dropax.kit.serialization import plain

RECORDS = 4096


def dropped(config, spatial):
    shapes = {"image": (RECORDS, *spatial, 3)}
    masks = ~np.asarray(generate_random_params(config, jax.random.key(2), shapes)["keep_mask"])
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


@pytest.mark.parametrize("length", [4, 8, 10])
def test_cutout_is_that_of_the_paper(length):
    config = presets.cutout("image", image_shape=(16, 16), length=length)
    drops = dropped(config, (16, 16))
    # The paper: a centre anywhere, and from length // 2 before it to length // 2 past it, clipped.
    rule = []
    for centre in range(16):
        low, high = np.clip([centre - length // 2, centre + length // 2], 0, 16)
        rule.append((int(low), int(high - low)))
    for found in spans(drops):
        pairs = list(zip(*(part.tolist() for part in found), strict=True))
        assert set(pairs) <= set(rule)
        for pair in set(rule):
            assert_counts(pairs.count(pair), RECORDS, rule.count(pair) / 16)
    assert_counts(drops.mean(axis=(1, 2)).sum(), RECORDS, config.dropout_rate)


def erase(rng, height, width, scale, ratio):
    """The paper's rule for many images: area and aspect ratio, all of them of boxes that fit."""
    area = rng.uniform(*scale, 16 * RECORDS) * height * width
    aspect = np.exp(rng.uniform(*np.log(ratio), 16 * RECORDS))
    h, w = (np.sqrt(square).round().astype(int) for square in (area * aspect, area / aspect))
    assert (h < height).all()
    assert (w < width).all()
    return h, w, rng.integers(height - h + 1), rng.integers(width - w + 1)


def test_random_erasing_is_that_of_the_paper():
    # Areas up to a tenth: larger ones may not fit, where the paper draws again and this gives way.
    scale, ratio = (0.02, 0.1), (0.3, 3.3)
    config = presets.random_erasing("image", scale=scale, ratio=ratio, probability=1.0)
    drops = dropped(config, (96, 96))
    theirs = erase(np.random.default_rng(0), 96, 96, scale, ratio)
    (top, height), (left, width) = spans(drops)
    compare(height * width / 96**2, theirs[0] * theirs[1] / 96**2, np.linspace(0.03, 0.09, 7))
    compare(np.log(height / width), np.log(theirs[0] / theirs[1]), np.linspace(-1, 1, 9) + 0.02)
    for start, side, rule in ((top, height, theirs[2]), (left, width, theirs[3])):
        assert (start + side <= 96).all()
        compare(start, rule, range(5, 90, 10))


def coarse_holes(rng, image_shape, num_holes_range, hole_height_range, hole_width_range):
    """The holes of albumentations' CoarseDropout, image by image."""
    masks = np.zeros((4 * RECORDS, *image_shape), bool)
    for mask in masks:
        count = rng.integers(num_holes_range[0], num_holes_range[1] + 1)
        sides = []
        for size, (low, high) in zip(
            image_shape, (hole_height_range, hole_width_range), strict=True
        ):
            if isinstance(low, int):
                sides.append(rng.integers(low, min(high, size) + 1, size=count))
            else:
                sides.append((size * rng.uniform(low, high, size=count)).astype(int))
        for h, w in zip(*sides, strict=True):
            top, left = (
                rng.integers(0, n - s + 1) for n, s in zip(image_shape, (h, w), strict=True)
            )
            mask[top : top + h, left : left + w] = True
    return masks


@pytest.mark.parametrize(
    ("counts", "heights", "widths"),
    [((1, 2), (0.1, 0.2), (0.15, 0.3)), ((2, 5), (2, 6), (3, 40)), ((3, 3), (5, 5), (4, 4))],
    ids=str,
)
def test_coarse_dropout_is_that_of_albumentations_but_for_one_size_of_holes(
    counts, heights, widths
):
    options = {"num_holes_range": counts, "hole_height_range": heights, "hole_width_range": widths}
    config = presets.coarse_dropout("image", image_shape=(24, 20), probability=1.0, **options)
    drops = dropped(config, (24, 20)).mean(axis=(1, 2))
    theirs = coarse_holes(np.random.default_rng(0), (24, 20), **options)
    theirs = theirs.mean(axis=(1, 2))
    rate = np.mean(config.dropout_rate)
    assert_counts(drops.sum(), RECORDS, rate)
    assert_counts(theirs.sum(), len(theirs), rate)
    assert drops.std() == pytest.approx(theirs.std(), rel=0.2, abs=0.002)
    if counts == (3, 3):
        assert config.mode.aspect_ratio == pytest.approx((5 / 4, 5 / 4))
        options["num_holes_range"] = (1, 1)
        one = presets.coarse_dropout("image", image_shape=(24, 20), probability=1.0, **options)
        assert one.dropout_rate == pytest.approx(20 / 480)
        (_, height), (_, width) = spans(dropped(one, (24, 20)))
        assert (set(height), set(width)) == ({5}, {4})


def test_gridmask_is_that_of_the_paper():
    config = presets.gridmask("image", unit=(12, 20), ratio=0.6, rotate=0, probability=1.0)
    drops = dropped(config, (48, 20))
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
    drops = dropped(presets.gridmask("image", unit=(12, 20), probability=1.0), (16, 16))
    assert_counts(drops.sum(axis=0), RECORDS, 0.16)


def tokens(config, spatial, patch):
    """Which patches drop, bool of shape (RECORDS, patches); each drops as a whole."""
    drops = dropped(config, spatial)
    rows, columns = spatial[0] // patch, spatial[1] // patch
    cells = drops.reshape(RECORDS, rows, patch, columns, patch)
    assert (cells == cells[:, :, :1, :, :1]).all()
    return cells[:, :, 0, :, 0].reshape(RECORDS, rows * columns)


PATCHES = [
    # The papers drop these numbers of 36 patches: 36 - int(36 * (1 - 0.75)) = 27, and
    # ceil(36 * 0.6) = 22 and int(36 * 0.9) = 32, which a rate is right for in the mean.
    (presets.mae, {}, Patch(16, exact=True), 0.75, {27}),
    (presets.simmim, {}, Patch(32, exact=True), 0.6, {21, 22}),
    (presets.simmim, {"rate": 22 / 36}, Patch(32, exact=True), 22 / 36, {22}),
    (presets.videomae, {}, Shared(Patch(16, exact=True), axes=0), 0.9, {32, 33}),
    (presets.videomae, {"rate": 32 / 36}, Shared(Patch(16, exact=True), axes=0), 32 / 36, {32}),
]


# That each set of so many patches is as likely is tested in test_exact_numbers.py.
@pytest.mark.parametrize(("preset", "given", "mode", "rate", "counts"), PATCHES)
def test_patches_drop_in_the_number_of_the_paper_but_for_rounding(
    preset, given, mode, rate, counts, key
):
    config = preset("image", **given)
    assert (config.mode_object, config.dropout_rate) == (mode, rate)
    shapes = {"image": (256, *[4] * (preset is presets.videomae), 24, 24, 3)}
    config = preset("image", patch_size=4, **given)
    drops = ~np.asarray(generate_random_params(config, key, shapes)["keep_mask"])
    assert set(drops.reshape(256, -1).sum(axis=1) / 16) == counts


def beit_mask(rng, side, most, least, ratio):
    """The masking generator of the paper's code: (side, side) patches, at most `most` of them."""
    mask, count = np.zeros((side, side), bool), 0
    while count < most:
        added = 0
        for _ in range(10):
            area = least + (most - count - least) * rng.random()
            aspect = math.exp(rng.uniform(*map(math.log, ratio)))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if w < side and h < side:
                top, left = rng.randrange(side - h + 1), rng.randrange(side - w + 1)
                part = mask[top : top + h, left : left + w]
                if 0 < part.size - part.sum() <= most - count:
                    added = part.size - part.sum()
                    part[:] = True
                    break
        if added == 0:
            break
        count += added
    return mask


def test_beit_is_like_that_of_the_paper():
    # 75 of 14 x 14 patches, as in its code; ours always, theirs at most.
    ours = tokens(presets.beit("image", rate=75 / 196, patch_size=1), (14, 14), 1)
    assert set(ours.sum(axis=1)) == {75}
    ours = ours.reshape(-1, 14, 14)
    rng = random.Random(0)
    theirs = np.array([beit_mask(rng, 14, 75, 16, (0.3, 1 / 0.3)) for _ in range(RECORDS)])
    assert theirs.sum(axis=(1, 2)).max() == 75
    assert theirs.sum(axis=(1, 2)).mean() > 74
    # How often each patch is hidden, from 0.04 in a corner to 0.7 in the middle: apart by 0.06 at
    # most, as rectangles that do not fit give way here and are drawn again there. Standard errors
    # are below 0.011 for the difference.
    hidden, expected = ours.mean(axis=0), theirs.mean(axis=0)
    assert np.abs(hidden - expected).max() < 0.06 + 5 * 0.011
    assert np.abs(hidden - expected).mean() < 0.03
    assert hidden.min() > 0.04
    # Rectangles are as large: so many borders between hidden and shown patches there are.
    for axis in (1, 2):
        borders = [np.diff(masks, axis=axis).sum(axis=(1, 2)).mean() for masks in (ours, theirs)]
        assert borders[0] == pytest.approx(borders[1], rel=0.15)
    scattered = np.random.default_rng(0).random((RECORDS, 14, 14)) < 75 / 196
    assert np.diff(scattered, axis=2).sum(axis=(1, 2)).mean() > 3 * borders[0]


def test_drop_path_is_that_of_the_paper():
    config = presets.drop_path("branch", rate=0.2)
    branch = np.tile(np.arange(1, RECORDS + 1, dtype=np.float32)[:, None, None, None], (2, 2, 3))
    state = dropax.init_state(config, jax.random.key(0))
    batch, _ = dropax.apply_batch(config, state, {"branch": branch})
    out = np.asarray(batch["branch"])
    # The usual code: x / keep * bernoulli(keep), one draw a record.
    kept = out[:, 0, 0, 0] != 0
    expected = branch / np.float32(0.8) * kept[:, None, None, None]
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert_counts(kept.sum(), RECORDS, 0.8)


def test_spec_augment_is_that_of_the_paper():
    configs = presets.spec_augment(
        "image", spectrogram_shape=(20, 12), freq_mask_max_bins=6, time_mask_max_frames=10
    ).configs
    assert [config.mode for config in configs] == [Band(axis=1)] * 2 + [Band(axis=0)] * 2
    for config, axis, size, widest in ((configs[0], 2, 12, 6), (configs[2], 1, 20, 10)):
        drops = dropped(config, (20, 12))
        lines = drops.any(axis=3 - axis)
        assert (drops == np.expand_dims(lines, 3 - axis)).all()
        starts, widths = lines.argmax(axis=1), lines.sum(axis=1)
        for width in range(widest + 1):
            share = (1 if 0 < width < widest else 0.5) / widest
            assert_counts((widths == width).sum(), RECORDS, share)
        some = starts[widths == widest // 2]
        counts = np.bincount(some, minlength=size - widest // 2 + 1)
        assert_counts(counts, len(some), 1 / len(counts))


def test_spec_augment_takes_the_bounds_of_the_paper_and_those_of_the_spectrogram():
    options = {"spectrogram_shape": (50, 20), "freq_mask_count": 1, "time_mask_count": 1}
    options["time_mask_max_frames"] = 49
    rates = [config.dropout_rate for config in presets.spec_augment("i", **options).configs]
    assert rates == [(0, 1), (0, 0.98)]
    options |= {"time_mask_max_share": 0.2, "freq_mask_max_bins": 5}
    rates = [config.dropout_rate for config in presets.spec_augment("i", **options).configs]
    assert rates == [(0, 0.25), (0, 0.2)]
    options["spectrogram_shape"] = (20, 50)
    other = presets.spec_augment("i", **options, time_axis=1).configs
    assert [config.dropout_rate for config in other] == rates
    assert [config.mode for config in other] == [Band(axis=0), Band(axis=1)]
    options |= {"freq_mask_count": 0, "time_mask_count": 0}
    assert presets.spec_augment("i", **options).configs == ()


def test_a_band_of_time_that_may_take_all_frames_is_refused_with_the_cure():
    # torchaudio has (frequency, time).
    text = r"time_mask_max_frames must be below the 80 frames of axis 0.* time_axis=1 if"
    with pytest.raises(ValueError, match=text):
        presets.spec_augment("audio", spectrogram_shape=(80, 400))
    rates = [
        config.dropout_rate
        for given in ({"time_axis": 1}, {"time_mask_max_share": 0.9}, {"time_mask_count": 0})
        for config in presets.spec_augment("audio", spectrogram_shape=(80, 400), **given).configs
    ]
    assert max(high for _, high in rates) == 0.9


def test_lists_and_numbers_of_numpy_are_taken_as_tuples_and_numbers_of_python():
    two, sizes = np.int64(2), [*np.array([32, 32])]
    for name, given in {
        "cutout": {"image_shape": sizes, "length": two},
        "random_erasing": {"scale": [0.1, 0.2], "ratio": [0.5, 2]},
        "mae": {"patch_size": [two, 4]},
        "spec_augment": {"spectrogram_shape": [400, 80]},
    }.items():
        preset = presets.PRESETS[name]
        as_python = {option: plain(value) for option, value in given.items()}
        assert preset("i", **given) == preset("i", **as_python)
    rates = presets.rate_for_side("box", [two, 4], [*sizes, 3])
    assert rates == presets.rate_for_side("box", (2, 4), (32, 32, 3))


def test_the_configs_of_spec_augment_work_on_one_another_and_leave_out_a_field_once():
    options = {"target_key": "b", "auxiliary_fields": ["frames"], "preserve_auxiliary": False}
    shape = {"spectrogram_shape": (30, 20), "time_mask_max_frames": 29}
    configs = presets.spec_augment("a", **shape, **options).configs
    assert [(c.field_key, c.target_key) for c in configs] == [("a", "b")] + [("b", None)] * 3
    counts = {"freq_mask_count": 1, "time_mask_count": 1}
    augment = presets.spec_augment("a", **shape, **options, **counts, fill=-1.0, mask_key="kept")
    batch = {"a": jnp.ones((64, 30, 20)), "frames": jnp.ones((64, 30, 20))}
    batch, _ = augment.apply_batch(augment.init_state(jax.random.key(0)), batch)
    assert list(batch) == ["a", "b", "kept"]
    assert (np.asarray(batch["a"]) == 1).all()
    masked = np.asarray(batch["b"]) == -1
    np.testing.assert_array_equal(batch["kept"], ~masked)
    assert masked.all(axis=1).any()
    assert masked.all(axis=2).any()


# How many rows or columns drop at least and at most: of one hole its side, unless it is cut off.
SIDES = [
    (Box(border="clip"), 8, (16, 16, 3), (4, 8)),
    (Box(count=3), 5, (9, 20, 1), (5, 9)),
    (Band(axis=1, count=2), 3, (4, 9, 3), (3, 6)),
    (Grid(unit=8), 5, (16, 24, 3), (10, 10)),  # two squares
]


@pytest.mark.parametrize(("mode", "side", "shape", "bounds"), SIDES, ids=str)
def test_at_the_rate_for_a_side_all_holes_have_that_side(mode, side, shape, bounds):
    rate = presets.rate_for_side(mode, side, shape)
    keys = jax.random.split(jax.random.key(0), 1024)
    drops = ~np.asarray(draw_masks(mode, shape, keys, rate))[..., 0]
    along = 1 + getattr(mode, "axis", 0)
    lines = drops.any(axis=tuple({1, 2} & set(range(drops.ndim)) - {along}))
    assert (lines.sum(axis=1).min(), lines.sum(axis=1).max()) == bounds


def test_rates_for_a_side_are_those_of_the_papers():
    rates = [presets.cutout("i", image_shape=(32, 32), length=n).dropout_rate for n in (8, 16, 20)]
    assert [round(rate, 3) for rate in rates] == [0.055, 0.191, 0.278]
    for length, drops_all in ((15, True), (99, True), (14, False)):
        rate = presets.cutout("i", image_shape=(8, 8), length=length).dropout_rate
        assert (rate == 1.0) == drops_all
    assert presets.rate_for_side("box", 16, (32, 32, 3)) == 0.25
    assert presets.rate_for_side("band", (0, 8), (32, 32, 3)) == (0, 0.25)
    assert presets.rate_for_side("grid", 16, (224, 224, 3)) == 0.25
    cutout = presets.cutout("i", image_shape=(32, 32), length=16).dropout_rate
    assert presets.rate_for_side(Box(border="clip"), 16, (32, 32, 3)) == cutout


@pytest.mark.parametrize(
    ("name", "default"), [("random_erasing", 0.5), ("gridmask", 0.8), ("coarse_dropout", 0.5)]
)
def test_a_probability_is_that_of_the_paper_or_as_given(name, default):
    preset = functools.partial(getattr(presets, name), **SOUND.get(name, {}))
    assert preset("i").apply_probability == default
    assert preset("i", probability=0.25).apply_probability == 0.25


def test_options_of_the_config_are_taken_and_the_papers_own_can_be_changed():
    config = presets.random_erasing("a.b", fill="noise", apply_probability=1.0, seed=3)
    assert (config.field_key, config.fill, config.apply_probability) == ("a.b", "noise", 1.0)
    assert presets.gridmask("i").mode == Grid(unit=(96, 223), rotate=360)
    assert presets.cutout("i", image_shape=(16, 16), length=4, holes=4).mode.count == 4
    block = presets.dropblock("i", rate=0.1, block_size=5)
    assert (block.mode, block.dropout_rate, block.rescale) == (Block(size=5), 0.1, True)
    assert presets.dropblock("i").mode == Block(size=7)
    assert presets.beit("i").mode == Blocks(16, (0.3, 1 / 0.3), min_cells=16)
    assert presets.mae("i", fill="mean").fill == "mean"
    assert presets.dropblock("i", rate=jnp.float32(0.2), rescale=False).rescale is False


SOUND = {
    "cutout": {"image_shape": (32, 32)},
    "coarse_dropout": {"image_shape": (32, 32)},
    "spec_augment": {"spectrogram_shape": (80, 9)},
    "rate_for_side": {"mode": "box", "side": 8, "element_shape": (40, 32, 3)},
}
KINDS = "mode must be a Box, a Grid or a Band; got "
WRONG = [
    ("cutout", {"image_shape": 32}, TypeError, "image_shape must be a tuple of sizes; got 32."),
    ("cutout", {"image_shape": ()}, ValueError, "image_shape must have an axis; got ()."),
    ("cutout", {"image_shape": (32, 0)}, ValueError, "image_shape[1] must be at least 1; got 0."),
    ("cutout", {"length": 0}, ValueError, "length must be at least 1; got 0."),
    ("cutout", {"holes": 65}, ValueError, "holes must be in [1, 65); got 65."),
    ("coarse_dropout", {"image_shape": (9,)}, ValueError, "image_shape must be (height, width); g"),
    ("coarse_dropout", {"num_holes_range": 2}, TypeError, "num_holes_range must be a tuple (few"),
    ("coarse_dropout", {"num_holes_range": (2, 1)}, ValueError, "num_holes_range must be a number"),
    ("coarse_dropout", {"num_holes_range": (0, 1)}, ValueError, "num_holes_range[0] must be from"),
    ("coarse_dropout", {"hole_height_range": 8}, TypeError, "hole_height_range must be a tuple of"),
    ("coarse_dropout", {"hole_height_range": (33, 40)}, ValueError, "hole_height_range must be ("),
    ("coarse_dropout", {"hole_width_range": (0.5, 2)}, ValueError, "hole_width_range must be (low"),
    ("spec_augment", {"spectrogram_shape": 80}, TypeError, "spectrogram_shape must be a tuple of"),
    ("spec_augment", {"spectrogram_shape": (80,)}, ValueError, "spectrogram_shape must be (frames"),
    ("spec_augment", {"time_mask_max_share": 2}, ValueError, "time_mask_max_share must be in [0,"),
    ("spec_augment", {"freq_mask_count": -1}, ValueError, "freq_mask_count must be in [0, 65);"),
    ("spec_augment", {"time_axis": 2}, ValueError, "time_axis must be in [0, 2); got 2."),
    ("rate_for_side", {"mode": "patch"}, ValueError, KINDS + "Patch(size=16, exact=False). The s"),
    ("rate_for_side", {"mode": "pixel"}, ValueError, KINDS + "Pixel(per_channel=True)."),
    ("rate_for_side", {"mode": Box(1, (1, 2))}, ValueError, "mode must have aspect_ratio=(1, 1);"),
    ("rate_for_side", {"mode": Box((1, 2))}, ValueError, "mode must have one count; got Box(count"),
    ("rate_for_side", {"mode": Grid((4, 8))}, ValueError, "mode must have one unit; got Grid("),
    ("rate_for_side", {"mode": Band(2)}, ValueError, "mode must have an axis that is one of 2;"),
    ("rate_for_side", {"side": (0, 33)}, ValueError, "side[1] must be in [0, 33); got 33."),
    ("rate_for_side", {"side": (1, 2, 3)}, ValueError, "side must be a number or (least, largest)"),
    ("rate_for_side", {"side": 2.5}, TypeError, "side must be an int; got 2.5."),
    ("mae", {"rate": 2.0}, ValueError, "rate must be in [0.0, 1.0]; got 2.0."),
    ("simmim", {"rate": 2.0}, ValueError, "rate must be in [0.0, 1.0]; got 2.0."),
    ("simmim", {"patch_size": 0}, ValueError, "patch_size must be at least 1; got 0."),
    ("beit", {"rate": (0.5, 0.1)}, ValueError, "rate must be (low, high) with low <= high; got (0"),
    ("beit", {"min_patches": 0}, ValueError, "min_patches must be at least 1; got 0."),
    ("beit", {"ratio": (3, 1)}, ValueError, "ratio must be (low, high) with 0 < low <= high; got"),
    ("videomae", {"rate": "0.9"}, TypeError, "rate must be a number or a real scalar array; got"),
    ("random_erasing", {"probability": 2}, ValueError, "probability must be in [0.0, 1.0]; got 2."),
    ("random_erasing", {"scale": (0.1,) * 3}, ValueError, "scale must be a number or (low, high);"),
    ("gridmask", {"ratio": "x"}, TypeError, "ratio must be a number; got 'x'."),
    ("gridmask", {"ratio": 2}, ValueError, "ratio must be in [0, 1]; got 2."),
]


@pytest.mark.parametrize(("name", "given", "error", "text"), WRONG)
def test_a_wrong_argument_is_refused(name, given, error, text):
    sound = SOUND.get(name, {}) | ({} if name == "rate_for_side" else {"field_key": "i"})
    assert_refused(getattr(presets, name), sound | given, error, text)
