"""Pictures in and out, contact sheets.

Given a picture file, returns arrays; given arrays and masks, returns what an eye can see of them.
Nothing here is random. Pillow is imported where it is used, and is asked for by name if missing.
"""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
TILE = 256
"""The longest side of a tile of a contact sheet, in its pixels."""

_LABEL_WIDTH = 200
_GAP = 12
_LINE = 18
_PAPER, _INK, _FAINT, _EDGE = "#fafafa", "#202020", "#707070", "#b0b0b0"
_MARK = (224, 32, 32)


@dataclasses.dataclass(frozen=True)
class Picture:
    """The pixels of a picture file.

    Attributes:
      values: shape (H, W) or (H, W, 3), uint8, or uint16 for a 16-bit grey one.
      alpha: opacity, shape (H, W), uint8, or None. Not part of `values`.
      icc_profile: what the values mean as colours, as the file says it, or None.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None


@dataclasses.dataclass(frozen=True)
class Strip:
    """One row of a contact sheet.

    Attributes:
      label: the lines at its left, the first of them the heading.
      tiles: pictures, each (H, W, 3) uint8.
      captions: a line under each tile; may be empty.
      overview: a small picture under the label, or None.
    """

    label: tuple[str, ...]
    tiles: tuple[np.ndarray, ...]
    captions: tuple[str, ...]
    overview: np.ndarray | None = None


def require_pillow(owner: str) -> None:
    """Refuses to go on without Pillow.

    Args:
      owner: what needs it, for the error.

    Raises:
      ImportError: if it is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise ImportError(f"{owner} needs Pillow; pip install 'dropax[image]'") from None


