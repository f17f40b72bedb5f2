"""Shows images and masks: contact sheets, overlays.

Takes arrays of any dtype, and returns (H, W, 3) uint8 arrays, which any plotting or imaging library
takes. Nothing here is random, writes a file, or needs more than NumPy.

    plt.imshow(dropax.images.mask_overlay(image, keep_mask))
    PIL.Image.fromarray(dropax.images.contact_sheet(images)).save("sheet.png")
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from dropax.kit.arrays import as_array
from dropax.kit.errors import is_number, must, require_number, require_whole
from dropax.kit.serialization import plain

_LARGEST = float(np.finfo(np.float64).max)


def contact_sheet(
    images: Iterable[ArrayLike],
    *,
    columns: int | None = None,
    gap: int = 2,
    background: int | tuple[int, int, int] = 255,
    span: tuple[float, float] | None = None,
) -> np.ndarray:
    """Lays images out in rows, from the top left.

    Args:
      images: a batch, (N, H, W) or (N, H, W, C), or a sequence of images (H, W) or (H, W, C), of
        any sizes and dtypes. Each is shown as by `to_display`, in the middle of its cell.
      columns: images in a row; None for about a square.
      gap: pixels between images.
      background: color between images, a gray value or (red, green, blue).
      span: the values shown as black and white. By default 0 and 255 for uint8, False and True for
        bool, and for any other dtype the least and the greatest finite value of all images of that
        dtype, so that a value looks the same in all of them.

    Returns:
      Shape (H, W, 3), uint8.

    Raises:
      TypeError: if `columns` or `gap` is not an int, or `span` not a pair of numbers.
      ValueError: if there is no image, one has another number of axes, or an argument is out of
        range.

    Example:
      >>> batch = np.random.default_rng(0).random((6, 32, 32, 3))
      >>> contact_sheet([*batch, *(batch > 0.2)], columns=6).shape
      (66, 202, 3)
    """
    arrays = [_image(image, f"contact_sheet.images[{n}]") for n, image in enumerate(images)]
    if not arrays:
        raise ValueError("contact_sheet.images must hold an image; got none.")
    columns, gap = plain(columns), plain(gap)
    columns = math.ceil(math.sqrt(len(arrays))) if columns is None else columns
    require_whole("contact_sheet.columns", columns, 1)
    require_whole("contact_sheet.gap", gap, 0)
    dtypes = {array.dtype for array in arrays}
    spans = {dtype: display_span(*(a for a in arrays if a.dtype == dtype)) for dtype in dtypes}
    tiles = [to_display(array, spans[array.dtype] if span is None else span) for array in arrays]

    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.shape[0] for tile in row) for row in rows]
    widths = [max(tile.shape[1] for tile in tiles[at::columns]) for at in range(len(rows[0]))]
    # Where each row and column of cells starts, and after the last one and its gap.
    tops, lefts = (np.cumsum([0, *(size + gap for size in sizes)]) for sizes in (heights, widths))
    sheet = np.empty((tops[-1] - gap, lefts[-1] - gap, 3), np.uint8)
    sheet[:] = _color(background, "contact_sheet.background")
    for row, top, height in zip(rows, tops, heights, strict=False):
        for tile, left, width in zip(row, lefts, widths, strict=False):
            y, x = top + (height - tile.shape[0]) // 2, left + (width - tile.shape[1]) // 2
            sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return sheet


def mask_overlay(
    image: ArrayLike,
    keep_mask: ArrayLike,
    *,
    color: tuple[int, int, int] = (255, 0, 128),
    opacity: float = 0.8,
    span: tuple[float, float] | None = None,
) -> np.ndarray:
    """Paints the dropped values of an image in a color.

    Args:
      image: shape (H, W) or (H, W, C), any dtype; shown as by `to_display`.
      keep_mask: kept if not zero. Broadcasts to the image, such as one record of the mask of
        `generate_random_params` or of the field that `mask_key` names.
      color: (red, green, blue) of dropped pixels. The fewer channels of a pixel are dropped, the
        fainter.
      opacity: of the color if all channels are dropped, in [0, 1].
      span: as in `to_display`.

    Returns:
      Shape (H, W, 3), uint8.

    Raises:
      TypeError: if `opacity` is not a number, or `span` not a pair of numbers.
      ValueError: if a shape does not fit, or an argument is out of range.

    Example:
      >>> picture = sample_picture(64)
      >>> keep_mask = np.arange(64) < 48  # drops the columns on the right
      >>> mask_overlay(picture, keep_mask[:, None], opacity=1)[0, -1]
      array([255,   0, 128], dtype=uint8)
    """
    values = _image(image, "mask_overlay.image")
    mask = np.asarray(as_array(keep_mask, "mask_overlay.keep_mask")) != 0
    try:
        dropped = ~np.broadcast_to(mask, values.shape)
    except ValueError:
        name, cure = "mask_overlay.keep_mask", ""
        if mask.shape == values.shape[:2]:
            cure = "Give it an axis for the channels: keep_mask[..., None]."
        constraint = f"broadcast to the image's shape {values.shape}"
        raise ValueError(must(name, constraint, mask, cure)) from None
    require_number("mask_overlay.opacity", opacity)
    if not 0 <= opacity <= 1:
        raise ValueError(must("mask_overlay.opacity", "be in [0, 1]", opacity))
    paint = _color(color, "mask_overlay.color")
    cover = opacity * dropped.reshape(*values.shape[:2], -1).mean(axis=-1, keepdims=True)
    shown = to_display(values, span).astype(np.float64)
    return np.rint(shown + (paint - shown) * cover).astype(np.uint8)


def to_display(values: ArrayLike, span: tuple[float, float] | None = None) -> np.ndarray:
    """Converts an array of any dtype to an RGB image.

    Args:
      values: shape (H, W) or (H, W, C). The first three channels are shown; of one or two, the
        first as gray. Complex numbers show their magnitude.
      span: the values shown as black and white. By default 0 and 255 for uint8, False and True for
        bool, and for any other dtype the least and the greatest finite value.

    Returns:
      Shape (H, W, 3), uint8. NaN is black.

    Raises:
      TypeError: if `span` is not a pair of numbers.
      ValueError: if `values` has another number of axes, or `span` does not increase.

    Example:
      >>> to_display(np.array([[0.0, 0.5, 1.0]]))[0, :, 0]
      array([  0, 128, 255], dtype=uint8)
    """
    image = _image(values, "to_display.values")
    low, high = display_span(image) if span is None else _checked_span(span)
    shown = image[..., None] if image.ndim == 2 else image
    shown = shown[..., :3] if shown.shape[-1] > 2 else np.repeat(shown[..., :1], 3, axis=-1)
    if shown.dtype == np.uint8 and (low, high) == (0, 255):
        return shown
    # Divided first: the difference of two large floats could overflow.
    scale = max(abs(low), abs(high))
    shown = _magnitude(shown).astype(np.float64)
    with np.errstate(all="ignore"):
        shown = (shown / scale - low / scale) / (high / scale - low / scale)
    shown = np.nan_to_num(shown, nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)


def display_span(*arrays: np.ndarray) -> tuple[float, float]:
    """Returns the values shown as black and white, for arrays of one dtype."""
    if arrays[0].dtype in (np.uint8, np.bool_):
        return 0.0, 255.0 if arrays[0].dtype == np.uint8 else 1.0
    finite = [part[np.isfinite(part)] for part in map(_magnitude, arrays)]
    bounds = [float(end) for part in finite if part.size for end in (part.min(), part.max())]
    low, high = min(bounds, default=0.0), max(bounds, default=0.0)
    if low == high:  # one value alone is shown against zero
        low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if low < high else (0.0, 1.0)


def _magnitude(values: np.ndarray) -> np.ndarray:
    return np.abs(values) if np.iscomplexobj(values) else values


def _image(values: ArrayLike, name: str) -> np.ndarray:
    image = np.asarray(as_array(values, name))
    if image.ndim not in (2, 3) or not image.size:
        raise ValueError(
            must(name, "have shape (height, width) or (height, width, channels)", image)
        )
    return image


def _checked_span(span: Any) -> tuple[float, float]:
    span = plain(span)
    if not (isinstance(span, tuple) and len(span) == 2 and all(map(is_number, span))):
        raise TypeError(must("span", "be two numbers, (black, white)", span))
    if not -_LARGEST <= span[0] < span[1] <= _LARGEST:
        raise ValueError(must("span", "be two finite numbers, the lower first", span))
    return float(span[0]), float(span[1])


def _color(color: Any, name: str) -> np.ndarray:
    values = np.asarray(color)
    if values.shape not in ((), (3,)) or values.dtype.kind not in "iu":
        raise ValueError(must(name, "be (red, green, blue), each in [0, 255]", color))
    if values.min() < 0 or values.max() > 255:
        raise ValueError(must(name, "be in [0, 255]", color))
    return values.astype(np.uint8)


def sample_picture(size: int = 128) -> np.ndarray:
    """Paints a small landscape at sunset.

    Args:
      size: its height and width.

    Returns:
      Shape (size, size, 3), uint8. No value is 0, so that dropped values show.

    Example:
      >>> sample_picture(64).shape
      (64, 64, 3)
    """
    require_whole("sample_picture.size", plain(size), 1)
    y, x = np.mgrid[0:size, 0:size] / size
    shore = 0.74
    # Below the shore lies a lake: it shows what is above, mirrored, rippled and a little darker.
    depth = np.maximum(y - shore, 0)
    ripple = 0.012 * np.sin(260 * np.sqrt(depth + 0.01)) * (depth > 0)
    height = np.where(depth > 0, shore - 1.7 * depth, y)
    x = x + ripple

    def blend(under: np.ndarray, color: tuple[int, int, int], cover: np.ndarray) -> np.ndarray:
        return under + (np.array(color) - under) * cover[..., None]

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
    for top, color in ridges:
        scene = blend(scene, color, np.clip((height - top) * size, 0, 1))
    scene = blend(scene, (40, 70, 120), 0.28 * (depth > 0))
    return np.clip(np.rint(scene), 1, 255).astype(np.uint8)
