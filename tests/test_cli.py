"""The command line, as its user meets it: what it does, shows, prints and refuses."""

import argparse
import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

import dropax
from dropax import Band, Box, Channel, Patch, Pixel, images
from dropax.cli import programs
from dropax.cli import sheet as sheets
from dropax.cli import table as tables
from dropax.cli.modes import parse_mode
from dropax.cli.run import main
from dropax.config import DropoutOperatorConfig
from dropax.modes import MODES, TYPES

ROOT = str(Path(dropax.__file__).parents[1])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob(".dropax-*")), "a temporary file was left"
    assert not jax.config.jax_enable_x64, "x64 has leaked"


def noise(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    """Values of which none is 0, unless they are bools."""
    values = np.random.default_rng(seed).integers(1, 100, shape)
    return np.ones(shape, dtype) if dtype is bool else values.astype(dtype)


def mask_of(
    name: str, index: int, shape: tuple[int, ...], rate: float, seed: int = 0
) -> np.ndarray:
    """The mask that the documentation promises, from JAX alone."""
    digest = hashlib.sha256(name.encode()).digest()
    key = jax.random.key(seed)
    for word in (digest[:4], digest[4:8]):
        key = jax.random.fold_in(key, np.uint32(int.from_bytes(word, "big")))
    keep = np.float32(1) - np.float32(rate)
    return np.asarray(jax.random.bernoulli(jax.random.fold_in(key, index), keep, shape))


def contents(folder: str) -> dict[str, bytes]:
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# Arrays and pictures.


# Most arrays here have up to 256 pixels and one or three channels, and so share their programs.
DTYPES = ["u1", "i2", "u4", "i8", "u8", "f2", "f4", "f8", ">f4", ">i8", "c8", "c16", bool]


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_keeps_its_dtype_and_loses_what_the_mask_says(dtype: Any) -> None:
    values = noise((12, 10, 3), dtype)
    np.save("a.npy", values)
    assert main(["a.npy", "--rate", "0.3"]) == 0
    dropped = np.load("dropax_out/a.npy")
    assert dropped.dtype == values.dtype
    mask = mask_of("a.npy", 0, values.shape, 0.3)
    np.testing.assert_array_equal(dropped, np.where(mask, values, np.zeros((), dtype)))


def test_each_record_of_a_batch_has_its_own_mask() -> None:
    values = noise((3, 8, 9, 2), np.float32)
    np.save("a.npy", values)
    assert main(["a.npy", "--seed", "7", "--fill", "-2.5"]) == 0
    masks = np.stack([mask_of("a.npy", i, (8, 9, 2), 0.2, seed=7) for i in range(3)])
    expected = np.where(masks, values, np.float32(-2.5))
    np.testing.assert_array_equal(np.load("dropax_out/a.npy"), expected)


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 4), (5, 8, 8, 4)])
def test_channel_mode_drops_whole_channels(shape: tuple[int, ...]) -> None:
    np.save("a.npy", noise(shape, np.uint8))
    assert main(["a.npy", "--mode", "channel", "--rate", "0.5", "--seed", "2"]) == 0
    kept = np.load("dropax_out/a.npy") != 0
    spatial = (0, 1) if len(shape) < 4 else (1, 2)
    np.testing.assert_array_equal(kept.all(spatial), kept.any(spatial))


def test_a_big_integer_fill_is_exact() -> None:
    np.save("a.npy", noise((9, 9), np.int64))
    assert main(["a.npy", "--rate", "1", "--fill", str(2**62 + 1)]) == 0
    assert (np.load("dropax_out/a.npy") == 2**62 + 1).all()


@pytest.mark.parametrize(
    ("mode", "dtype"), [("L", "u1"), ("LA", "u1"), ("RGB", "u1"), ("RGBA", "u1"), ("I;16", "u2")]
)
def test_a_picture_keeps_its_mode_and_its_alpha(mode: str, dtype: str) -> None:
    channels = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,), "I;16": ()}[mode]
    values = noise((12, 10, *channels), dtype) + (400 if dtype == "u2" else 0)
    Image.fromarray(values.astype(dtype)).save("a.png")
    assert main(["a.png", "--rate", "0.5"]) == 0
    with Image.open("dropax_out/a.png") as image:
        assert image.mode == mode
        dropped = np.asarray(image)
    if mode.endswith("A"):
        np.testing.assert_array_equal(dropped[..., -1], values[..., -1])
        values, dropped = values[..., :-1], dropped[..., :-1]
    values, dropped = (array.reshape(12, 10, -1) for array in (values, dropped))
    mask = mask_of("a.png", 0, values.shape, 0.5)
    np.testing.assert_array_equal(dropped, np.where(mask, values, 0))


