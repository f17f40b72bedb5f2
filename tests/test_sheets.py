"""What the command line's contact sheet shows."""

import io

import numpy as np
import pytest
from PIL import Image

from dropax.cli import sheet as sheets

COLOURS = "colours: channels kept"


def colours(height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (height, width, 3)).astype(np.uint8)


def dropped_by(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask, values, 0).astype(values.dtype)


def test_a_small_image_is_magnified_whole() -> None:
    values = colours(50, 60)
    mask = np.random.default_rng(1).random(values.shape) > 0.3
    tiles, part, overview = sheets.show_drop((values, dropped_by(values, mask), mask))
    assert (part, overview) == (("", COLOURS), None)
    for tile, shown in zip(tiles, (values, dropped_by(values, mask), 255 * mask), strict=True):
        assert tile.shape == (200, 240, 3)
        np.testing.assert_array_equal(tile[::4, ::4], shown)
        np.testing.assert_array_equal(tile[3::4, 2::4], shown)


def test_of_a_large_image_the_middle_is_shown_and_marked() -> None:
    values = colours(400, 300)
    mask = np.random.default_rng(1).random(values.shape) > 0.3
    tiles, part, overview = sheets.show_drop((values, dropped_by(values, mask), mask))
    assert part == ("middle 128x128", COLOURS)
    middle = (slice(136, 264), slice(86, 214))
    np.testing.assert_array_equal(tiles[0][::2, ::2], values[middle])
    np.testing.assert_array_equal(tiles[1][::2, ::2], dropped_by(values, mask)[middle])
    np.testing.assert_array_equal(tiles[2][::2, ::2], 255 * mask[middle])
    assert overview is not None
    assert overview.shape == (128, 96, 3)
    assert (overview == (224, 32, 32)).all(-1).sum() > 100


def test_where_whole_channels_drop_the_whole_image_is_shown() -> None:
    values, mask = colours(400, 800), np.array([True, False, True])
    tiles, part, overview = sheets.show_drop((values, dropped_by(values, mask), mask))
    assert (part, overview) == (("", COLOURS), None)
    assert {tile.shape for tile in tiles} == {(128, 256, 3)}
    assert (tiles[1][..., 1] == 0).all()
    np.testing.assert_array_equal(tiles[2], np.broadcast_to([255, 0, 255], tiles[2].shape))


def test_more_channels_than_three_are_said_to_be_left_out() -> None:
    values = np.zeros((300, 20, 4), np.float32)
    mask = np.random.default_rng(1).random(values.shape) > 0.3
    _, part, _ = sheets.show_drop((values, values, mask))
    assert part == ("middle 128x20, channels 0 to 2", COLOURS)


def test_transparent_pixels_are_shown_on_checks() -> None:
    values, alpha = colours(20, 20), np.zeros((20, 20), np.uint8)
    alpha[:10] = 255
    tiles, _, _ = sheets.show_drop((values, values, np.ones_like(values, bool)), alpha)
    np.testing.assert_array_equal(tiles[0][:120:12, ::12], values[:10])
    assert set(np.unique(tiles[0][120:])) == {215, 255}


@pytest.mark.parametrize("overview", [None, np.zeros((128, 64, 3), np.uint8)])
def test_a_contact_sheet_holds_its_tiles(overview: np.ndarray | None) -> None:
    tiles = (np.full((256, 256, 3), 10, np.uint8), np.full((100, 200, 3), 20, np.uint8))
    label = ("a very long name of a file that cannot fit, \u4e2d\udce9.png", "detail")
    strips = [sheets.Strip(label, tiles, ("", "caption"), overview)] * 2
    file = io.BytesIO()
    sheets.write_contact_sheet(file, "title", ("first", "second"), strips)
    sheet = np.asarray(Image.open(file))
    assert (sheet == 10).all(-1).sum() == 2 * 256 * 256
    assert (sheet == 20).all(-1).sum() == 2 * 100 * 200


@pytest.mark.parametrize(
    ("size", "whole"), [(2, False), (16, True)], ids=["small regions", "large regions"]
)
def test_of_large_regions_the_whole_image_is_shown(size: int, whole: bool) -> None:
    values = colours(512, 512)
    cells = np.random.default_rng(2).random((512 // size, 512 // size, 1)) > 0.3
    mask = cells.repeat(size, 0).repeat(size, 1)
    _, (part, _), overview = sheets.show_drop((values, dropped_by(values, mask), mask))
    assert (part, overview is None) == (("", True) if whole else ("middle 128x128", False))
