"""What to expect, what came, and what masks leave to see of boxes and points."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

import dropax
from cases import MODES, SHAPE, assert_refused, config_of
from dropax import dropped_fraction, expected_dropped_fraction, visible_fraction, visible_points

NAN, INF = math.nan, math.inf


def slow_fraction(mask, box):
    """Goes through all values of one mask, channels last, in double precision."""
    corners = np.asarray(box, np.float64)
    first, last = np.split(corners, 2)
    covered = kept = 0.0
    for *place, channel in np.ndindex(mask.shape):
        part = 1.0
        for at, low, high in zip(place, first, last, strict=True):
            part *= max(min(high, at + 1) - max(low, at), 0) if low < high else 0
        covered += part
        kept += part * mask[*place, channel]
    return kept / covered if covered > 0 else 0.0


def slow_visible(mask, point):
    """Looks at the pixel that holds a point."""
    if not all(0 <= at < size for at, size in zip(point, mask.shape, strict=False)):
        return False
    return bool(mask[tuple(map(math.floor, point))].any())


SHAPES = [(7, 5, 3), (6, 9, 1), (8, 1), (11, 2), (4, 3, 5, 2)]


@pytest.mark.parametrize(
    ("shape", "dtype"), [*((shape, np.float32) for shape in SHAPES), (SHAPES[0], np.int32)], ids=str
)
def test_boxes_and_points_are_what_a_loop_over_pixels_says(shape, dtype):
    rng, axes = np.random.default_rng(3), len(shape) - 1
    shape = tuple(max(size, 2) for size in shape[:-1]) + shape[-1:]
    mask = rng.random((3, *shape)) < 0.6
    corners = rng.uniform(-2, np.array(shape[:-1]) + 2.0, (3, 40, 2, axes))
    boxes = np.sort(corners, axis=2).reshape(3, 40, -1).astype(dtype)
    found = jax.jit(visible_fraction)(mask, boxes)
    assert (found.shape, found.dtype) == ((3, 40), jnp.float32)
    expected = [[slow_fraction(mask[n], box) for box in boxes[n]] for n in range(3)]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    points = corners[:, :, 0].astype(dtype)
    seen = jax.vmap(visible_points)(mask[None], points[None])[0]
    assert (seen.shape, seen.dtype) == ((3, 40), jnp.bool_)
    for record in range(3):
        wanted = [slow_visible(mask[record], point) for point in points[record]]
        np.testing.assert_array_equal(seen[record], wanted)


@given(data=st.data(), width=st.sampled_from([32, 64]))
def test_fractions_are_in_range_and_never_nan(data, width):
    number = st.floats(width=width) | st.integers(-3, 9).map(float)
    boxes = np.array([[data.draw(st.tuples(*[number] * 4))]], f"f{width // 8}")
    mask = np.random.RandomState(data.draw(st.integers(0, 9))).rand(1, 6, 5, 2) < 0.5
    fraction = float(visible_fraction(mask, boxes)[0, 0])
    assert 0 <= fraction <= 1
    assert float(visible_fraction(np.zeros_like(mask), boxes)[0, 0]) == 0


INSIDE = [(0, 0, 4, 6), (3, 5, 4, 6), (1.25, 2.5, 1.5, 2.75), (-3, -9, 40, 60.5)]
INSIDE += [(-INF, -INF, INF, INF)]
# Empty, padding of zeros and of -1, outside, the wrong way round, not a number.
NOTHING = [(2, 2, 2, 5), (0,) * 4, (-1,) * 4, (-4, 0, 0, 6), (4, 6, 9, 9), (3, 1, 1, 4)]
NOTHING += [(NAN, 0, 4, 6), (NAN,) * 4]


def test_where_all_is_kept_a_box_inside_counts_in_full_and_one_outside_not_at_all():
    boxes = np.array([INSIDE + NOTHING], np.float32)
    expected = np.repeat([[1.0, 0.0]], [len(INSIDE), len(NOTHING)], axis=1)
    for channels in (1, 3):
        mask = np.ones((1, 4, 6, channels), bool)
        np.testing.assert_array_equal(visible_fraction(mask, boxes), expected)
        np.testing.assert_array_equal(visible_fraction(~mask, boxes), expected * 0)


def test_whole_pixels_are_counted_exactly_and_small_boxes_of_large_images_are_too():
    mask = np.random.RandomState(0).rand(1, 3000, 4000, 1) < 0.5
    boxes = np.array([[[0, 0, 3000, 4000], [2995, 3990, 2998, 3997], [2999, 3999, 3000, 4000]]])
    expected = [
        np.float32(mask[0, t:b, left:right].sum()) / np.float32((b - t) * (right - left))
        for t, left, b, right in boxes[0]
    ]
    found = np.asarray(jax.jit(visible_fraction)(mask, boxes))[0]
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_array_equal(found[1:], expected[1:])


def test_where_all_is_kept_the_points_inside_are_visible():
    outside = [(4, 6), (-0.001, 3), (2**31, 1e30), (INF, 2), (NAN, 2)]
    points = np.array([[(0, 0), (3.999, 5.999), *outside]], np.float32)
    mask = np.ones((1, 4, 6, 3), bool)
    assert visible_points(mask, points).tolist() == [[True] * 2 + [False] * 5]
    assert not visible_points(~mask, points).any()


def test_places_are_read_in_their_own_dtype():
    mask = np.ones((1, 4, 6), bool)
    mask[0, 0] = False
    boxes = np.array([[[0, 0, 2**32, 2**40], [-(2**40), 0, 1, 2**32], [-(2**33), 0, -1, 9]]])
    assert visible_fraction(mask, boxes, channel_axis=None).tolist() == [[0.75, 0, 0]]
    thin = np.array([[[1, 0.3, 2, 0.3 + 1e-12], [0, 0, 1e-50, 6], [3, 0, 3 + 1e-12, 1e-50]]])
    assert visible_fraction(mask, thin, channel_axis=None).tolist() == [[1, 0, 1]]
    edge = np.array([[[-1, -1e-50, 1e-50, 1e-50]]])
    assert visible_fraction(~mask, edge, channel_axis=None).tolist() == [[1]]
    points = np.array([[[2**32 + 1, 2**32], [1, 2**40], [1, 5], [-1e-50, 0], [2 - 1e-12, 1e-50]]])
    seen = visible_points(mask, points, channel_axis=None).tolist()
    assert seen == [[False, False, True, False, True]]


@pytest.mark.parametrize("array", [np.array, jnp.array], ids=["numpy", "jax"])
def test_places_beyond_the_whole_numbers_of_float32_are_exact(array):
    far = 2**24
    mask = np.ones((1, far + 84), bool)
    mask[0, far + 1] = False
    boxes = array([[[far + 1, far + 3], [far + 1, far + 2], [far + 2, far + 4]]])
    assert visible_fraction(mask, boxes, channel_axis=None).tolist() == [[0.5, 0, 1]]
    points = array([[[far], [far + 1], [far + 2]]])
    assert visible_points(mask, points, channel_axis=None).tolist() == [[True, False, True]]


# One mode of each form that masks have.
@pytest.mark.parametrize(
    "name", ["pixel", "channel, one kept", "patch", "bands", "record", "shared"]
)
def test_masks_of_every_form_are_taken_as_they_are_drawn(name, key):
    config = config_of(MODES[name])
    mask = np.asarray(dropax.generate_random_params(config, key, {"image": SHAPE})["keep_mask"])
    whole = np.broadcast_to(mask[:, None, None] if mask.ndim == 2 else mask, SHAPE)
    boxes = np.broadcast_to(np.array([[0, 0, 6, 5], [1, 2, 5, 3]]), (4, 2, 4))
    points = np.broadcast_to(np.array([[0, 0], [5, 4], [3, 2]]), (4, 3, 2))
    found = np.asarray(visible_fraction(mask, boxes))
    np.testing.assert_allclose(found, visible_fraction(whole, boxes), atol=1e-6)
    np.testing.assert_array_equal(visible_points(mask, points), visible_points(whole, points))
    np.testing.assert_allclose(found[:, 0], 1 - np.asarray(dropped_fraction(mask)), atol=1e-6)


def test_an_axis_of_size_one_holds_for_every_position():
    rows = np.array([True, False, True, True]).reshape(1, 4, 1, 1)
    boxes = np.array([[[0, 0, 2, 1], [1, 70, 4, 99], [0, 5, 4, 5], [0, NAN, 4, 9]]])
    np.testing.assert_allclose(visible_fraction(rows, boxes), [[1 / 2, 2 / 3, 0, 0]], rtol=1e-6)
    points = np.array([[[0, 0], [0, 1e9], [1, 3], [0, -3], [4, 0], [0, NAN], [0, INF]]])
    seen = [[True, True, False, True, False, False, True]]
    assert visible_points(rows, points).tolist() == seen


def test_channels_may_lie_on_any_axis_or_be_missing():
    mask = np.random.default_rng(0).random((2, 5, 7, 3)) < 0.5
    boxes = np.broadcast_to(np.array([[0.5, 0, 4, 6.5], [1, 2, 5, 3]]), (2, 2, 4))
    points = np.broadcast_to(np.array([[0, 0], [4, 6], [3, 2.5]]), (2, 3, 2))
    for measure, places in ((visible_fraction, boxes), (visible_points, points)):
        expected = measure(mask, places)
        first = np.moveaxis(mask, -1, 1)
        np.testing.assert_array_equal(measure(first, places, channel_axis=1), expected)
        np.testing.assert_array_equal(measure(first, places, channel_axis=-3), expected)
        gray = mask[..., 1]
        np.testing.assert_array_equal(
            measure(gray, places, channel_axis=None), measure(gray[..., None], places)
        )


def test_points_may_come_in_groups_and_there_may_be_none():
    rng = np.random.default_rng(0)
    mask, points = rng.random((2, 5, 7, 3)) < 0.5, rng.random((2, 4, 17, 2)) * 6
    flat = np.asarray(visible_points(mask, points.reshape(2, -1, 2)))
    np.testing.assert_array_equal(visible_points(mask, points), flat.reshape(2, 4, 17))
    for batch, count in ((2, 0), (0, 3)):
        assert visible_points(mask[:batch], np.ones((batch, count, 2))).shape == (batch, count)
        assert visible_fraction(mask[:batch], np.ones((batch, count, 4))).shape == (batch, count)


def test_an_image_without_values_shows_nothing():
    for shape in ((1, 0, 4, 3), (1, 4, 0, 3), (1, 4, 4, 0)):
        mask = np.ones(shape, bool)
        assert visible_points(mask, np.zeros((1, 1, 2))).tolist() == [[False]]
        assert visible_fraction(mask, np.array([[[0, 0, 4, 4]]])).tolist() == [[0]]


MASK = np.ones((2, 5, 7, 3), bool)
BOXES, DOTS, ONE = np.ones((2, 4, 4)), np.ones((2, 4, 2)), np.asarray(True)
BOOLS, REAL = "keep_mask must be an array of bools", "points must be an array of real numbers"
HAS, AXIS = "keep_mask must have a batch axis, ", "keep_mask must have a channel axis "
FRACTION = [
    ({"keep_mask": MASK * 1}, TypeError, BOOLS),
    ({"boxes": [1]}, TypeError, "boxes must be an array of real numbers; got [1]."),
    ({"boxes": np.ones((2, 4, 5))}, ValueError, "boxes must have shape (B, ..., n), the last"),
    ({"keep_mask": MASK[..., 0]}, ValueError, HAS + "2 spatial axes as the boxes have, and a"),
    ({"keep_mask": MASK[:, :, 0, 0], "boxes": DOTS}, ValueError, HAS + "1 spatial axes as the"),
    ({"channel_axis": 0}, ValueError, AXIS + "0; got"),
    ({"channel_axis": -4}, ValueError, AXIS + "-4; got"),
]
POINT = [
    ({"keep_mask": [True]}, TypeError, BOOLS),
    ({"points": DOTS > 0}, TypeError, REAL),
    ({"points": DOTS + 1j}, TypeError, REAL),
    ({"points": np.ones(2)}, ValueError, "points must have shape (B, ..., n), the last axis such"),
    ({"keep_mask": MASK[:1]}, ValueError, "keep_mask must have a mask for each of the 2 records"),
    ({"channel_axis": None}, ValueError, HAS + "2 spatial axes as the points have, and no channel"),
    ({"points": BOXES}, ValueError, HAS + "4 spatial axes"),
    ({"channel_axis": 4}, ValueError, AXIS + "4; got"),
    ({"channel_axis": "auto"}, TypeError, "channel_axis must be an int or None; got"),
]
DROPPED = [
    ({"keep_mask": np.ones((2, 3))}, TypeError, BOOLS + "; got an array of shape"),
    ({"keep_mask": ONE, "per_channel": False}, ValueError, "keep_mask must have a batch axis; got"),
    *(({"channel_axis": axis}, ValueError, f"{AXIS}{axis}; got an") for axis in (0, -4, 4, -5)),
]
WRONG = [
    *((dropped_fraction, {"keep_mask": MASK, "per_channel": True}, *row) for row in DROPPED),
    *((visible_fraction, {"keep_mask": MASK, "boxes": BOXES}, *row) for row in FRACTION),
    *((visible_points, {"keep_mask": MASK, "points": DOTS}, *row) for row in POINT),
]


@pytest.mark.parametrize(("measure", "sound", "given", "error", "text"), WRONG)
def test_what_does_not_go_together_is_refused(measure, sound, given, error, text):
    assert_refused(measure, sound | given, error, text)


def test_a_mask_without_channels_is_refused_with_the_cure():
    with pytest.raises(ValueError, match="Pass channel_axis=None if it has no channels"):
        visible_fraction(MASK[..., 0], BOXES)


RATES = [0.0, 0.02, 0.3, 0.9, 1.0]


@pytest.mark.parametrize(
    "mode", [mode for name, mode in MODES.items() if "kept" not in name], ids=str
)
def test_the_rate_is_expected_in_every_mode(mode):
    for rate in RATES:
        expected = expected_dropped_fraction(config_of(mode, dropout_rate=rate), (6, 5, 3))
        assert float(expected) == pytest.approx(rate, abs=2**-23)


@pytest.mark.parametrize("channels", [1, 3, 200])
def test_fewer_are_expected_where_channels_must_be_kept(channels):
    for least in {0, 1, channels // 2, channels}:
        for rate in RATES:
            config = config_of(dropax.Channel(min_kept=least), dropout_rate=rate)
            chances = [
                math.comb(channels, n) * rate**n * (1 - rate) ** (channels - n)
                for n in range(channels + 1)
            ]
            mean = sum(chance * min(n, channels - least) for n, chance in enumerate(chances))
            found = float(expected_dropped_fraction(config, (4, 4, channels)))
            assert found == pytest.approx(mean / channels, abs=1e-5)


def test_ranges_count_by_their_mean_and_records_left_alone_count():
    config = config_of("box", dropout_rate=(0.2, 0.6), apply_probability=0.5)
    assert float(expected_dropped_fraction(config, (8, 8, 3))) == pytest.approx(0.2, abs=1e-6)


def test_a_traced_rate_is_taken():
    fraction = jax.jit(lambda config: expected_dropped_fraction(config, (8, 8, 3)))
    for rate in (0.1, 0.7):
        config = config_of(dropax.Channel(min_kept=1), dropout_rate=rate)
        assert float(fraction(config)) == pytest.approx((3 * rate - rate**3) / 3, abs=1e-6)
    assert fraction._cache_size() == 1


@jax.jit
def expected_and_drawn(low, high, probability, key):
    config = config_of("pixel", dropout_rate=(0.1, 0.2), apply_probability=0.5)
    values = {0.1: low, 0.2: high, 0.5: probability}
    # Put in past the checks: a program may be handed anything.
    config = jax.tree.map(lambda leaf: values[round(float(leaf), 6)], config)
    drawn = dropax.generate_random_params(config, key, {"image": (20_000, 1, 4, 1)})
    return expected_dropped_fraction(config, (1, 4, 1)), drawn


@pytest.mark.parametrize(
    ("rates", "mean"),
    [
        ((-1.0, 0.5), 0.25),
        ((0.5, 3.0), 0.75),
        ((-2.0, 2.0), 0.5),
        ((0.6, 0.2), 0.6),
        ((-2.0, -1.0), 0.0),
        ((1.5, 2.0), 1.0),
        ((math.nan, 0.5), 1.0),
        ((0.5, math.nan), 0.75),
    ],
    ids=str,
)
@pytest.mark.parametrize(("probability", "share"), [(0.5, 0.5), (-1.0, 0), (2.0, 1), (math.nan, 0)])
def test_traced_ranges_that_saturate_or_are_reversed_are_expected_as_they_are_drawn(
    rates, mean, probability, share, key
):
    low, high = map(jnp.float32, rates)
    expected, drawn = expected_and_drawn(low, high, jnp.float32(probability), key)
    assert float(expected) == pytest.approx(mean * share, abs=2**-22)
    assert_mean(drawn["rate"], mean)
    assert_mean(drawn["applied"], share)
    assert_mean(dropped_fraction(drawn["keep_mask"]), float(expected))


def assert_mean(fractions, mean):
    """Asserts the mean of independent draws in [0, 1]; a false alarm has a probability of 1e-6."""
    bound = math.sqrt(math.log(2 / 1e-6) / (2 * len(fractions)))  # Hoeffding's inequality
    assert abs(np.asarray(fractions, np.float64).mean() - mean) <= min(bound, mean, 1 - mean)


def test_what_came_is_counted_for_each_record_and_each_channel(key):
    for mode in ("pixel", "channel", dropax.Pixel(per_channel=False), "box"):
        drawn = dropax.generate_random_params(config_of(mode), key, {"image": (8, 6, 5, 3)})
        mask = drawn["keep_mask"]
        flat = 1 - np.asarray(mask).reshape(8, -1, mask.shape[-1]).mean(axis=1)
        np.testing.assert_allclose(dropped_fraction(mask), flat.mean(axis=1), atol=1e-6)
        each = dropped_fraction(mask, per_channel=True)
        np.testing.assert_allclose(each, flat, atol=1e-6)
    first = jnp.moveaxis(mask, -1, 1)
    np.testing.assert_allclose(dropped_fraction(first, per_channel=True, channel_axis=1), flat)


def test_what_is_no_config_and_no_shape_is_refused():
    with pytest.raises(TypeError, match=r"expected_dropped_fraction\.config must be a Dropout"):
        expected_dropped_fraction({}, (4, 4, 3))
    for shape in (4, (4, 4.0, 3), None):
        text = rf"element_shape must be a shape; got {re.escape(str(shape))}"
        with pytest.raises(TypeError, match=text):
            expected_dropped_fraction(config_of("pixel"), shape)


def test_extents_are_of_the_spatial_axes_wherever_the_channels_are(key):
    config = config_of("box", extent_key="size", mask_key="kept")
    sizes = np.array([[6, 5], [3, 2], [1, 4], [6, 1]])
    for axis in (-1, 0):
        images = np.ones(SHAPE) if axis else np.ones((4, 3, 6, 5))
        data = {"image": images, "size": sizes}
        config = config.replace(channel_axis=axis)
        out, _ = dropax.apply_batch(config, dropax.init_state(config, key), data)
        place = {"extents": sizes, "channel_axis": -1 if axis else 1}
        found = dropped_fraction(out["kept"], **place)
        kept = np.asarray(out["kept"]) if axis else np.moveaxis(out["kept"], 1, -1)
        each = [1 - kept[n, :y, :x].mean() for n, (y, x) in enumerate(sizes)]
        np.testing.assert_allclose(found, each, atol=1e-6)
        per_channel = dropped_fraction(out["kept"], per_channel=True, **place)
        np.testing.assert_allclose(per_channel, np.stack([each] * 3, axis=1), atol=1e-6)