def test_a_turned_jpeg_comes_out_upright_as_png() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(images.sample_picture(16)[:10]).save("A.JPG", exif=exif)
    assert main(["A.JPG", "--rate", "0"]) == 0
    with Image.open("A.JPG") as stored, Image.open("dropax_out/A.png") as dropped:
        assert "exif" not in dropped.info
        np.testing.assert_array_equal(np.asarray(dropped), np.rot90(np.asarray(stored), -1))


def test_an_npz_member_that_is_no_image_is_carried_as_it_is() -> None:
    image, batch = noise((12, 10, 3), np.uint8), noise((2, 12, 10, 1), np.float64)
    objects = np.empty(2, object)
    objects[:] = {"a": 1}, None
    np.savez_compressed("a.npz", image=image, batch=batch, labels=np.arange(4), objects=objects)
    assert main(["a.npz"]) == 0
    with np.load("dropax_out/a.npz", allow_pickle=True) as archive:
        assert sorted(archive.files) == ["batch", "image", "labels", "objects"]
        np.testing.assert_array_equal(archive["labels"], np.arange(4))
        assert archive["objects"][0] == {"a": 1}
        mask = mask_of("a.npz::image", 0, image.shape, 0.2)
        np.testing.assert_array_equal(archive["image"], np.where(mask, image, 0))
        mask = mask_of("a.npz::batch", 1, batch.shape[1:], 0.2)
        np.testing.assert_array_equal(archive["batch"][1], np.where(mask, batch[1], 0))


FOLDER = ["a.npy", "b.npz", "contact_sheet.png", "d.png", "sub/c.png"]


def make_folder() -> None:
    Path("in/sub").mkdir(parents=True)
    np.save("in/a.npy", noise((12, 10, 3), np.float32))
    np.savez("in/b.npz", x=noise((12, 10, 3), np.uint8))
    Image.fromarray(noise((10, 12, 3), np.uint8)).save("in/sub/c.WEBP")
    Image.fromarray(noise((12, 10), np.uint8)).save("in/d.png")
    Path("in/notes.txt").write_text("not for us")


def test_the_same_bytes_whatever_the_order_the_number_or_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_folder()
    assert main(["in", "--out", "first"]) == 0
    first = contents("first")
    assert sorted(first) == FOLDER
    assert main(["in/d.png", "in/b.npz", "in/a.npy", "in/a.npy", "--out", "second"]) == 0
    assert main(["./in/", "--out", "first", "--overwrite"]) == 0
    assert contents("first") == first
    second = contents("second")
    assert all(second[name] == first[name] for name in ("a.npy", "b.npz", "d.png"))
    assert main(["in", "--out", "first", "--overwrite", "--seed", "1"]) == 0
    assert contents("first")["a.npy"] != first["a.npy"]
    skipped = f"dropax: {Path('in/notes.txt')}: skipped, not a picture or array that dropax reads"
    assert capsys.readouterr().err.splitlines() == [skipped] * 3


def test_what_is_not_read_in_a_folder_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    make_folder()
    os.mkfifo("in/pipe.npy")
    Path("in/sub/anim.gif").write_text("x")
    Path("in/link").symlink_to(Path("in/sub").absolute())
    assert main(["in"]) == 0
    assert sorted(contents("dropax_out")) == FOLDER
    why = "skipped, not a picture or array that dropax reads"
    skipped = [
        ("in/link", "skipped, a link to a folder"),
        ("in/notes.txt", why),
        ("in/pipe.npy", "skipped, a pipe"),
        ("in/sub/anim.gif", why),
    ]
    lines = [f"dropax: {Path(name)}: {why}" for name, why in skipped]
    assert capsys.readouterr().err.splitlines() == lines
    assert main(["in", "--quiet", "--overwrite"]) == 0
    assert capsys.readouterr() == ("", "")


