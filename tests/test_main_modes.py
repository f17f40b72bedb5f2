"""What the command line shows without inputs, and its presets."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dropax import Band, Box, Patch
from dropax.cli import sheet as sheets
from dropax.cli.modes import parse_mode
from dropax.cli.run import main
from dropax.regions import MODES, TYPES


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
    given = ["Box(2, border='clip')", "Patch(size=(8, 16))", "channel", "Band(axis=-1)"]
    argv = [part for mode in given for part in ("--mode", mode)]
    assert main([*argv, "--rate", "0.25", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    regions = [Box(2, border="clip"), Patch(size=(8, 16)), "channel", Band(axis=-1)]
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


def test_a_preset_works_on_every_image_of_any_dtype() -> None:
    np.save("a.npy", np.full((6, 40, 30, 3), 7, np.uint8))
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
