"""The rules of the house, as tests: what is public, who imports whom, what importing costs."""

import ast
import graphlib
import inspect
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import dropax
from dropax import testing

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = pathlib.Path(dropax.__file__).parent
SOURCES = sorted(set(PACKAGE.rglob("*.py")) - set((PACKAGE / "docs").rglob("*.py")))

# Imports go downwards only; what is not named here is dropout itself, the third layer.
LAYERS = {"kit": 0, "modes": 1, "fills": 1, "moments": 1, "bits": 1, "images": 1}
LAYERS |= {"cli": 3, "testing": 3, "__init__": 3, "__main__": 3}


def layer(module):
    return LAYERS.get(module.split(".")[0], 2)


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "__init__"


MODULES = {module_name(path): path for path in SOURCES}


def imported(path):
    """The modules of the package that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dropax":
            inside = node.module.partition(".")[2]
            for alias in node.names:
                inner = f"{inside}.{alias.name}".strip(".")
                yield inner if inner in MODULES else inside or "__init__"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "dropax":
                    yield alias.name.partition(".")[2] or "__init__"


def test_imports_go_down_the_layers_and_never_in_a_circle():
    graph = {name: set(imported(path)) for name, path in MODULES.items()}
    for name, others in graph.items():
        for other in others:
            assert layer(other) <= layer(name), f"{name} must not import {other}"
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


PUBLIC_NAMES = """
Band Batch Block Blocks Box Channel DropoutOperator DropoutOperatorConfig Element Fill FromField
Grid Inverted Mean ModalityOperator ModalityOperatorConfig Mode Noise OneOf OperatorConfig
OperatorState Patch Pixel Record Rngs STREAM_VERSION Shared StatsMean Tokens apply apply_batch
as_record_ids batched box_mask chain dropout dropped_fraction expected_dropped_fraction
gather_tokens generate_random_params images init_state keep_tokens length_mask load_state
patch_mask presets record_keys save_state scatter_tokens visible_fraction visible_points
"""
NAMES_FOR_TESTS = """
PropertyError Report assert_dropped_fraction assert_drops assert_masks batches check_operator
check_transform configs data_shapes elements images keys modes operator_states preset_configs
"""


@pytest.mark.parametrize(("module", "names"), [(dropax, PUBLIC_NAMES), (testing, NAMES_FOR_TESTS)])
def test_the_public_names_are_these(module, names):
    assert sorted(module.__all__) == names.split()
    assert all(hasattr(module, name) for name in module.__all__)


def test_help_is_a_tour_of_all_public_names():
    listed = re.findall(r"^ {4}(\w+) {2,}\S", dropax.__doc__, re.MULTILINE)
    assert sorted(listed) == sorted(dropax.__all__)


PUBLIC = [
    getattr(module, name)
    for module in (dropax, testing)
    for name in module.__all__
    if inspect.getdoc(getattr(module, name))
]


@pytest.mark.parametrize(
    "thing", [thing for thing in PUBLIC if callable(thing)], ids=lambda thing: thing.__name__
)
def test_public_names_are_documented_with_their_arguments(thing):
    text = inspect.getdoc(thing)
    assert text.splitlines()[0].endswith((".", ":")), text.splitlines()[0]
    if inspect.isfunction(thing):
        returns_nothing = inspect.signature(thing).return_annotation is None
        for section in ("Args:", "Example:", *(() if returns_nothing else ("Returns:",))):
            assert section in text, f"{thing.__name__} lacks {section}"
        documented = set(re.findall(r"^  \*{0,2}(\w+):", text, re.MULTILINE))
        assert set(inspect.signature(thing).parameters) <= documented


def test_keys_come_first_and_options_by_keyword_only():
    key, images, *options = inspect.signature(dropax.dropout).parameters.values()
    assert (key.name, images.name) == ("key", "images")
    assert all(option.kind is option.KEYWORD_ONLY for option in options)
    for name in dropax.__all__:
        if inspect.isfunction(getattr(dropax, name)):
            assert "rng" not in inspect.signature(getattr(dropax, name)).parameters


def test_importing_starts_no_backend_and_brings_nothing_along():
    code = """
import sys
import jax
before = set(sys.modules)
import dropax
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), "a backend was started"
foreign = {name.split(".")[0] for name in set(sys.modules) - before}
foreign -= set(sys.stdlib_module_names) | {"dropax"}
foreign -= {name for name in foreign if name.startswith("__editable__")}
assert not foreign & {"chex", "flax", "hypothesis", "PIL", "pytest", "absl"}, foreign
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=ROOT)


def test_what_tests_need_is_named_where_it_is_missing():
    code = "import sys; sys.modules['hypothesis'] = None; import dropax; import dropax.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode
    text = "ImportError: dropax.testing needs Hypothesis; pip install 'dropax[test]'"
    assert done.stderr.splitlines()[-1] == text


def test_the_version_is_told_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert f"\nversion: {dropax.__version__}\n" in (ROOT / ".github" / "CITATION.cff").read_text()
    assert project["project"]["dynamic"] == ["version", "readme"]
    assert project["tool"]["hatch"]["version"] == {"path": "dropax/__init__.py"}
    assert f"## [{dropax.__version__}] - " in (PACKAGE / "CHANGELOG.md").read_text()
