"""The command line, as its user meets it: what it draws, prints and refuses."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import dropax
from dropax import DropoutOperatorConfig, apply_batch, images, init_state, presets
from dropax.cli import run, sheet
from dropax.cli.arguments import PRESETS
from dropax.modes import MODES

ROOT = str(Path(dropax.__file__).parents[1])
SHEET = Path("dropax_out/contact_sheet.png")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def noise(shape, dtype=np.uint8):
    """Values of which none is 0."""
    return np.random.default_rng(0).integers(1, 100, shape).astype(dtype)


def table(text):
    """The rows that were printed, without headings and the line of the sheet: columns as texts."""
    lines = text.splitlines()
    starts = [lines[0].index(heading) for heading in run.HEADINGS]
    bounds = list(zip(starts, [*starts[1:], None], strict=True))
    return [[line[slice(*ends)].strip() for ends in bounds] for line in lines[1:-1]]


def tiles(row=0, side=sheet.TILE):
    """The tiles of a row of the sheet, of which all rows are `side` high."""
    pixels = np.asarray(Image.open(SHEET))
    top = 41 + row * (side + 29)
    lefts = [190 + column * (sheet.TILE + 12) for column in range(1 + run.RECORDS)]
    return [pixels[top : top + side, left : left + side] for left in lefts]


def test_without_arguments_every_mode_and_preset_is_shown(capsys):
    assert run.main([]) == 0
    out, err = capsys.readouterr()
    rows = table(out)
    modes = ["pixel", "Pixel(per_channel=False)", *[*MODES][1:]]
    assert [row[3] for row in rows] == [*modes, *PRESETS]
    assert {(*row[:3],) for row in rows} == {("built-in", "160x160x3", "uint8")}
    assert {row[4] for row in rows[: len(modes)]} == {"0.25"}
    for row in rows:
        each = [float(fraction) for fraction in row[6].split()]
        assert len(each) == run.RECORDS
        assert float(row[5]) == pytest.approx(np.mean(each), abs=1e-4)
        if "ixel" in row[3]:  # six standard errors of 25,600 draws are below 0.02
            assert all(abs(fraction - 0.25) < 0.02 for fraction in each)
        if row[3] in ("record", "drop_path"):
            assert set(each) <= {0, 1}
    # Some records drop and some do not: one alone would say nothing.
    assert len(set(rows[modes.index("record")][6].split())) == 2
    assert out.splitlines()[-1] == f"contact sheet: {SHEET}"
    assert err == ""
    with Image.open(SHEET) as image:
        assert image.height > len(rows) * sheet.TILE


def test_every_preset_of_pictures_is_known():
    assert {*presets.PRESETS} - {*PRESETS} == {"videomae"}


def test_the_sheet_and_the_table_show_the_masks_of_the_seed(capsys):
    np.save("a.npy", noise((16, 16, 3)))
    argv = ["a.npy", "--mode", "Box(count=2, border='clip')", "--rate", "0.3", "--seed", "7"]
    assert run.main([*argv, "--fill", "(100, 0, 200)"]) == 0
    config = DropoutOperatorConfig(
        stochastic=True,
        field_key="image",
        mode=dropax.Box(count=2, border="clip"),
        dropout_rate=0.3,
        fill=(100, 0, 200),
        mask_key="kept",
    )
    batch = {"image": np.stack([np.load("a.npy")] * run.RECORDS)}
    expected, _ = apply_batch(config, init_state(config, jax.random.key(7)), batch)
    fractions = 1 - np.asarray(expected["kept"]).mean((1, 2, 3))
    (row,) = table(capsys.readouterr().out)
    assert row[:5] == ["a.npy", "16x16x3", "uint8", "Box(count=2, border='clip')", "0.3"]
    assert row[6] == " ".join(f"{fraction:.4f}" for fraction in fractions)
    shown = [np.load("a.npy"), *np.asarray(expected["image"])]
    for tile, image in zip(tiles(), shown, strict=True):
        np.testing.assert_array_equal(tile[::10, ::10], image)
        np.testing.assert_array_equal(tile[9::10, 5::10], image)


def test_bands_of_one_preset_drop_together(capsys):
    assert run.main(["--preset", "spec_augment", "--size", "40"]) == 0
    (row,) = table(capsys.readouterr().out)
    picture, *records = (tile[::4, ::4] for tile in tiles())
    dropped = [float((record == 0).all(-1).mean()) for record in records]
    assert row[6] == " ".join(f"{fraction:.4f}" for fraction in dropped)
    for record in records:
        kept = (record != 0).any(-1)
        np.testing.assert_array_equal(record[kept], picture[kept])
        # Rows and columns drop, and nothing else.
        np.testing.assert_array_equal(kept, kept.any(1)[:, None] & kept.any(0))


def test_each_file_mode_and_rate_has_a_row(capsys):
    np.save("a.npy", noise((8, 8)))
    np.save("b.npy", noise((9, 7, 4), np.float32))
    argv = ["a.npy", "b.npy", "--mode", "channel", "--preset", "drop_path"]
    assert run.main([*argv, "--rate", "0", "--rate", "(0.5, 1)"]) == 0
    asked = [("channel", "0"), ("channel", "0.5-1"), ("drop_path", "0.1")]
    rows = table(capsys.readouterr().out)
    assert [(row[0], *row[3:5]) for row in rows] == [
        (file, *each) for file in ("a.npy", "b.npy") for each in asked
    ]
    assert all(row[5] == "0.0000" for row in rows if row[4] == "0")


NAMES = ["1.png", "L.jpg", "I;16.png", "F.tif", "P.gif", "CMYK.tif", "RGB.webp", "RGBA.png"]


@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_any_mode_are_scaled_down(name):
    mode, ramp = name.partition(".")[0], np.add.outer(2 * np.arange(60), np.arange(120))
    picture = Image.fromarray(np.stack([ramp, ramp, 255 - ramp], -1).astype(np.uint8))
    if mode == "I;16":
        picture = Image.fromarray(ramp.astype(np.uint16) * 200)
    picture.convert(mode).save(name)
    image = run.read_image(name, 80)
    assert image.shape == (40, 80, 3)[: 2 if mode in ("1", "L", "I;16", "F") else 3]
    assert image.dtype == {"I;16": np.int32, "F": np.float32}.get(mode, np.uint8)
    shown = image if image.ndim == 2 else image[..., 1]
    expected = np.add.outer(3 * np.arange(40), 1.5 * np.arange(80))
    assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.8


def test_a_turned_picture_is_upright_and_a_small_one_keeps_its_size():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top is at the right of what is stored
    Image.fromarray(images.sample_picture(16)[:10]).save("a.png", exif=exif)
    turned = np.rot90(images.sample_picture(16)[:10], -1)
    np.testing.assert_array_equal(run.read_image("a.png", 160), turned)


@pytest.mark.parametrize("dtype", [bool, ">i8", np.float16, np.float64, np.complex64])
def test_an_array_of_any_dtype_is_shown(dtype, capsys):
    np.save("a.npy", noise((8, 8), dtype))
    assert run.main(["a.npy", "--mode", "record"]) == 0
    assert table(capsys.readouterr().out)[0][2] == str(np.dtype(dtype).newbyteorder("="))


def test_long_and_odd_names_are_shown(capsys):
    names = ["line\nbreak.npy", "\udce9.npy", "a rather long name " * 8 + ".npy"]
    printed = [r"line\nbreak.npy", r"\udce9.npy", names[2]]
    for name in names:
        np.save(name, noise((8, 8)))
    assert run.main([*names, "--mode", "record", "--rate", "0"]) == 0
    assert [row[0] for row in table(capsys.readouterr().out)] == printed
    for row in range(3):  # a label stays left of the tiles
        assert (tiles(row)[0] == images.to_display(noise((8, 8))).repeat(20, 0).repeat(20, 1)).all()


def test_help_and_version(capsys):
    for option, said in (("--help", "examples:"), ("--version", f"dropax {dropax.__version__}\n")):
        with pytest.raises(SystemExit) as exit_:
            run.main([option])
        assert exit_.value.code == 0
        assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--rate", "1.5"], "argument --rate: must be in [0.0, 1.0]; got 1.5"),
        (["--rate", "x"], "argument --rate: must be a number or a real scalar array; got 'x'"),
        (["--mode", "pixle"], "argument --mode: must be one of 'pixel', "),
        (["--mode", "Bx(3)"], "there is no 'Bx'. Did you mean 'Box'?"),
        (["--mode", "cutout"], "cutout is a preset; pass --preset cutout"),
        (["--preset", "box"], "argument --preset: invalid choice: 'box' (choose from "),
        (["--preset", "mae", "--rate", "0.1"], "argument --rate: presets have rates of their own"),
        (["--fill", "inf"], "argument --fill: must be numbers, mean or noise; got 'inf'"),
        (["--fill", "stats_mean"], "must be numbers, mean or noise; got 'stats_mean'"),
        (["--fill", "(1, 'a')"], "argument --fill: [1] must be one of 'mean', "),
        (["--seed", "-1"], "argument --seed: must be in [0, 4294967296); got -1"),
        (["--size", "0"], "argument --size: must be a whole number above 0; got '0'"),
        (["--out", "file/below"], "argument --out: 'file/below': Not a directory; pass another"),
        (["--wrong"], "unrecognized arguments: --wrong; see python -m dropax --help"),
    ],
)
def test_a_wrong_argument_is_one_line(argv: list[str], why: str, capsys):
    Path("file").write_text("")
    with pytest.raises(SystemExit) as exit_:
        run.main(argv)
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("dropax: ")
    assert why in err


def test_what_cannot_be_read_or_drawn_is_one_line_and_the_rest_is_done(capsys):
    np.save("good.npy", noise((8, 8)))
    np.save("odd.npy", noise((9, 8)))
    np.save("batch.npy", noise((2, 8, 8, 3)))
    np.save("words.npy", np.array([["a"]]))
    np.save("pickled.npy", np.array([[{}]], object), allow_pickle=True)
    Path("text.npy").write_text("hello")
    Image.fromarray(images.sample_picture(64)).save("cut.jpg")
    Path("cut.jpg").write_bytes(Path("cut.jpg").read_bytes()[:-300])
    shape = "the array must hold numbers of shape (height, width) or (height, width, channels); got"
    faults = {
        "odd.npy": "Blocks.size must divide the axes (9, 8); got 4",
        "batch.npy": shape,
        "words.npy": shape,
        "pickled.npy": "Object arrays cannot be loaded",
        "text.npy": "",
        "cut.jpg": "image file is truncated",
        "missing.png": "No such file or directory",
    }
    modes = ["--mode", "Blocks(size=4)", "--rate", "0.5", "--rate", "0.6"]
    assert run.main([*faults, "good.npy", *modes]) == 1
    out, err = capsys.readouterr()
    assert [row[0] for row in table(out)] == ["good.npy"] * 2
    lines = err.splitlines()
    assert len(lines) == len(faults)
    for line, (name, why) in zip(lines, faults.items(), strict=True):
        assert line.startswith(f"dropax: {name}: {why}")


def test_without_pillow_there_is_a_table_of_arrays(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "PIL", None)
    np.save("a.npy", noise((8, 8)))
    needs = "Pillow is missing; pip install 'dropax[image]'\n"
    assert run.main(["a.npy", "--mode", "record"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err == f"dropax: no contact sheet: {needs}"
    assert run.main(["a.png", "--mode", "record"]) == 1
    assert capsys.readouterr() == ("", f"dropax: a.png: {needs}")


def test_a_sheet_that_cannot_be_written_is_one_line(capsys):
    SHEET.mkdir(parents=True)
    assert run.main(["--mode", "record"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err == f"dropax: {SHEET}: Is a directory\n"


def test_ctrl_c_ends_without_a_traceback(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "write_sheet", interrupted)
    assert run.main(["--mode", "record"]) == 130
    assert capsys.readouterr() == ("", "dropax: interrupted\n")
    assert not jax.config.jax_enable_x64


def test_a_full_disk_is_an_error_and_a_reader_that_leaves_is_none():
    np.save("a.npy", noise((8, 8)))
    command = f"{sys.executable} -m dropax a.npy --mode record"
    full = f"{command} > /dev/full; echo $?; {command} | true; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run(["bash", "-c", full], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["1", "0"]
    assert done.stderr == "dropax: standard output: No space left on device\n"