def test_what_an_earlier_run_wrote_is_no_input() -> None:
    make_folder()
    assert main(["."]) == 0
    assert main([".", "--overwrite"]) == 0
    names = ["contact_sheet.png", "in/a.npy", "in/b.npz", "in/d.png", "in/sub/c.png"]
    assert sorted(contents("dropax_out")) == names


def test_each_run_adds_its_own_contact_sheet() -> None:
    channels = ["--mode", "channel"]
    assert [main(channels), main(channels), main([*channels, "--overwrite"])] == [0, 0, 0]
    assert sorted(contents("dropax_out")) == ["contact_sheet-2.png", "contact_sheet.png"]


# Modes and presets.


def test_without_inputs_the_modes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    modes = ["pixel", "Pixel(per_channel=False)", "channel", *list(MODES)[2:]]
    rates = [0.0, 0.1, 0.25, 0.5]
    last = 1 + len(modes) * len(rates)
    rows = [(line[3], float(line[4]), float(line[5])) for line in lines[1:last]]
    assert [row[:2] for row in rows] == [(mode, rate) for mode in modes for rate in rates]
    # 16384 draws or more: six standard errors are below 0.024.
    assert all(abs(done - rate) < 0.024 for mode, rate, done in rows if "ixel" in mode)
    assert {done for mode, _, done in rows if mode == "channel"} <= {0, 0.3333, 0.6667, 1}
    presets = ["cutout", "random_erasing", "gridmask", "dropblock"]
    assert [line[3] for line in lines[last:-1]] == [name for name in presets for _ in range(3)]
    with Image.open("dropax_out/contact_sheet.png") as sheet:
        assert min(sheet.size) > 3 * sheets.TILE


def test_without_inputs_options_narrow_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--mode", "channel", "--rate", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [["channel", "0", "0.0000"], ["channel", "1", "1.0000"]]
    assert [line.split()[3:6] for line in lines[1:-1]] == rows


