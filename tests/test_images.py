"""What an eye can see of images and masks."""

import jax.numpy as jnp
import numpy as np
import pytest

from cases import assert_refused
from dropax import images


def test_the_sample_picture_is_always_the_same_and_never_black():
    picture = images.sample_picture(64)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert picture.min() > 0
    assert len(np.unique(picture)) > 100
    np.testing.assert_array_equal(picture, images.sample_picture(64))


@pytest.mark.parametrize(
    ("values", "grays"),
    [
        ([1.0, 3.0, 2.0], [0, 255, 128]),
        ([np.nan, np.inf, -np.inf, 0.0, 1.0], [0, 255, 0, 0, 255]),
        ([2.0, 2.0], [255, 255]),  # one value alone is shown against zero
        ([0.0, 0.0], [0, 0]),
        ([-1e308, 1e308, 0.0], [0, 255, 128]),
        (np.array([0, 500, 1000], np.int64), [0, 128, 255]),
        (np.array([7, 200], np.uint8), [7, 200]),
        (np.array([False, True]), [0, 255]),
        (jnp.array([0.0, 1.0, 0.5], jnp.bfloat16), [0, 255, 128]),
        (np.array([3 + 4j, 0]), [255, 0]),
    ],
)
def test_any_dtype_is_shown(values, grays):
    shown = images.to_display(np.asarray(values)[None])
    assert shown.dtype == np.uint8
    expected = np.repeat(np.array(grays)[None, :, None], 3, -1)
    np.testing.assert_allclose(shown, expected, atol=0.5 + (128 in grays))


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (5, [0, 1, 2])])
def test_other_numbers_of_channels_show_the_first(channels, shown):
    values = np.random.default_rng(1).integers(0, 256, (4, 5, channels)).astype(np.uint8)
    np.testing.assert_array_equal(images.to_display(values), values[..., shown])


def test_a_span_holds_for_every_dtype():
    for dtype in (np.uint8, np.int32, np.float64):
        shown = images.to_display(np.array([[10, 20, 30, 40]], dtype), span=(20, 30))
        np.testing.assert_array_equal(shown[0, :, 0], [0, 0, 255, 255])


def test_a_contact_sheet_lays_images_out_in_rows():
    batch = np.arange(1, 6, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 3), np.uint8)
    sheet = images.contact_sheet(batch, columns=2, gap=1, background=(7, 8, 9))
    rows = [
        [1, 1, 1, 7, 2, 2, 2],
        [1, 1, 1, 7, 2, 2, 2],
        [7, 7, 7, 7, 7, 7, 7],
        [3, 3, 3, 7, 4, 4, 4],
        [3, 3, 3, 7, 4, 4, 4],
        [7, 7, 7, 7, 7, 7, 7],
        [5, 5, 5, 7, 7, 7, 7],
        [5, 5, 5, 7, 7, 7, 7],
    ]
    np.testing.assert_array_equal(sheet[..., 0], rows)
    np.testing.assert_array_equal(sheet[2, 0], [7, 8, 9])
    assert sheet.dtype == np.uint8


def test_images_of_other_sizes_lie_in_the_middle_of_their_places():
    tiles = [np.full(shape, 1, np.uint8) for shape in ((1, 4, 3), (3, 2), (2, 2))]
    sheet = images.contact_sheet(tiles, columns=2, gap=0, background=0)
    rows = [
        [0, 0, 0, 0, 1, 1],
        [1, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
    ]
    np.testing.assert_array_equal(sheet[..., 0], rows)


@pytest.mark.parametrize(("number", "shape"), [(1, (4, 4)), (5, (9, 14)), (9, (14, 14))])
def test_left_to_itself_a_contact_sheet_is_about_square(number: int, shape: tuple[int, ...]):
    sheet = images.contact_sheet(np.zeros((number, 4, 4, 3), np.uint8), gap=1)
    assert sheet.shape == (*shape, 3)


def test_a_value_looks_the_same_in_every_image_of_its_dtype():
    before = np.array([[2.0, 3.0]])
    after, mask = np.array([[2.0, 0.0]]), np.array([[True, False]])
    sheet = images.contact_sheet([before, after, mask], columns=3, gap=0)
    np.testing.assert_array_equal(sheet[0, :, 0], [170, 255, 170, 0, 255, 0])


def test_an_overlay_paints_what_is_dropped_the_more_the_more_channels_are():
    image = np.full((1, 4, 4), 100, np.uint8)
    mask = np.arange(4)[:, None] <= np.arange(4)[::-1]  # pixel 0 keeps 4 of 4 channels, 3 one
    shown = images.mask_overlay(image, mask[None], color=(200, 100, 0), opacity=1.0)
    np.testing.assert_array_equal(shown[0, :, 0], [100, 125, 150, 175])
    np.testing.assert_array_equal(shown[0, :, 1], [100, 100, 100, 100])
    np.testing.assert_array_equal(shown[0, :, 2], [100, 75, 50, 25])


PICTURE = np.zeros((4, 5, 3), np.uint8)
WRONG = {
    "to_display": [
        ({"values": np.zeros(3)}, ValueError, "values must have shape (height, width) or"),
        ({"values": np.zeros((0, 3))}, ValueError, "values must have shape"),
    ],
    "contact_sheet": [
        ({"images": []}, ValueError, "images must hold an image; got none"),
        ({"images": [PICTURE, np.zeros(2)]}, ValueError, "images[1] must have shape"),
        ({"columns": 0}, ValueError, "columns must be at least "),
        ({"gap": 1.5}, TypeError, "gap must be an int; got 1.5"),
        ({"background": 256}, ValueError, "background must be in"),
    ],
    "mask_overlay": [
        ({"keep_mask": np.ones((4, 5), bool)}, ValueError, "keep_mask must broadcast to"),
        ({"keep_mask": np.ones((4, 5, 3, 1))}, ValueError, "keep_mask must broadcast t"),
        ({"opacity": 2}, ValueError, "opacity must be in [0, 1]; got 2"),
        ({"color": "red"}, ValueError, "color must be (red, green, blue), each in [0, "),
    ],
}
SOUND = {
    "to_display": {"values": PICTURE},
    "contact_sheet": {"images": [PICTURE]},
    "mask_overlay": {"image": PICTURE, "keep_mask": True},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_shown_is_refused(name):
    for given, error, text in WRONG[name]:
        assert_refused(getattr(images, name), SOUND[name] | given, error, text)


def test_a_span_is_two_numbers():
    with pytest.raises(ValueError, match=r"^span must be two finite numbers, .*; got \(1, 1\)"):
        images.to_display(PICTURE, span=(1, 1))
    with pytest.raises(TypeError, match=r"^span must be two numbers, \(black, white\); got 3"):
        images.to_display(PICTURE, span=3)


def test_a_mask_without_channels_is_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"Give it an axis .*: keep_mask\[..., None\]"):
        images.mask_overlay(PICTURE, np.ones((4, 5), bool))


@pytest.mark.parametrize(("size", "error"), [(32.5, TypeError), (0, ValueError)])
def test_a_picture_has_a_whole_size(size, error):
    with pytest.raises(error, match=r"sample_picture\.size must be"):
        images.sample_picture(size)
