"""What the command line's contact sheet shows."""

import io

import numpy as np
from PIL import Image

from dropax.cli import sheet as sheets

COLORS = "colors: channels kept"


def colors(height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (height, width, 3)).astype(np.uint8)


def shown(values: np.ndarray, mask: np.ndarray) -> list[sheets.Strip]:
    dropped = np.where(mask, values, 0).astype(values.dtype)
    return sheets.show_drop(("label",), "dropped", (values, dropped, mask))


def test_a_small_image_is_magnified_whole() -> None:
    values = colors(50, 60)
    mask = np.random.default_rng(1).random(values.shape) > 0.3
    (strip,) = shown(values, mask)
    assert strip.captions == ("", "dropped", COLORS)
    expected = (values, np.where(mask, values, 0), 255 * mask)
    for tile, view in zip(strip.tiles, expected, strict=True):
        assert tile.shape == (200, 240, 3)
        np.testing.assert_array_equal(tile[::4, ::4], view)
        np.testing.assert_array_equal(tile[3::4, 2::4], view)


def test_of_a_large_image_evenly_spaced_pixels_and_the_middle_are_shown() -> None:
    values = colors(400, 300)
    mask = np.random.default_rng(1).random(values.shape) > 0.3
    whole, middle = shown(values, mask)
    assert whole.captions == ("1 pixel of 2x2", "dropped", COLORS)
    assert middle.captions == ("middle 128x128", "dropped", COLORS)
    part = (slice(136, 264), slice(86, 214))
    expected = (values, np.where(mask, values, 0), 255 * mask)
    for spaced, tile, view in zip(whole.tiles, middle.tiles, expected, strict=True):
        np.testing.assert_array_equal(spaced, view[::2, ::2])
        np.testing.assert_array_equal(tile[::2, ::2], view[part])


def test_more_channels_than_three_are_said_to_be_left_out() -> None:
    values = np.zeros((300, 20, 4), np.float32)
    mask = np.random.default_rng(1).random(values.shape) > 0.3
    parts = [strip.captions[0] for strip in shown(values, mask)]
    assert parts == ["1 pixel of 2x2, channels 0 to 2", "middle 128x20, channels 0 to 2"]


def test_transparent_pixels_are_shown_on_checks() -> None:
    values, alpha = colors(20, 20), np.zeros((20, 20), np.uint8)
    alpha[:10] = 255
    views = (values, values, np.ones_like(values, bool))
    (strip,) = sheets.show_drop((), "", views, alpha)
    np.testing.assert_array_equal(strip.tiles[0][:120:12, ::12], values[:10])
    assert set(np.unique(strip.tiles[0][120:])) == {215, 255}


def test_a_contact_sheet_holds_its_tiles_and_its_text() -> None:
    tiles = (np.full((256, 256, 3), 10, np.uint8), np.full((100, 200, 3), 20, np.uint8))
    label = ("a very long name of a file that cannot fit, \u4e2d\udce9\n.png", "detail")

    def sheet(*label: str) -> np.ndarray:
        file = io.BytesIO()
        strips = [sheets.Strip(label, tiles, ("", "caption"))] * 2
        sheets.write_contact_sheet(file, ["title"], ("first", "second"), strips)
        return np.asarray(Image.open(file))

    with_label, without = sheet(*label), sheet("", "", "")
    assert (with_label == 10).all(-1).sum() == 2 * 256 * 256
    assert (with_label == 20).all(-1).sum() == 2 * 100 * 200
    changed = (with_label != without).any(-1)
    assert changed.any()
    assert not changed[:, 212:].any(), "a label stays left of the tiles"
