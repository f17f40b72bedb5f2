"""What the command line shows without inputs, and its presets."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropax.cli import sheet as sheets
from dropax.cli.run import main
from dropax.regions import MODES


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
