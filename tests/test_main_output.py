"""What the command line prints, where, and with which exit code."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dropax
from dropax.cli import table as tables
from dropax.cli.run import main

ROOT = str(Path(dropax.__file__).parents[1])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def noise(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 100, shape).astype(dtype)


def test_the_table_says_what_was_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("a.npy", noise((50, 40, 3), np.float64))
    Image.fromarray(noise((9, 8, 4), np.uint8)).save("long name.png")
    assert main(["a.npy", "long name.png", "--rate", "0.25"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "file"
    assert len({len(line) for line in lines[:3]}) == 1, "columns are aligned"
    assert lines[1].split()[:5] == ["a.npy", "50x40x3", "float64", "pixel", "0.25"]
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
    np.savez("a.npz", x=noise((50, 40, 3), np.float64), y=noise((2, 9, 9), np.uint8))
    Image.fromarray(noise((9, 8, 4), np.uint8)).save("b.png")
    assert main(["a.npz", "b.png", "missing.npy", "--rate", "0.25", "--json"]) == 1
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert [row["file"] for row in said["rows"]] == ["a.npz::x", "a.npz::y", "b.png"]
    assert [row["shape"] for row in said["rows"]] == [[50, 40, 3], [2, 9, 9], [9, 8, 3]]
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
