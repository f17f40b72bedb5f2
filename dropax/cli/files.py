"""Files in and out: what is dropped in a picture, an array or an archive of arrays.

Given a file and a function that works on one array, returns its results, and what writes the file
with them as it came: the same format, dtype, alpha channel and colour profile.
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dropax.cli import pictures
from dropax.kit.errors import must

SUFFIXES = (*pictures.PICTURE_SUFFIXES, ".npy", ".npz")

Write = Callable[[BinaryIO], Any]
# (name, array, alpha or None) -> an object whose `after` is the new array.
Work = Callable[..., Any]


def work_on(source: Path, name: str, work: Work) -> tuple[list[Any], Write, tuple[str, ...]]:
    """Reads a file and works on each array that it holds.

    Args:
      source: the file; its suffix, one of `SUFFIXES`, says what it is.
      name: what its arrays are called.
      work: called as `work(name, array, alpha)`; returns an object whose `after` is the new array.

    Returns:
      (results, write, remarks): what `work` returned, a function that writes the new file, and what
      of the old one is not in it, in words.

    Raises:
      ImportError: if Pillow is missing.
      OSError: if the file cannot be opened.
      ValueError: if it cannot be read as what it should be.
    """
    suffix = source.suffix.lower()
    if suffix == ".npz":
        return (*_work_on_archive(source, name, work), ())
    if suffix == ".npy":
        with open(source, "rb") as file:
            result = work(name, _read_array(file))
        return [result], lambda file: np.save(file, result.after, allow_pickle=False), ()
    picture = pictures.read_picture(source)
    result = work(name, picture.values, picture.alpha)
    dropped = pictures.Picture(result.after, picture.alpha, picture.icc_profile)
    return [result], lambda file: pictures.write_picture(file, dropped), picture.remarks


def _work_on_archive(source: Path, name: str, work: Work) -> tuple[list[Any], Write]:
    with pictures.reading("an npz archive"), zipfile.ZipFile(source) as archive:
        members = {info.filename: (info, archive.read(info)) for info in archive.infolist()}
    results = []
    for member, (info, content) in members.items():
        try:
            array = _read_array(io.BytesIO(content))
        except ValueError:
            continue  # nothing to drop: carried as the bytes it is
        results.append(work(f"{name}::{member.removesuffix('.npy')}", array))
        file = io.BytesIO()
        np.save(file, results[-1].after, allow_pickle=False)
        members[member] = (info, file.getvalue())
    if not results:
        raise ValueError("holds no array of numbers or bools with 2 to 4 axes")

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for info, content in members.values():
                archive.writestr(info, content)

    return results, write


def _read_array(file: BinaryIO) -> np.ndarray:
    with pictures.reading("an array"):
        array = np.lib.format.read_array(file, allow_pickle=False)
    bits = 8 * array.dtype.itemsize // (2 if array.dtype.kind == "c" else 1)
    # JAX has no longer numbers.
    if array.dtype.kind not in "biufc" or bits > 64 or not 2 <= array.ndim <= 4 or not array.size:
        kind = "hold numbers or bools of up to 64 bits, as (H, W), (H, W, C) or (N, H, W, C)"
        raise ValueError(must("the array", kind, array))
    return array
