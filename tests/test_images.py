"""Pictures in and out, and what a contact sheet shows."""

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dropax import images


def colours(height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (height, width, 3)).astype(np.uint8)


def written(picture: images.Picture, path: Path) -> Path:
    with open(path, "wb") as file:
        images.write_picture(file, picture)
    return path


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_a_written_picture_is_read_back_as_it_was(
    tmp_path: Path, shape: tuple[int, ...], with_alpha: bool
) -> None:
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    alpha = np.arange(35, dtype=np.uint8).reshape(5, 7) if with_alpha else None
    path = written(images.Picture(values, alpha, b"a profile"), tmp_path / "a.png")
    picture = images.read_picture(path)
    np.testing.assert_array_equal(picture.values, values)
    assert picture.icc_profile == b"a profile"
    if alpha is None:
        assert picture.alpha is None
    else:
        np.testing.assert_array_equal(picture.alpha, alpha)


def test_sixteen_bit_grey_keeps_its_bits(tmp_path: Path) -> None:
    values = np.array([[0, 1, 256], [40000, 65534, 65535]], np.uint16)
    picture = images.read_picture(written(images.Picture(values), tmp_path / "a.png"))
    assert picture.values.dtype == np.uint16
    np.testing.assert_array_equal(picture.values, values)


@pytest.mark.parametrize(
    ("mode", "suffix", "shape", "has_alpha"),
    [
        ("1", "png", (6, 8), False),
        ("L", "jpg", (6, 8), False),
        ("LA", "png", (6, 8), True),
        ("P", "png", (6, 8, 3), False),
        ("RGB", "webp", (6, 8, 3), False),
        ("RGBA", "webp", (6, 8, 3), True),
        ("CMYK", "jpg", (6, 8, 3), False),
    ],
)
def test_every_mode_becomes_grey_or_colour(
    tmp_path: Path, mode: str, suffix: str, shape: tuple[int, ...], has_alpha: bool
) -> None:
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(colours()).convert(mode)
    if has_alpha:
        image.putalpha(100)
    image.save(path)
    picture = images.read_picture(path)
    assert picture.values.shape == shape
    assert picture.values.dtype == np.uint8
    assert (picture.alpha is not None) == has_alpha
    if mode == "1":
        assert set(np.unique(picture.values)) == {0, 255}


def test_a_transparent_palette_entry_becomes_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), mode=None).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png", transparency=1)
    picture = images.read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.values, [[[255, 0, 0], [0, 255, 0]]])
    np.testing.assert_array_equal(picture.alpha, [[255, 0]])


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top is at the right of what is stored
    values = colours()
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    picture = images.read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.values, np.rot90(values, -1))


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    values = images.read_picture(tmp_path / "a.webp").values
    np.testing.assert_array_equal(values, np.asarray(frames[0]))


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("side", [10_000, 30_000])  # Pillow warns of the one, refuses the other
def test_a_decompression_bomb_is_refused(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png_header(side, side))
    with pytest.raises(ValueError, match=r"cannot be read as a picture: .*decompression bomb"):
        images.read_picture(tmp_path / "a.png")


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(ValueError, match="does not begin as a PNG, JPEG or WebP file does"):
        images.read_picture(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError):
        images.read_picture(tmp_path / "b.png")


def test_without_pillow_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"a picture needs Pillow; pip install 'dropax\[image\]'"):
        images.read_picture(tmp_path / "a.png")


def test_the_sample_picture_is_always_the_same_and_never_black() -> None:
    picture = images.sample_picture(64)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert picture.min() > 0
    assert len(np.unique(picture)) > 100
    np.testing.assert_array_equal(picture, images.sample_picture(64))


