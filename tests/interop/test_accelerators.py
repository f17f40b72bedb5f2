"""The benchmarks on accelerators: what they read off a program, what they print, what they refuse.

None needs a device or its compiler.
"""

import importlib.metadata
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

# One line of each kind that XLA writes for GPU and TPU.
PROGRAM = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%fused_computation (p: f32[8]) -> f32[8] {
  %p = f32[8]{0:T(128)} parameter(0)
  %a = f32[8]{0:T(128)} add(%p, %p)
  ROOT %m = f32[8]{0:T(128)} multiply(%a, %a)
}

%inner (i: (s32[], f32[8])) -> (s32[], f32[8]) {
  %i = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  %step = f32[8]{0:T(128)} fusion(%i), kind=kLoop, calls=%fused_computation, backend_config={"estimated_cycles":"10"}
  ROOT %t = (s32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%i, %step)
}

%body.1 (b: (s32[], f32[8])) -> (s32[], f32[8]) {
  %b = (s32[], f32[8]{0}) parameter(0)
  %f = f32[8]{0} fusion(%b), kind=kLoop, calls=%fused_computation, backend_config={"estimated_cycles":"100"}
  ROOT %w = (s32[], /*index=1*/f32[8]{0}) while(%b), condition=%cond, body=%inner, backend_config={"known_trip_count":{"n":"4"}}
}

%cond (c: (s32[], f32[8])) -> pred[] {
  %c = (s32[], f32[8]{0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

%cheap (x: f32[8]) -> f32[8] {
  ROOT %x = f32[8]{0} parameter(0)
}

%costly (y: f32[8]) -> f32[8] {
  %y = f32[8]{0} parameter(0)
  %sorted = f32[8]{0} sort(%y), dimensions={0}, to_apply=%less_than
  ROOT %d = f32[8]{0} fusion(%sorted), kind=kLoop, calls=%fused_computation, backend_config={"estimated_cycles":"1000"}
}

%command_buffer (z: f32[8]) -> f32[8] {
  %z = f32[8]{0} parameter(0)
  ROOT %k = f32[8]{0} fusion(%z), kind=kLoop, calls=%fused_computation
}

ENTRY %main.9 (key.1: u32[2], images.1: f32[8]) -> f32[8] {
  %key.1 = u32[2]{0} parameter(0), sharding={replicated}, metadata={op_name="key (typed)"}
  %images.1 = f32[8]{0} parameter(1)
  %start = (f32[8]{0:T(128)S(1)}, u32[]{:S(2)}) copy-start(%images.1)
  %done = f32[8]{0:T(128)S(1)} copy-done(%start), backend_config={"estimated_cycles":"7"}
  %loops = (s32[], f32[8]{0}) while(%done), condition=%cond, body=%body.1, backend_config={"known_trip_count":{"n":"3"}}
  %open = (s32[], f32[8]{0}) while(%loops), condition=%cond, body=%inner
  %g = f32[8]{0} get-tuple-element(%open), index=1
  %by_index = f32[8]{0} conditional(%key.1, %g, %g), branch_computations={%cheap, %costly}
  %by_bool = f32[8]{0} conditional(%key.1, %by_index, %by_index), true_computation=%costly, false_computation=%cheap
  ROOT %last = f32[8]{0} call(%by_bool), to_apply=%command_buffer
}
"""  # noqa: E501


pytestmark = pytest.mark.usefixtures("benchmarks")


def test_what_a_program_launches_repeats_and_waits_for_is_counted():
    from benchmarks.accelerators import hlo

    cost = hlo.read_cost(PROGRAM)
    assert cost.loops == [3, 4, None]
    assert cost.conditionals == 2
    # The copy; 3 steps of a kernel and of 4 steps of one; a step of the open loop; twice a
    # conditional with two kernels in its costlier branch; what is called.
    assert cost.kernels == 1 + 3 * (1 + 4) + 1 + 2 * (1 + 2) + 1
    assert cost.cycles == 3 * (100 + 4 * 10) + 10 + 2 * 1000


def test_missing_compilers_are_named_with_the_cure(monkeypatch, capsys):
    from benchmarks.accelerators import __main__ as command

    version = importlib.metadata.version

    def without_libtpu(name):
        if name == "libtpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_libtpu)
    assert command.main(["--platform", "tpu"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "got no package libtpu. pip install '.[accelerators]'" in printed.err


def test_backward_keeps_no_more_of_a_mask_than_flax():
    from benchmarks.accelerators import model

    def kept(name, checkpoint):
        return model.residuals(model.DROPS[name], checkpoint)

    names = [name for name in model.DROPS if "dropax" in name]
    assert len(names) == 2
    for checkpoint in (False, True):
        flax = kept("`flax.linen.Dropout`", checkpoint)
        assert flax["masks"] > 0
        for name in names:
            ours = kept(name, checkpoint)
            assert ours["masks"] == flax["masks"]
            assert ours["residuals"] < flax["residuals"] + 1000  # keys and rates


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks.accelerators", *map(str, arguments)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_programs_are_timed_on_the_device_that_there_is(tmp_path):
    saved = tmp_path / "new" / "times.md"
    done = run("--time", "--quick", "--only", ": box", "--save", saved)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in saved.read_text().splitlines() if "|" in line]
    assert [row[0].strip() for row in rows[2:]] == ["x + 1", "where(x > 2, 0, x)", "box"]
    ratios = [float(row[2]) for row in rows[2:]]
    assert min(ratios[:2]) == 1
    assert ratios[2] > 1
    assert "A CPU is no accelerator" in done.stdout
