"""Pictures in and out."""

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropax.cli import pictures


def colors(height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (height, width, 3)).astype(np.uint8)


def written(picture: pictures.Picture, path: Path) -> Path:
    with open(path, "wb") as file:
        pictures.write_picture(file, picture)
    return path


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_a_written_picture_is_read_back_as_it_was(
    tmp_path: Path, shape: tuple[int, ...], with_alpha: bool
) -> None:
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    alpha = np.arange(35, dtype=np.uint8).reshape(5, 7) if with_alpha else None
    path = written(pictures.Picture(values, alpha, b"a profile"), tmp_path / "a.png")
    picture = pictures.read_picture(path)
    np.testing.assert_array_equal(picture.values, values)
    assert picture.icc_profile == b"a profile"
    if alpha is None:
        assert picture.alpha is None
    else:
        np.testing.assert_array_equal(picture.alpha, alpha)


def test_sixteen_bit_gray_keeps_its_bits(tmp_path: Path) -> None:
    values = np.array([[0, 1, 256], [40000, 65534, 65535]], np.uint16)
    picture = pictures.read_picture(written(pictures.Picture(values), tmp_path / "a.png"))
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
def test_every_mode_becomes_gray_or_color(
    tmp_path: Path, mode: str, suffix: str, shape: tuple[int, ...], has_alpha: bool
) -> None:
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(colors()).convert(mode)
    if has_alpha:
        image.putalpha(100)
    image.save(path)
    picture = pictures.read_picture(path)
    assert picture.values.shape == shape
    assert picture.values.dtype == np.uint8
    assert (picture.alpha is not None) == has_alpha
    if mode == "1":
        assert set(np.unique(picture.values)) == {0, 255}


def test_a_transparent_palette_entry_becomes_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), mode=None).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png", transparency=1)
    picture = pictures.read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.values, [[[255, 0, 0], [0, 255, 0]]])
    np.testing.assert_array_equal(picture.alpha, [[255, 0]])


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top is at the right of what is stored
    values = colors()
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    picture = pictures.read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.values, np.rot90(values, -1))


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    values = pictures.read_picture(tmp_path / "a.webp").values
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
        pictures.read_picture(tmp_path / "a.png")


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(ValueError, match="it is not a PNG, JPEG or WebP file"):
        pictures.read_picture(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError):
        pictures.read_picture(tmp_path / "b.png")


def test_without_pillow_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"a picture needs Pillow; pip install 'dropax\[image\]'"):
        pictures.read_picture(tmp_path / "a.png")
