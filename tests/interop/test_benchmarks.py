"""The benchmarks that train networks: what they compute, what they refuse, and that they run."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("optax", reason="optax is missing: pip install '.[interop]'")
pytest.importorskip("sklearn", reason="scikit-learn is missing: pip install '.[interop]'")
pytest.importorskip("matplotlib", reason="matplotlib is missing: pip install '.[interop]'")

ROOT = pathlib.Path(__file__).parents[2]


def run(module, *arguments):
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_an_interval_is_student_s(benchmarks):
    from benchmarks import scores

    mean, half = scores.interval([1.0, 2.0, 3.0])
    assert mean == 2
    # The 97.5% point of t with 2 degrees of freedom is 4.30265 in every table of it.
    np.testing.assert_allclose(half, 4.30265 / 3**0.5, rtol=1e-5)


def test_the_rate_is_chosen_by_validation_images_alone(benchmarks):
    from benchmarks import scores

    def row(rate, validation, clean):
        name = {"task": "digits", "place": "input", "mode": "box", "rate": rate}
        return {**name, "scores": {"validation": [validation, validation], "clean": [clean, clean]}}

    rows = [row(0.1, 50.0, 99.0), row(0.2, 60.0, 10.0), row(0.4, 55.0, 70.0)]
    assert scores.best_rates(rows) == [rows[1]]


def test_a_convolution_is_that_of_jax(benchmarks, key):
    import jax

    from benchmarks import tasks

    images, kernel = jax.random.normal(key, (2, 9, 8, 3)), jax.random.normal(key, (3, 3, 3, 5))
    for stride in (1, 2):
        expected = jax.lax.conv_general_dilated(
            images,
            kernel,
            (stride, stride),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        got = tasks.convolve(images, kernel, stride)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["occlude_disc", "occlude_pixels"])
def test_a_quarter_of_the_area_is_occluded(benchmarks, kind):
    from benchmarks import tasks

    images = np.ones((400, 16, 16, 3), np.float32)
    lost = getattr(tasks, kind)(images, np.random.default_rng(0)) == 0
    assert (lost == lost[..., :1]).all()
    # Pixels fall independently, so that 0.03 is over 20 standard deviations of their share. Discs
    # are of one size, but for how they lie over the grid.
    assert abs(lost.mean() - tasks.OCCLUDED) < 0.03
    assert lost.any((1, 2, 3)).all()
    assert not lost.all((1, 2, 3)).any()


def test_a_short_run_trains_and_writes_what_it_found(tmp_path):
    saved, drawn = tmp_path / "new" / "run.json", tmp_path / "run.png"
    done = run(
        "regularization",
        *("--quick", "--seeds", 2, "--only", "digits/input/block"),
        *("--save", saved, "--plot", drawn),
    )
    assert done.returncode == 0, done.stderr
    baseline, block = json.loads(saved.read_text())["rows"]
    assert (baseline["mode"], block["mode"]) == ("none", "block")
    # One in ten is chance: these networks did learn.
    assert min(baseline["scores"]["clean"] + block["scores"]["clean"]) > 60
    assert len(set(baseline["scores"]["clean"])) == 2
    assert "| input | block" in saved.with_suffix(".md").read_text()
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_a_scheduled_rate_compiles_once():
    done = run("schedule", "--steps", 12)
    assert done.returncode == 0, done.stderr
    assert "12 rates, 12 steps, compilations of the step: 1" in done.stdout


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("regularization", ["--only", "nothing"], "--only must be part of a mode's name"),
        ("regularization", ["--seeds", 1], "--seeds must be at least 2; got 1."),
        ("regularization", ["--save", "table.md"], "--save must not end in .md"),
        ("schedule", ["--steps", 1], "--steps must be at least 2; got 1."),
        ("schedule", ["--rate", 1.5], "--rate must be in [0, 1]; got 1.5."),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(module, arguments, message):
    done = run(module, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message), done.stderr
    assert done.stdout == ""