@pytest.mark.parametrize(
    ("values", "greys"),
    [
        ([1.0, 3.0, 2.0], [0, 255, 128]),
        ([np.nan, np.inf, -np.inf, 0.0, 1.0], [0, 255, 0, 0, 255]),
        ([2.0, 2.0], [255, 255]),  # one value alone is shown against zero
        ([0.0, 0.0], [0, 0]),
        ([-1e308, 1e308, 0.0], [0, 255, 128]),
        (np.array([0, 500, 1000], np.int64), [0, 128, 255]),
        (np.array([7, 200], np.uint8), [7, 200]),
        (np.array([False, True]), [0, 255]),
        (np.array([3 + 4j, 0]), [255, 0]),
    ],
)
def test_any_dtype_is_shown(values: Any, greys: list[int]) -> None:
    shown = images.to_display(np.asarray(values)[None])
    assert shown.dtype == np.uint8
    expected = np.repeat(np.array(greys)[None, :, None], 3, -1)
    np.testing.assert_allclose(shown, expected, atol=0.5 + (128 in greys))


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (5, [0, 1, 2])])
def test_other_numbers_of_channels_show_the_first(channels: int, shown: list[int]) -> None:
    values = np.random.default_rng(1).integers(0, 256, (4, 5, channels)).astype(np.uint8)
    np.testing.assert_array_equal(images.to_display(values), values[..., shown])


def dropped_by(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask, values, 0).astype(values.dtype)


def test_a_small_image_is_magnified_whole() -> None:
    values = colours(50, 60)
    mask = np.random.default_rng(1).random(values.shape) > 0.3
    tiles, part, overview = images.show_drop((values, dropped_by(values, mask), mask))
    assert (part, overview) == ("", None)
    for tile, shown in zip(tiles, (values, dropped_by(values, mask), 255 * mask), strict=True):
        assert tile.shape == (200, 240, 3)
        np.testing.assert_array_equal(tile[::4, ::4], shown)
        np.testing.assert_array_equal(tile[3::4, 2::4], shown)


def test_of_a_large_image_the_middle_is_shown_and_marked() -> None:
    values = colours(400, 300)
    mask = np.random.default_rng(1).random(values.shape) > 0.3
    tiles, part, overview = images.show_drop((values, dropped_by(values, mask), mask))
    assert part == "middle 128x128"
    middle = (slice(136, 264), slice(86, 214))
    np.testing.assert_array_equal(tiles[0][::2, ::2], values[middle])
    np.testing.assert_array_equal(tiles[1][::2, ::2], dropped_by(values, mask)[middle])
    np.testing.assert_array_equal(tiles[2][::2, ::2], 255 * mask[middle])
    assert overview is not None
    assert overview.shape == (128, 96, 3)
    assert (overview == (224, 32, 32)).all(-1).sum() > 100


def test_where_whole_channels_drop_the_whole_image_is_shown() -> None:
    values, mask = colours(400, 800), np.array([True, False, True])
    tiles, part, overview = images.show_drop((values, dropped_by(values, mask), mask))
    assert (part, overview) == ("", None)
    assert {tile.shape for tile in tiles} == {(128, 256, 3)}
    assert (tiles[1][..., 1] == 0).all()
    np.testing.assert_array_equal(tiles[2], np.broadcast_to([255, 0, 255], tiles[2].shape))


def test_more_channels_than_three_are_said_to_be_left_out() -> None:
    values = np.zeros((300, 20, 4), np.float32)
    mask = np.random.default_rng(1).random(values.shape) > 0.3
    _, part, _ = images.show_drop((values, values, mask))
    assert part == "middle 128x20, channels 0 to 2"


def test_transparent_pixels_are_shown_on_checks() -> None:
    values, alpha = colours(20, 20), np.zeros((20, 20), np.uint8)
    alpha[:10] = 255
    tiles, _, _ = images.show_drop((values, values, np.ones_like(values, bool)), alpha)
    np.testing.assert_array_equal(tiles[0][:120:12, ::12], values[:10])
    assert set(np.unique(tiles[0][120:])) == {215, 255}


@pytest.mark.parametrize("overview", [None, np.zeros((128, 64, 3), np.uint8)])
def test_a_contact_sheet_holds_its_tiles(overview: np.ndarray | None) -> None:
    tiles = (np.full((256, 256, 3), 10, np.uint8), np.full((100, 200, 3), 20, np.uint8))
    label = ("a very long name of a file that cannot fit, \u4e2d\udce9.png", "detail")
    strips = [images.Strip(label, tiles, ("", "caption"), overview)] * 2
    file = io.BytesIO()
    images.write_contact_sheet(file, "title", ("first", "second"), strips)
    sheet = np.asarray(Image.open(file))
    assert (sheet == 10).all(-1).sum() == 2 * 256 * 256
    assert (sheet == 20).all(-1).sum() == 2 * 100 * 200