@contextlib.contextmanager
def reading(noun: str) -> Iterator[None]:
    """Turns whatever a decoder raises on broken bytes into one kind of error.

    A decoder's warnings are silenced: what it can read counts as read.

    Args:
      noun: what is being read, with its article.

    Raises:
      ValueError: if the bytes are not what they should be.
      OSError: if the operating system does not hand them out.
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

    Palettes and CMYK become RGB, 1-bit becomes 8-bit grey, transparency of any kind an alpha
    channel. Of an animation, the first frame is read.

    Args:
      path: the file.

    Returns:
      The picture.

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
            raise ValueError("it does not begin as a PNG, JPEG or WebP file does") from None
        with opened:
            mode = opened.mode
            image = ImageOps.exif_transpose(opened)
            if mode.startswith("I"):
                grey = np.asarray(image)  # 32 bits in older Pillow
                if grey.min() < 0 or grey.max() > 0xFFFF:
                    raise ValueError("its grey values do not fit into 16 bits")
                return Picture(grey.astype(np.uint16))
            image = image.convert(_plain_mode(image))
            pixels = np.array(image)
            # A profile describes the file's own colours; converted ones are sRGB.
            same = mode in ("L", "LA", "RGB", "RGBA")
            profile = opened.info.get("icc_profile") if same else None
    if image.mode in ("LA", "RGBA"):
        values = pixels[..., 0] if image.mode == "LA" else pixels[..., :3]
        return Picture(np.ascontiguousarray(values), pixels[..., -1].copy(), profile)
    return Picture(pixels, None, profile)


def _plain_mode(image: Any) -> str:
    plain = "L" if image.mode in ("1", "L", "LA") else "RGB"
    return plain + "A" if image.has_transparency_data else plain


def write_picture(file: BinaryIO, picture: Picture) -> None:
    """Writes a picture as PNG.

    Args:
      file: open for writing.
      picture: as from `read_picture`.

    Raises:
      ImportError: if Pillow is missing.
    """
    require_pillow("a picture")
    from PIL import Image

    pixels = picture.values
    if picture.alpha is not None:
        pixels = np.dstack([pixels, picture.alpha])
    Image.fromarray(pixels).save(file, format="PNG", icc_profile=picture.icc_profile)


def sample_picture(size: int = 128) -> np.ndarray:
    """Paints a small landscape at sunset.

    Args:
      size: its height and width.

    Returns:
      Shape (size, size, 3), uint8. No value is 0, so that what is dropped can be seen.
    """
    y, x = np.mgrid[0:size, 0:size] / size
    shore = 0.74
    # Below the shore lies a lake: it shows what is above, mirrored, rippled and a little darker.
    depth = np.maximum(y - shore, 0)
    ripple = 0.012 * np.sin(260 * np.sqrt(depth + 0.01)) * (depth > 0)
    height = np.where(depth > 0, shore - 1.7 * depth, y)
    x = x + ripple

    def blend(under: np.ndarray, colour: tuple[int, int, int], cover: np.ndarray) -> np.ndarray:
        return under + (np.array(colour) - under) * cover[..., None]

    fade = np.clip(height / 0.62, 0, 1) ** 1.4
    scene = blend(
        np.broadcast_to(np.array([72.0, 120, 205]), (size, size, 3)), (255, 205, 150), fade
    )
    distance = np.hypot(x - 0.66, height - 0.36)
    scene = blend(scene, (255, 236, 170), 0.8 * np.exp(-((distance / 0.2) ** 2)))
    scene = blend(scene, (255, 246, 214), np.clip((0.085 - distance) * size, 0, 1))
    ridges = (
        (0.52 + 0.05 * np.sin(7 * x + 0.5) + 0.022 * np.sin(19 * x), (150, 140, 185)),
        (0.60 + 0.04 * np.sin(9 * x + 2.2) + 0.012 * np.sin(31 * x), (95, 125, 135)),
        (0.68 + 0.03 * np.sin(6 * x + 4.4), (70, 120, 75)),
    )
    for top, colour in ridges:
        scene = blend(scene, colour, np.clip((height - top) * size, 0, 1))
    scene = blend(scene, (40, 70, 120), 0.28 * (depth > 0))
    return np.clip(np.rint(scene), 1, 255).astype(np.uint8)


def show_drop(
    views: Sequence[np.ndarray], alpha: np.ndarray | None = None
) -> tuple[tuple[np.ndarray, ...], str, np.ndarray | None]:
    """Shows an image before and after, and its keep mask, so that what was dropped can be seen.

    A small image is magnified. Of a large one the middle is shown magnified, because a smaller
    copy would blur dropped pixels into a grey veil; but where whole channels are kept or dropped,
    the smaller copy loses nothing and is shown.

    Args:
      views: the image, (H, W) or (H, W, C) of any dtype; the same after the drop; the keep mask, of
        a shape that broadcasts to it.
      alpha: opacity, (H, W) uint8, or None.

    Returns:
      The tiles, (H, W, 3) uint8; which part of the image they show, in words, or ""; a small copy
      of the whole with that part marked, or None where the tiles show all of it.
    """
    values, dropped, keep_mask = views
    mask = np.broadcast_to(keep_mask, values.shape)
    span = _span(values)

    def view(rows: slice, columns: slice) -> tuple[np.ndarray, ...]:
        tiles = [to_display(array[rows, columns], span) for array in (values, dropped)]
        if alpha is not None:
            tiles = [_on_checks(tile, alpha[rows, columns]) for tile in tiles]
        return (*tiles, _three_channels(mask[rows, columns]) * np.uint8(255))

    part = "channels 0 to 2" if values.ndim == 3 and values.shape[2] > 3 else ""
    longest = max(values.shape[:2])
    if longest <= TILE:
        return tuple(map(magnified, view(slice(None), slice(None)))), part, None
    # Thinned out before it is converted, which bounds the work.
    thin = slice(None, None, max(1, longest // (4 * TILE)))
    whole = view(thin, thin)
    if (mask == mask[:1, :1]).all():
        return tuple(_shrunk(tile, TILE) for tile in whole), part, None
    rows, columns = map(_middle, values.shape[:2])
    tiles = view(rows, columns)
    part = f"middle {tiles[0].shape[0]}x{tiles[0].shape[1]}, {part}".removesuffix(", ")
    overview = _marked(_shrunk(whole[0], TILE // 2), rows, columns, values.shape)
    return tuple(map(magnified, tiles)), part, overview


def to_display(values: np.ndarray, span: tuple[float, float] | None = None) -> np.ndarray:
    """Makes an array visible.

    Args:
      values: shape (H, W) or (H, W, C). Of more than three channels the first three are shown, of
        two the first, and of complex numbers the magnitude.
      span: the values that become black and white; left out, 0 and 255 of uint8, and of
        other dtypes the least and the greatest finite value.

    Returns:
      Shape (H, W, 3), uint8. NaN is black.
    """
    values = _three_channels(values)
    if values.dtype == np.uint8:
        return values
    low, high = _span(values) if span is None else span
    # Divided first: the difference of two large floats could overflow.
    scale = max(abs(low), abs(high))
    values = _magnitude(values).astype(np.float64)
    with np.errstate(all="ignore"):
        shown = (values / scale - low / scale) / (high / scale - low / scale)
    shown = np.nan_to_num(shown, nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)


def _span(values: np.ndarray) -> tuple[float, float]:
    if values.dtype in (np.uint8, np.bool_):
        return 0.0, 255.0 if values.dtype == np.uint8 else 1.0
    values = _magnitude(values)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if low == high:  # one value alone is shown against zero
        low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if low < high else (0.0, 1.0)


def _magnitude(values: np.ndarray) -> np.ndarray:
    return np.abs(values) if np.iscomplexobj(values) else values


def _three_channels(values: np.ndarray) -> np.ndarray:
    if values.ndim == 2:
        values = values[..., None]
    return np.repeat(values[..., :1], 3, -1) if values.shape[-1] < 3 else values[..., :3]


def _on_checks(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    y, x = np.indices(alpha.shape) // 8
    checks = np.where((y + x) % 2, 255.0, 215.0)[..., None]
    opacity = alpha[..., None] / 255
    return np.rint(checks + (colours - checks) * opacity).astype(np.uint8)


def _middle(size: int) -> slice:
    start = max(0, (size - TILE // 2) // 2)
    return slice(start, min(size, start + TILE // 2))


def magnified(colours: np.ndarray) -> np.ndarray:
    """Repeats the pixels of a small picture as often as fits into a tile."""
    factor = max(1, TILE // max(colours.shape[:2]))
    return colours.repeat(factor, 0).repeat(factor, 1)


def _shrunk(colours: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    height, width = colours.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(colours).resize(size, Image.Resampling.LANCZOS))


def _marked(
    overview: np.ndarray, rows: slice, columns: slice, shape: tuple[int, ...]
) -> np.ndarray:
    """Draws a frame round a part of the image that a small copy shows."""
    (top, bottom), (left, right) = (
        (part.start * size // full, max(1, part.stop * size // full))
        for part, size, full in zip((rows, columns), overview.shape, shape, strict=False)
    )
    inside = np.zeros(overview.shape[:2], bool)
    inside[top:bottom, left:right] = True
    inside[top + 1 : bottom - 1, left + 1 : right - 1] = False
    overview[inside] = _MARK
    return overview


def write_contact_sheet(
    file: BinaryIO, title: str, columns: Sequence[str], strips: Sequence[Strip]
) -> None:
    """Writes a contact sheet as PNG: rows of tiles with labels.

    Args:
      file: open for writing.
      title: the line at the top.
      columns: a heading for each column of tiles.
      strips: the rows, from the top.

    Raises:
      ImportError: if Pillow is missing.
    """
    require_pillow("a contact sheet")
    from PIL import Image, ImageDraw, ImageFont, features

    font = ImageFont.load_default(13 if features.check("freetype2") else None)
    top = 2 * _GAP + 2 * _LINE
    width = _LABEL_WIDTH + 2 * _GAP + len(columns) * (TILE + _GAP)
    sheet = Image.new("RGB", (width, top + sum(map(_height, strips))), _PAPER)
    draw = ImageDraw.Draw(sheet)

    def write(x: int, y: int, text: str, room: int, ink: str = _INK) -> None:
        draw.text((x, y), _fitted(text, room, lambda line: draw.textlength(line, font)), ink, font)

    def place(x: int, y: int, tile: np.ndarray) -> None:
        sheet.paste(Image.fromarray(np.ascontiguousarray(tile)), (x, y))
        draw.rectangle((x - 1, y - 1, x + tile.shape[1], y + tile.shape[0]), outline=_EDGE)

    lefts = [_LABEL_WIDTH + 2 * _GAP + number * (TILE + _GAP) for number in range(len(columns))]
    write(_GAP, _GAP, title, width - 2 * _GAP)
    for left, heading in zip(lefts, columns, strict=True):
        write(left, _GAP + _LINE + 4, heading, TILE, _FAINT)
    y = top
    for strip in strips:
        for number, line in enumerate(strip.label):
            write(_GAP, y + number * _LINE, line, _LABEL_WIDTH, _FAINT if number else _INK)
        if strip.overview is not None:
            place(_GAP + 1, y + len(strip.label) * _LINE + 4, strip.overview)
        for left, tile, caption in zip(lefts, strip.tiles, strip.captions, strict=True):
            place(left, y, tile)
            write(left, y + tile.shape[0] + 3, caption, TILE, _FAINT)
        y += _height(strip)
    sheet.save(file, format="PNG")


def _height(strip: Strip) -> int:
    label = len(strip.label) * _LINE
    label += 0 if strip.overview is None else strip.overview.shape[0] + 6
    return max(label, _LINE + max(tile.shape[0] for tile in strip.tiles)) + _GAP


def _fitted(text: str, room: int, measure: Any) -> str:
    """Returns a line with its middle left out where it is too long, for a font of few letters."""
    shown = text = text.encode("latin-1", "replace").decode("latin-1")
    for cut in range(4, len(text)):
        if measure(shown) <= room:
            break
        kept = len(text) - cut
        shown = f"{text[: kept // 2]}...{text[kept // 2 + cut :]}"
    return shown
