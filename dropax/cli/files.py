"""Files in and out: which are read, the arrays that they hold, and how they are written."""

import io
import os
import secrets
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from dropax.cli import pictures
from dropax.kit.errors import must

SUFFIXES = (*pictures.PICTURE_SUFFIXES, ".npy", ".npz")

Write = Callable[[BinaryIO], Any]
# (name, array, alpha or None) -> an object whose `after` is the new array.
Work = Callable[..., Any]


class Source(NamedTuple):
    """A file to read, and its POSIX path below the input folder, which identifies its records."""

    path: Path
    name: str

    @property
    def target(self) -> str:
        """The path of the result below the output folder."""
        path = PurePosixPath(self.name)
        is_picture = path.suffix.lower() in pictures.PICTURE_SUFFIXES
        return str(path.with_suffix(".png") if is_picture else path)


def find(
    text: str,
    out: str,
    skip: Callable[[Path, str], None],
    fail: Callable[[Any, Exception], None],
) -> list[Source]:
    """Lists the files to read of one input.

    Args:
      text: a file or a folder.
      out: the output folder, which is not searched.
      skip: called with each path in a folder that is not read, and why.
      fail: called with each folder that cannot be opened, and the error.

    Raises:
      OSError: if there is no such file.
      ValueError: if it is no file that can be read, or no folder that holds one.
    """
    path, ending = Path(text), f"whose name ends in one of {', '.join(SUFFIXES)}"
    if not stat.S_ISDIR(os.stat(text).st_mode):
        if not path.is_file() or path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"must be a folder or a file {ending}")
        return [Source(path, path.name)]
    sources: list[Path] = []
    closed: list[OSError] = []
    own = os.path.realpath(out)
    for folder, below, names in os.walk(path, onerror=closed.append):
        below[:] = sorted(name for name in below if os.path.realpath(Path(folder, name)) != own)
        for link in (Path(folder, name) for name in below):
            if link.is_symlink():
                skip(link, "skipped, a link to a folder")
        for file in (Path(folder, name) for name in sorted(names)):
            if file.suffix.lower() not in SUFFIXES:
                skip(file, "skipped, not a picture or array that dropax reads")
            elif file.is_fifo():  # reading it would block
                skip(file, "skipped, a pipe")
            else:
                sources.append(file)
    for error in closed:
        fail(error.filename, error)
    if not sources and not closed:
        raise ValueError(f"holds no file {ending}")
    return [Source(file, file.relative_to(path).as_posix()) for file in sorted(sources)]


def work_on(source: Source, work: Work) -> tuple[list[Any], Write, tuple[str, ...]]:
    """Reads a file and works on each array that it holds.

    Args:
      source: the file, of the format that its suffix says.
      work: called as `work(name, array, alpha)`; returns an object whose `after` is the new array.

    Returns:
      What `work` returned; a function that writes the new file; and what the old one held that the
      new one does not, in words.
    """
    suffix = source.path.suffix.lower()
    if suffix == ".npz":
        return (*_work_on_archive(source, work), ())
    if suffix == ".npy":
        with open(source.path, "rb") as file:
            result = work(source.name, _read_array(file))
        return [result], lambda file: np.save(file, result.after, allow_pickle=False), ()
    picture = pictures.read_picture(source.path)
    result = work(source.name, picture.values, picture.alpha)
    dropped = pictures.Picture(result.after, picture.alpha, picture.icc_profile)
    return [result], lambda file: pictures.write_picture(file, dropped), picture.remarks


def write_whole(target: Path, write: Write) -> None:
    """Writes a file beside its place, then moves it there: it is whole or absent."""
    scratch = target.with_name(f".dropax-{secrets.token_hex(8)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(scratch, "xb") as file:
                write(file)
            os.replace(scratch, target)
        finally:  # after Ctrl-C too
            scratch.unlink(missing_ok=True)
    except OSError as error:  # of the result, not of what was read
        raise OSError(f"{target} cannot be written: {error.strerror or error}") from error


def _work_on_archive(source: Source, work: Work) -> tuple[list[Any], Write]:
    with pictures.reading("an npz archive"), zipfile.ZipFile(source.path) as archive:
        members = {info.filename: (info, archive.read(info)) for info in archive.infolist()}
    results = []
    for member, (info, content) in members.items():
        try:
            array = _read_array(io.BytesIO(content))
        except ValueError:
            continue  # nothing to drop: copied as bytes
        results.append(work(f"{source.name}::{member.removesuffix('.npy')}", array))
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
    # JAX has no wider numbers.
    if array.dtype.kind not in "biufc" or bits > 64 or not 2 <= array.ndim <= 4 or not array.size:
        kind = "hold numbers or bools of up to 64 bits, as (H, W), (H, W, C) or (N, H, W, C)"
        raise ValueError(must("the array", kind, array))
    return array
