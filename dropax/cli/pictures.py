"""Reads and writes picture files. Pillow is optional, so it is imported where it is used."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclasses.dataclass(frozen=True)
class Picture:
    """The pixels of a picture file.

    Attributes:
      values: shape (H, W) or (H, W, 3), uint8, or uint16 if 16-bit gray.
      alpha: opacity, shape (H, W), uint8, or None. Not part of `values`.
      icc_profile: the color profile, as in the file, or None.
      remarks: what the file held that is not here, in words.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None
    remarks: tuple[str, ...] = ()


def require_pillow(owner: str) -> None:
    """Raises an ImportError that says what needs Pillow, if it is missing."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise ImportError(f"{owner} needs Pillow; pip install 'dropax[image]'") from None


@contextlib.contextmanager
def reading(noun: str) -> Iterator[None]:
    """Raises a ValueError for whatever a decoder raises on broken bytes, and no warnings.

    Errors of the operating system remain OSError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:  # decoders raise SyntaxError, struct.error, EOFError, ...
            if isinstance(error, MemoryError) or getattr(error, "strerror", None):
                raise
            why = str(error) or type(error).__name__
            raise ValueError(f"cannot be read as {noun}: {why}") from error


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Reads a PNG, JPEG or WebP file, the right way up.

    Palettes and CMYK become RGB, 1-bit becomes 8-bit gray, transparency of any kind an alpha
    channel. Of an animation the first frame is read, of 16-bit colors the upper 8 bits; a remark
    says so.

    Raises:
      ImportError: if Pillow is missing.
      OSError: if the file cannot be opened.
      ValueError: if it is no whole picture, or decompresses to more pixels than Pillow allows.
    """
    require_pillow("a picture")
    from PIL import Image, ImageOps, UnidentifiedImageError

    with reading("a picture"):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            opened = Image.open(path, formats=("PNG", "JPEG", "WEBP"))
        except UnidentifiedImageError:
            raise ValueError("it is not a PNG, JPEG or WebP file") from None
        with opened:
            mode, remarks = opened.mode, _remarks(opened)
            image = ImageOps.exif_transpose(opened)
            if mode.startswith("I"):
                gray = np.asarray(image)  # 32 bits in older Pillow
                if gray.min() < 0 or gray.max() > 0xFFFF:
                    raise ValueError("its gray values do not fit into 16 bits")
                return Picture(gray.astype(np.uint16), remarks=remarks)
            image = image.convert(_plain_mode(image))
            pixels = np.array(image)
            # A profile describes the file's own colors; converted ones are sRGB.
            same = mode in ("L", "LA", "RGB", "RGBA")
            profile = opened.info.get("icc_profile") if same else None
    if image.mode in ("LA", "RGBA"):
        values = pixels[..., 0] if image.mode == "LA" else pixels[..., :3]
        return Picture(np.ascontiguousarray(values), pixels[..., -1].copy(), profile, remarks)
    return Picture(pixels, None, profile, remarks)


def _remarks(opened: Any) -> tuple[str, ...]:
    """Says what Pillow does not read: further frames, and the lower half of 16-bit colors."""
    remarks = []
    frames = getattr(opened, "n_frames", 1)
    if frames > 1:
        remarks.append(f"only the first of its {frames} frames was read")
    stored = [part[3] if isinstance(part[3], str) else "" for part in opened.tile]
    if not opened.mode.startswith("I") and any(";16" in raw for raw in stored):
        remarks.append("its 16 bits a channel were cut to 8")
    return tuple(remarks)


def _plain_mode(image: Any) -> str:
    plain = "L" if image.mode in ("1", "L", "LA") else "RGB"
    return plain + "A" if image.has_transparency_data else plain


def write_picture(file: BinaryIO, picture: Picture) -> None:
    """Writes a picture as PNG."""
    require_pillow("a picture")
    from PIL import Image

    pixels = picture.values
    if picture.alpha is not None:
        pixels = np.dstack([pixels, picture.alpha])
    Image.fromarray(pixels).save(file, format="PNG", icc_profile=picture.icc_profile)