def test_modes_with_options_each_have_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["Channel(1)", "Pixel(per_channel=False)", "channel", "Channel(min_kept=2)"]
    argv = [part for mode in given for part in ("--mode", mode)]
    assert main([*argv, "--rate", "0.25", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    regions = [Channel(min_kept=1), Pixel(per_channel=False), "channel", Channel(min_kept=2)]
    assert [row["mode"] for row in rows] == [str(region) for region in regions for _ in range(2)]
    assert [row["rate_asked"] for row in rows] == [0, 0.25] * 4


def test_a_mode_with_options_is_that_of_python() -> None:
    np.save("a.npy", np.ones((1, 12, 12, 3), np.float32))
    options = ["--seed", "3", "--rate", "0.5", "--overwrite"]
    assert main(["a.npy", "--mode", "Pixel(per_channel=False)", *options]) == 0
    whole = np.load("dropax_out/a.npy")
    assert (whole == whole[..., :1]).all()
    assert 0 < whole.mean() < 1
    assert main(["a.npy", "--mode", "Pixel( False )", *options]) == 0
    np.testing.assert_array_equal(np.load("dropax_out/a.npy"), whole)


def test_regions_may_be_options_of_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True)
    class Either:
        modes: tuple[Any, ...]
        weights: tuple[float, ...] | None = None
        name: str = dataclasses.field(default="", kw_only=True)

    monkeypatch.setitem(TYPES, "Either", Either)
    found = parse_mode("Either((Box(2), Either(('grid',), None)), weights=(.5, -2,), name='a')")
    assert found == Either((Box(2), Either(("grid",), None)), weights=(0.5, -2), name="a")
    assert type(found.weights[1]) is int
    assert parse_mode("Patch(size=(8, 16))") == Patch(size=(8, 16))
    assert parse_mode("Band(axis=-1)") == Band(axis=-1)
    assert parse_mode("Box(2, border='clip')") == Box(2, border="clip")
    wrong = {
        "Either((Box(), Grd()))": "there is no region 'Grd' at character 16; did you mean 'Grid'",
        "Either((Box(0),))": r"got 0 \(in the call at character 9\)",
        "Either([Box()])": "unhashable type: 'list'",
        "Either(())()": "calls of regions only; got .* at character 1",
        "Either((), (), 'a')": "Either takes up to 2 options; got another at character 16",
        "Either()": "missing 1 required positional argument: 'modes'",
    }
    for text, why in wrong.items():
        with pytest.raises(argparse.ArgumentTypeError, match=why):
            parse_mode(text)


def test_a_preset_is_drawn_several_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--preset", "random_erasing"]) == 0
    rows = [line.split()[3:6] for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert [row[:2] for row in rows] == [["random_erasing", "0.02-0.33"]] * 3
    assert len({row[2] for row in rows}) == 3
    assert all(0.01 < float(row[2]) < 0.34 for row in rows)


def test_a_preset_keeps_the_dtype_and_drops_whole_values() -> None:
    np.save("a.npy", np.full_like(images.sample_picture(), 7))
    for preset in ("cutout", "random_erasing", "gridmask", "dropblock"):
        assert main(["a.npy", "--preset", preset, "--overwrite"]) == 0
        dropped = np.load("dropax_out/a.npy")
        assert dropped.dtype == np.uint8
        assert set(np.unique(dropped)) == {0, 7}, preset


def test_a_mode_of_regions_fills_with_the_mean() -> None:
    np.save("a.npy", np.arange(1, 101, dtype=np.uint8).reshape(10, 10))
    assert main(["a.npy", "--mode", "box", "--fill", "mean", "--rate", "0.25"]) == 0
    before, after = np.load("a.npy"), np.load("dropax_out/a.npy")
    changed = after != before
    assert 20 <= changed.sum() <= 30
    assert set(after[changed]) == {50}


# What is printed.


def test_the_table_says_what_was_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("a.npy", noise((12, 10, 3), np.float64))
    Image.fromarray(noise((9, 8, 4), np.uint8)).save("long name.png")
    assert main(["a.npy", "long name.png", "--rate", "0.25"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "file"
    assert len({len(line) for line in lines[:3]}) == 1, "columns are aligned"
    assert lines[1].split()[:5] == ["a.npy", "12x10x3", "float64", "pixel", "0.25"]
    assert lines[2].split()[:4] == ["long", "name.png", "9x8x3+alpha", "uint8"]
    realized = np.mean(np.load("dropax_out/a.npy") == 0)
    assert float(lines[1].split()[5]) == pytest.approx(realized, abs=1e-4)
    assert float(lines[1].split()[6]) > 0
    assert lines[3] == f"contact sheet: {Path('dropax_out/contact_sheet.png')}"


def test_the_contact_sheet_is_capped_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in").mkdir()
    for number in range(17):
        np.save(f"in/{number:02}.npy", noise((4, 4), np.uint8))
    assert main(["in"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[-1].endswith(", with the first 16 of 17 rows")
    assert output.err == "", "no progress bar where there is no terminal"


def test_json_is_the_table_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("a.npz", x=noise((12, 10, 3), np.float64), y=noise((1, 9, 9, 3), np.uint8))
    Image.fromarray(noise((9, 8, 4), np.uint8)).save("b.png")
    assert main(["a.npz", "b.png", "missing.npy", "--rate", "0.25", "--json"]) == 1
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert [row["file"] for row in said["rows"]] == ["a.npz::x", "a.npz::y", "b.png"]
    assert [row["shape"] for row in said["rows"]] == [[12, 10, 3], [1, 9, 9, 3], [9, 8, 3]]
    assert [row["alpha"] for row in said["rows"]] == [False, False, True]
    first = said["rows"][0]
    assert (first["mode"], first["rate_asked"], first["dtype"]) == ("pixel", 0.25, "float64")
    assert first["rate_realized"] == np.mean(np.load(first["output"])["x"] == 0)
    assert first["milliseconds"] > 0
    assert said["contact_sheet"] == str(Path("dropax_out/contact_sheet.png"))
    error = {"file": "missing.npy", "error": "No such file or directory"}
    assert (said["failures"], said["remarks"]) == ([error], [])
    assert err == "dropax: missing.npy: No such file or directory\n"


def test_json_of_the_built_in_picture_and_of_a_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--preset", "random_erasing", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["output"], row["rate_asked"]) for row in rows] == [(None, [0.02, 0.33])] * 3


def test_quiet_prints_errors_only(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("a.npy", noise((4, 4), np.uint8))
    assert main(["a.npy", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["a.npy", "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "already exists" in err


def test_what_a_picture_loses_is_remarked_upon(capsys: pytest.CaptureFixture[str]) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save("a.webp", save_all=True, append_images=frames[1:])
    assert main(["a.webp", "--json"]) == 0
    out, err = capsys.readouterr()
    remark = "only the first of its 2 frames was read"
    assert json.loads(out)["remarks"] == [{"file": "a.webp", "remark": remark}]
    assert err == f"dropax: a.webp: {remark}\n"
    assert main(["a.webp", "--quiet", "--overwrite"]) == 0
    assert capsys.readouterr().err == ""


def test_what_cannot_be_printed_leaves_columns_aligned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ["line\nbreak.npy", "plain.npy"]
    for name in names:
        np.save(name, noise((4, 4), np.uint8))
    assert main(names) == 0
    lines = capsys.readouterr().out.splitlines()[1:3]
    assert [line.index("4x4") for line in lines] == [len(r"line\nbreak.npy  ")] * 2


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "colored"),
    [
        ({}, True),
        ({"NO_COLOR": ""}, True),  # set and empty counts as not set
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colors_are_for_terminals_that_want_them(
    variables: dict[str, str], colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    tables.say("a\033[1mname", stream, tables.RED)
    shown = r"a\x1b[1mname"  # the name of a file colors nothing
    assert stream.getvalue() == (f"\033[31m{shown}\033[0m\n" if colored else f"{shown}\n")
    other = io.StringIO()
    tables.say("a name", other, tables.RED)
    assert other.getvalue() == "a name\n"


def test_on_a_terminal_the_columns_stay_where_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("a.npy", noise((4, 4), np.uint8))
    assert main(["a.npy"]) == 0
    plain = re.sub(r"\d+\.\d+$", "", capsys.readouterr().out, flags=re.MULTILINE)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["a.npy", "--overwrite"]) == 0
    text = terminal.getvalue()
    assert text.startswith("\033[1mfile")
    bare = re.sub(r"\033\[\d+m", "", text)
    assert re.sub(r"\d+\.\d+$", "", bare, flags=re.MULTILINE).split() == plain.split()


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for option, said in (("--help", "examples:"), ("--version", f"dropax {dropax.__version__}\n")):
        with pytest.raises(SystemExit) as exit_:
            main([option])
        assert exit_.value.code == 0
        assert said in capsys.readouterr().out


# What is refused.


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--rate", "1.5"], "argument --rate: must be in [0, 1]; got 1.5"),
        (["--rate", "nan"], "argument --rate: must be in [0, 1]; got nan"),
        (["--rate", "x"], "argument --rate: invalid float value: 'x'"),
        (["--mode", "pixle"], "argument --mode: invalid choice: 'pixle' (choose from "),
        (["--mode", "cutout"], "argument --mode: cutout is a preset; pass --preset cutout"),
        (["--mode", "whole_pixel"], "argument --mode: pass --mode 'Pixel(per_channel=False)'"),
        (["--mode", "Box"], "pass Box() for its defaults"),
        (["--mode", "Bx(3)"], "there is no region 'Bx' at character 1; did you mean 'Box'?"),
        (
            ["--mode", "Box(cuont=3)"],
            "Box has no option 'cuont' at character 5; did you mean 'count",
        ),
        (["--mode", "Box(size=3)"], "at character 5; there are count, aspect_ratio, border"),
        (["--mode", "Box(count=0)"], "Box.count must be from 1 to 64; got 0 (in the call at chara"),
        (["--mode", "Box(3"], "'(' was never closed at character 4: 'Box(3'"),
        (["--mode", "Box(1, count=2)"], "Box has one option 'count'; got another at character 8"),
        (["--mode", "Box(count=1, count=2)"], "one option 'count'; got another at character 14"),
        (["--mode", "Box(1, (1, 1), 'clip', 4)"], "up to 3 options; got another at character 24"),
        (
            ["--mode", "Box(**{'count': 3})"],
            "must name each option; got \"**{'count': 3}\" at char",
        ),
        (["--mode", "Box(*[3])"], "and calls of regions only; got '*[3]' at character 5"),
        (["--mode", "Box(count=1 + 2)"], "calls of regions only; got '1 + 2' at character 11"),
        (["--mode", "Box(count=two)"], "calls of regions only; got 'two' at character 11"),
        (
            ["--mode", "Box(count=print(1))"],
            "there is no region 'print' at character 11; there are",
        ),
        (["--mode", "dropax.Box()"], "calls of regions only; got 'dropax.Box()' at character 1"),
        (["--mode", "(Box(), Grid())"], "must be a mode's name or one call such as Box(count=3)"),
        (["--mode", "Box(" * 300], "argument --mode: "),
        (
            ["a.npy", "--mode", "box", "--mode", "grid"],
            "argument --mode: may come several times only without inputs",
        ),
        (["--preset", "box"], "argument --preset: box is a mode; pass --mode box"),
        (["--preset", "cutuot"], "argument --preset: invalid choice: 'cutuot' (choose from "),
        (
            ["--preset", "cutout", "--rate", "0.1"],
            "argument --rate: not allowed with --preset, which sets it",
        ),
        (
            ["--preset", "cutout", "--mode", "box"],
            "argument --mode: not allowed with --preset, which sets it",
        ),
        (["--fill", "inf"], "argument --fill: must be a finite number, mean or noise; got 'inf'"),
        (["--fill", "x"], "argument --fill: must be a finite number, mean or noise; got 'x'"),
        (["--fill", "1" * 400], "argument --fill: must be a finite number, mean or noise; got '11"),
        (["--fill", "stats_mean"], "must be a finite number, mean or noise; got 'stats_mean'"),
        (["--seed", "-1"], "argument --seed: must be in [0, 4294967296); got -1"),
        (["--seed", "1.5"], "argument --seed: invalid int value: '1.5'"),
        (["--wrong"], "unrecognized arguments: --wrong; see python -m dropax --help"),
        (["--json", "--quiet"], "not allowed with argument --json"),
    ],
)
def test_a_bad_option_is_one_line(
    argv: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("dropax: ")
    assert why in err


def failing_files() -> dict[str, str]:
    """Makes a file of each kind of fault; returns what is said of each."""
    picture = Image.fromarray(images.sample_picture(64))
    for name in ("cut_1.png", "cut_2.jpg", "cut_3.webp"):
        picture.save(name)
        Path(name).write_bytes(Path(name).read_bytes()[:-300])
    Path("text.png").write_text("hello")
    Path("text.npy").write_text("hello")
    Path("text.npz").write_text("hello")
    np.save("vector.npy", np.zeros(5))
    np.save("rank5.npy", np.zeros((2, 2, 2, 2, 2)))
    np.save("empty.npy", np.zeros((0, 4, 4, 3)))
    np.save("words.npy", np.array([["a", "b"]]))
    np.save("pickled.npy", np.array([[{}]], object), allow_pickle=True)
    np.savez("vectors.npz", a=np.zeros(3), b=np.zeros((2,) * 5))
    np.save("cut.npy", noise((40, 40), np.float32))
    Path("cut.npy").write_bytes(Path("cut.npy").read_bytes()[:900])
    Path("photo.gif").write_text("x")
    Path("none").mkdir()
    return {
        "cut_1.png": "cannot be read as a picture: ",
        "cut_2.jpg": "cannot be read as a picture: image file is truncated",
        "cut_3.webp": "cannot be read as a picture: ",
        "text.png": "cannot be read as a picture: it is not a PNG, JPEG or WebP file",
        "text.npz": "cannot be read as an npz archive: File is not a zip file",
        "vector.npy": "the array must hold numbers or bools of up to 64 bits, as (H, W), (H, W, C) "
        "or (N, H, W, C); got an array of shape (5,) and dtype float64.",
        **dict.fromkeys(["rank5.npy", "empty.npy", "words.npy"], "the array must hold"),
        "pickled.npy": "cannot be read as an array: Object arrays cannot be loaded",
        "vectors.npz": "holds no array of numbers or bools with 2 to 4 axes",
        **dict.fromkeys(["text.npy", "cut.npy"], "cannot be read as an array: "),
        "photo.gif": "must be a folder or a file whose name ends in one of .png, .jpg, ",
        "none": "holds no file whose name ends in one of .png, .jpg, ",
        **dict.fromkeys(["missing.npy", ""], "No such file or directory"),
    }


def test_each_fault_is_one_line_and_the_rest_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    faults = failing_files()
    np.save("good.npy", noise((8, 8), np.uint8))
    names = list(faults)
    assert main([*names[:8], "good.npy", *names[8:]]) == 1
    output = capsys.readouterr()
    assert sorted(contents("dropax_out")) == ["contact_sheet.png", "good.npy"]
    assert [line.split()[0] for line in output.out.splitlines()] == ["file", "good.npy", "contact"]
    lines = output.err.splitlines()
    assert len(lines) == len(faults)
    for name, why in faults.items():
        assert any(line.startswith(f"dropax: {name}: {why}") for line in lines), (name, lines)


def test_a_fill_that_a_dtype_cannot_hold_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("a.npy", noise((4, 4), np.uint8))
    np.save("b.npy", noise((4, 4), np.float32))
    assert main(["a.npy", "b.npy", "--fill", "0.5"]) == 1
    error = "dropax: a.npy: --fill must be exact in dtype uint8; got 0.5. Pass a whole number"
    assert capsys.readouterr().err.startswith(error)
    assert "b.npy" in contents("dropax_out")
    np.save("c.npy", noise((4, 4), np.complex64))
    np.save("d.npy", noise((4, 4), np.float16))
    for argv, why in (
        (["--fill", "0.5"], "built-in.png: --fill must be exact in dtype uint8"),
        (["c.npy", "--fill", "noise"], "c.npy: --fill noise is not supported for complex dtypes"),
        (["d.npy", "--fill", "1e5"], "d.npy: --fill must be within the range of dtype float16"),
    ):
        assert main([*argv, "--out", "other"]) == 1
        assert why in capsys.readouterr().err


def test_nothing_is_overwritten_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("a.npy", noise((4, 4), np.uint8))
    np.save("b.npy", noise((4, 4), np.uint8))
    assert main(["a.npy"]) == 0
    before = contents("dropax_out")
    capsys.readouterr()
    assert main(["a.npy", "b.npy", "--seed", "1"]) == 1
    cure = "already exists; pass --overwrite to replace it"
    assert capsys.readouterr().err == f"dropax: a.npy: {Path('dropax_out/a.npy')} {cure}\n"
    after = contents("dropax_out")
    assert all(map(after.pop, ("b.npy", "contact_sheet-2.png")))
    assert after == before


def test_an_input_is_never_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("a.npy", noise((4, 4), np.uint8))
    assert main(["a.npy", "--out", ".", "--overwrite"]) == 1
    assert "a.npy: its result would replace it; choose another --out" in capsys.readouterr().err
    np.testing.assert_array_equal(np.load("a.npy"), noise((4, 4), np.uint8))


def test_inputs_that_would_be_written_to_one_place_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("a.jpg", "a.png", "contact_sheet.jpg", "b.png"):
        Image.fromarray(noise((8, 8, 3), np.uint8)).save(name)
    assert main(["a.jpg", "a.png", "contact_sheet.jpg", "b.png"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "dropax: a.jpg: another would be written to a.png too",
        "dropax: a.png: another would be written to a.png too",
        "dropax: contact_sheet.jpg: another would be written to contact_sheet.png too",
    ]
    assert sorted(contents("dropax_out")) == ["b.png", "contact_sheet.png"]


@pytest.mark.parametrize(
    ("out", "why"), [("file/below", "Not a directory"), ("file", "File exists")]
)
def test_an_output_folder_that_cannot_be_made_is_one_line(
    out: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("")
    assert main(["--out", out]) == 2
    assert capsys.readouterr() == ("", f"dropax: --out {out!r}: {why}\n")


def test_a_file_in_the_way_stops_only_one(capsys: pytest.CaptureFixture[str]) -> None:
    make_folder()
    Path("dropax_out").mkdir()
    Path("dropax_out/sub").write_text("a file where a folder should be")
    assert main(["in"]) == 1
    source, target = Path("in/sub/c.WEBP"), Path("dropax_out/sub/c.png")
    error = f"dropax: {source}: {target} cannot be written: File exists"
    assert capsys.readouterr().err.splitlines()[-1] == error
    assert {"a.npy", "b.npz", "d.png"} < set(contents("dropax_out"))


def test_a_write_that_breaks_off_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("a.npy", noise((4, 4), np.uint8))
    np.save("b.npy", noise((4, 4), np.uint8))

    def save(file: Any, array: np.ndarray, **options: Any) -> None:
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", save)
    assert main(["a.npy", "b.npy"]) == 130
    assert contents("dropax_out") == {}
    assert capsys.readouterr().err.startswith("dropax: interrupted: ")


def test_without_pillow_arrays_are_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder()
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    needs = "needs Pillow; pip install 'dropax[image]'"
    assert main(["in/a.npy", "in/b.npz"]) == 0
    assert capsys.readouterr().err == f"dropax: contact_sheet.png {needs}\n"
    assert main(["in/d.png", "--out", "other"]) == 1
    assert f"dropax: {Path('in/d.png')}: a picture {needs}" in capsys.readouterr().err
    assert main(["--out", "other"]) == 1
    assert needs in capsys.readouterr().err


def test_an_output_folder_that_is_closed_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # to root every folder is open
    assert main(["--out", "closed"]) == 2
    assert capsys.readouterr().err == "dropax: --out 'closed': Permission denied\n"


INTERRUPTED = """
import signal, sys
import numpy as np
from dropax.cli.run import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
save = np.save

def save_and_interrupt(file, array, **options):
    save(file, array, **options)
    if array.shape == (5, 5):
        signal.raise_signal(signal.SIGINT)

np.save = save_and_interrupt
sys.exit(main(["a.npy", "b.npy", "c.npy", "--json"]))
"""


def test_ctrl_c_ends_without_a_traceback() -> None:
    for name, size in (("a.npy", 4), ("b.npy", 5), ("c.npy", 4)):
        np.save(name, noise((size, size), np.uint8))
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    assert done.returncode == 130
    assert done.stderr == "dropax: interrupted: the rest is not done\n"
    assert [row["file"] for row in json.loads(done.stdout)["rows"]] == ["a.npy"]
    assert [path.name for path in Path("dropax_out").iterdir()] == ["a.npy"]


def test_a_reader_that_leaves_causes_no_traceback() -> None:
    np.save("a.npy", noise((4, 4), np.uint8))
    command = f"{sys.executable} -m dropax a.npy missing.npy | true; exit ${{PIPESTATUS[0]}}"
    root = str(Path(dropax.__file__).parents[1])
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={"PYTHONPATH": root}
    )
    assert done.returncode == 1
    assert done.stderr == "dropax: missing.npy: No such file or directory\n"
    assert Path("dropax_out/a.npy").exists()


# Memory.


def test_a_file_of_each_size_needs_no_program_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """15 sizes in two formats; 3,000 used up the process's memory mappings."""
    held = []
    drop = programs.Programs.drop

    def watched(self: programs.Programs, *arguments: Any) -> Any:
        result = drop(self, *arguments)
        held.append(len(self.held))
        return result

    monkeypatch.setattr(programs.Programs, "drop", watched)
    Path("in").mkdir()
    shapes = [(h, w, *c) for h in range(3, 25, 5) for w in range(5, 22, 8) for c in ((), (3,))]
    for number, shape in enumerate(shapes):
        np.save(f"in/{number:02}.npy", noise(shape, np.uint8))
    for argv in (["--rate", "0.3"], ["--mode", "channel", "--rate", "0.5"]):
        held.clear()
        assert main(["in", "--overwrite", *argv]) == 0
        assert len(held) == len(shapes) == 30
        assert max(held) <= 2 * 2, "of each format one for each multiple of 256 up to 23 * 21"
        assert not list(Path("dropax_out").glob("*contact*-2*"))


def mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts mappings as Linux does")
def test_sizes_that_need_programs_of_their_own_take_bounded_memory_mappings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(programs, "HELD", 2)
    held = programs.Programs()
    config = DropoutOperatorConfig(
        field_key="image", stochastic=True, mode="record", mask_key="keep_mask"
    )
    key = programs.file_key(0, "a.npy")
    first, _, _ = held.drop(config, key, noise((8, 8), np.uint8))
    taken = []
    for width in range(9, 16):
        held.drop(config, key, noise((8, width), np.uint8))
        taken.append(mappings())
    # One that is held takes some 33; the five after the first two would take 165.
    assert max(taken[-2:]) < max(taken[:2]) + 100
    again, _, _ = held.drop(config, key, noise((8, 8), np.uint8))
    np.testing.assert_array_equal(again, first)
