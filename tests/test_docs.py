"""The documentation: each Python block runs alone, links lead somewhere, pictures are current.

A block runs in a namespace of its own. A `text` block that directly follows a Python block is what
that block prints.
"""

import contextlib
import dataclasses
import inspect
import io
import pathlib
import re

import numpy as np
import pytest

import dropax
from dropax import presets, testing
from dropax.modes import TYPES
from dropax.testing.properties import PROPERTIES
from pictures import draw

Image = pytest.importorskip("PIL.Image")

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "dropax" / "docs"
WRITTEN = sorted(set(DOCS.rglob("*.md")) - set((DOCS / "_build").rglob("*")))
# In the site these have the text of another page.
STANDING = [page for page in WRITTEN if page.read_text().startswith("The text of this page is")]
PAGES = [
    README,
    ROOT / ".github" / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "tests" / "interop" / "README.md",
    *(page for page in WRITTEN if page not in STANDING),
]
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks_of(page):
    """The Python blocks of a page, each with its line and what it is said to print, or None."""
    text = page.read_text()
    fences = re.finditer(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", text, re.M | re.S)
    for fence in fences:
        line = text.count("\n", 0, fence.start()) + 1
        name = f"{page.relative_to(ROOT)}:{line}"
        yield pytest.param(name, line, *fence.groups(), id=name)


@pytest.mark.parametrize(
    ("name", "line", "block", "printed"), [block for page in PAGES for block in blocks_of(page)]
)
def test_a_block_of_the_documentation_runs_alone(name, line, block, printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()  # for the recipe that reads some
    Image.fromarray(dropax.images.sample_picture(32)).save(tmp_path / "photos" / "a.jpg")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        # Empty lines in front, so that a traceback names the line of the page.
        exec(compile("\n" * line + block, name, "exec"), {"__name__": "documentation"})
    if printed is not None:
        assert out.getvalue() == printed


def test_the_readme_is_short_and_like_most_pages_has_blocks():
    assert len(README.read_text().splitlines()) <= 120
    counts = {page: len(list(blocks_of(page))) for page in PAGES}
    assert counts[README] >= 2
    assert sum(count > 0 for count in counts.values()) >= 8


def test_a_recipe_is_short():
    for name, count, most in (("recipes.md", 6, 24), ("views.md", 7, 12)):
        recipes = [block for page in PAGES if page.name == name for block in blocks_of(page)]
        assert len(recipes) >= count
        for recipe in recipes:
            lines = [line for line in recipe.values[2].splitlines() if line]
            assert len(lines) <= most, recipe.id


def test_ci_runs_the_two_commands_of_the_readme():
    commands = re.findall(r"^    (python3 -m venv .*)$", README.read_text(), re.MULTILINE)
    assert len(commands) == 2
    script = (ROOT / ".ci" / "run").read_text()
    for command in commands:
        assert f"\n  {command}\n" in script


@pytest.mark.parametrize(
    ("page", "heading", "least", "source"),
    [
        ("README.md", "## Speed\n", 2, "README.md"),
        ("benchmarks/README.md", "## GPU and TPU\n", 10, "results/accelerators-jax-0.10.md"),
    ],
)
def test_a_table_of_figures_is_a_part_of_the_full_one(page, heading, least, source):
    section = (ROOT / page).read_text().partition(heading)[2].partition("\n## ")[0]
    rows = re.findall(r"^\|.*$", section, re.MULTILINE)
    assert len(rows) >= least
    assert set(rows) <= set((ROOT / "benchmarks" / source).read_text().splitlines())


def anchors_of(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *STANDING], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(page):
    text = page.read_text()
    for path in re.findall(r"`((?:tests|benchmarks)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


@PAGE
def test_every_page_is_reached_from_the_readme_in_two_clicks(page):
    reached = {README}
    for _ in range(2):
        for source in [each for each in reached if each.suffix == ".md"]:
            links = re.findall(r"\]\(([^)\s#]+)", source.read_text())
            reached |= {(source.parent / link).resolve() for link in links if "://" not in link}
    assert page in reached


def test_the_documentation_names_everything_public():
    text = "".join(page.read_text() for page in PAGES)
    for name in dropax.__all__:
        assert re.search(rf"\b{name}\b", text), name
    modes = (ROOT / "dropax" / "docs" / "modes.md").read_text()
    for name in TYPES:
        assert f"\n### {name}\n" in modes, name
    for name, preset in inspect.getmembers(presets, inspect.isfunction):
        if preset.__module__ == presets.__name__ and not name.startswith("_"):
            assert re.search(rf"\b{name}\b", modes), name
    options = (ROOT / "dropax" / "docs" / "operator.md").read_text()
    for field in dataclasses.fields(dropax.DropoutOperatorConfig):
        assert f"`{field.name}`" in options, field.name
    properties = (ROOT / "dropax" / "docs" / "testing.md").read_text()
    for name in (*PROPERTIES, *testing.__all__):
        assert re.search(rf"`{name}\b", properties), name


def test_every_public_name_has_one_place_in_the_reference():
    expected = [f"dropax.{name}" for name in dropax.__all__]
    expected += [f"dropax.presets.{name}" for name in (*presets.PRESETS, "rate_for_side")]
    expected += [f"dropax.testing.{name}" for name in testing.__all__]
    for name, function in inspect.getmembers(dropax.images, inspect.isfunction):
        if function.__module__ == "dropax.images" and not name.startswith("_"):
            expected.append(f"dropax.images.{name}")
    places = ["dropax.images", "dropax.presets"]  # these are pages
    for page in (DOCS / "api").glob("*.md"):
        for directive, name in re.findall(
            r"^\.\. (\w+):: ([\w.]+)$", page.read_text(), re.MULTILINE
        ):
            if directive == "currentmodule":
                module = name
            else:
                places.append(f"{module}.{name}")
    assert sorted(places) == sorted(expected)


def test_the_gallery_shows_every_mode_and_preset():
    shown = re.findall(r'^ {4}(?:\(| {4})"(\w+)",', (DOCS / "gallery.py").read_text(), re.MULTILINE)
    assert {*TYPES, *presets.PRESETS} <= set(shown)


def test_each_page_of_the_site_is_in_its_contents():
    listed = {DOCS / "index.md"}
    for page in WRITTEN:
        for contents in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.M | re.S):
            entries = re.findall(r"^(?:.*<)?([\w/]+)>?$", contents, re.MULTILINE)
            listed |= {page.parent / f"{entry}.md" for entry in entries}
    assert listed == set(WRITTEN)


def test_the_pictures_show_the_masks_of_this_version():
    drawn = draw.draw()
    assert list(drawn) == ["banner", *draw.STRIPS, *draw.PADDED]
    for name, picture in drawn.items():
        committed = np.asarray(Image.open(draw.file_of(name)))
        assert picture.shape == committed.shape, name
        # The landscape may round otherwise with another NumPy, and a turned lattice at its edges.
        differs = np.abs(picture.astype(int) - committed.astype(int)) > 1
        assert differs.mean() < (1e-3 if name == "gridmask" else 1e-12), name
    files = set((ROOT / "dropax" / "docs" / "pictures").iterdir())
    assert files == {draw.file_of(name) for name in (*draw.STRIPS, *draw.PADDED)}
    assert sum(file.stat().st_size for file in files) < 300_000
