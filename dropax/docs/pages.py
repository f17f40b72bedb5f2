"""Fits the pages and the docstrings into the site.

A page that stands for a file outside this folder, such as the changelog, says so in its one line:
in the site it has that file's text. Links to such files lead to these pages, other links out of the
folder to the repository.
"""

import dataclasses
import inspect
import os
import pathlib
import re
import typing
import zlib

from sphinx.domains.python import PyObject
from sphinx.util.typing import stringify_annotation

import dropax
from dropax import images, presets, testing

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]

STANDS_FOR = re.compile(r"^The text of this page is \[[^]]*\]\(([^)]+)\)\.$", re.MULTILINE)
CODE = re.compile(r"(^ {0,3}(`{3,}).*?^ {0,3}\2|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ARXIV = re.compile(r"(?<![\[/\w])arXiv:(\d{4}\.\d{4,5})")

# In docstrings: a paper, a shape such as (..., H, W) or (low, high), or what is between backquotes.
_SIZE = r"(?:\.\.\.|\*?[a-z_][\w.]*|[A-Z]+|\d+(?: \* \w+)?)"
MARKED = re.compile(
    rf"{ARXIV.pattern}|(?<![\w`])(\({_SIZE},(?: {_SIZE},)*(?: {_SIZE})?\))|(?<!`)`([^`]+)`(?!`)"
)

# Types as signatures say them, and as users know them.
KNOWN_AS = {
    "jax.jaxlib._jax.Array": "jax.Array",
    "jax.Array | numpy.ndarray | numpy.bool | numpy.number | bool | int | float | complex": (
        "jax.typing.ArrayLike"
    ),
    "dropax.kit.batching.AnyBatch": "dropax.Batch | dict",
    "dropax.kit.batching.ApplyBatch": "collections.abc.Callable",
}

# Names of other projects that signatures and docstrings refer to: where each is documented.
ELSEWHERE = {
    "jax": {
        "jax.Array": "_autosummary/jax.Array.html#jax.Array",
        "jax.jaxlib._jax.Array": "_autosummary/jax.Array.html#jax.Array",  # as attributes say it
        "jax.typing.ArrayLike": "jax.typing.html#jax.typing.ArrayLike",
    },
    "numpy": {"numpy.ndarray": "reference/generated/numpy.ndarray.html#numpy.ndarray"},
    "python": {
        f"collections.abc.{name}": f"library/collections.abc.html#collections.abc.{name}"
        for name in ("Callable", "Iterable", "Mapping", "Sequence")
    },
}


def public_names():
    """Returns everything public, by its full name."""
    names = {f"dropax.{name}": getattr(dropax, name) for name in dropax.__all__}
    names |= {f"dropax.presets.{name}": preset for name, preset in presets.PRESETS.items()}
    names["dropax.presets.rate_for_side"] = presets.rate_for_side
    for name, function in inspect.getmembers(images, inspect.isfunction):
        if function.__module__ == images.__name__ and not name.startswith("_"):
            names[f"dropax.images.{name}"] = function
    names |= {f"dropax.testing.{name}": getattr(testing, name) for name in testing.__all__}
    return {name: thing for name, thing in names.items() if not inspect.ismodule(thing)}


PUBLIC = public_names()
SHORT = {name.rpartition(".")[2]: name for name in reversed(PUBLIC)}  # those of dropax come first


# Pages


def stood_for():
    """Returns the pages that stand for other files, by that file."""
    pages = {}
    for page in HERE.glob("*.md"):
        found = STANDS_FOR.search(page.read_text())
        if found:
            pages[(HERE / found[1]).resolve()] = page
    return pages


def source_read(app, docname, source):
    """Gives a page the text it stands for, and links that lead somewhere in the site."""
    page, standing = HERE / f"{docname}.md", stood_for()
    file = next((file for file, other in standing.items() if other == page), page)
    if file != page:
        app.env.note_dependency(str(file))
        source[0] = file.read_text()
    repository = app.config.html_theme_options["source_repository"]

    def link(match):
        path, _, anchor = match[1].partition("#")
        if "://" in path or not path:
            return match[0]
        target = (file.parent / path).resolve()
        target = standing.get(target, target)
        if target.is_relative_to(HERE) or target.suffix == ".png":
            path = os.path.relpath(target, page.parent)
        else:
            path = f"{repository}/tree/main/{target.relative_to(ROOT)}"
        return f"]({path}{'#' * bool(anchor)}{anchor})"

    parts = CODE.split(source[0])  # text, then code and its fence, and so on
    for at in range(0, len(parts), 3):
        parts[at] = ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", LINK.sub(link, parts[at]))
    del parts[2::3]
    source[0] = "".join(parts)


# Docstrings


def process_docstring(app, what, name, thing, options, lines):
    """Makes links of names and papers, and code of shapes and all else between backquotes."""
    try:
        own = {*inspect.signature(thing).parameters}
    except (TypeError, ValueError):
        own = set()
    # In a class, `apply` is its own.
    own |= {*dir(PUBLIC.get(name)), *dir(PUBLIC.get(name.rpartition(".")[0]))}

    def markup(match):
        paper, shape, text = match.groups()
        if paper:
            return f"`arXiv:{paper} <https://arxiv.org/abs/{paper}>`__"
        text = shape or " ".join(text.split())
        found = re.match(r"(?:dropax\.)?(?:presets\.|testing\.)?(\w+)\.?(\w*)", text)
        target = SHORT.get(found[1]) if found and found[1] not in own else None
        # What only tests use is named like much else: `keys`, `images`, `modes`.
        if target and target.startswith("dropax.testing.") and "testing" not in name:
            target = None
        if not target or target == name:
            return f"``{text}``"
        method = f".{found[2]}" if callable(getattr(PUBLIC[target], found[2], None)) else ""
        return f":py:obj:`{text} <{target}{method}>`"

    # An example is the last part, and code as it is.
    text, head, example = "\n".join(lines).partition("\nExample:\n")
    # What comes before a colon is no type.
    text = re.sub(r"^Returns:$", ":returns:", MARKED.sub(markup, text), flags=re.MULTILINE)
    lines[:] = (text + head + example).split("\n")


def process_signature(app, what, name, thing, options, signature, returns):
    """Writes types by the names that users know, and lists the arguments of configs."""
    if isinstance(thing, type) and issubclass(thing, dropax.OperatorConfig):
        hints, fields = typing.get_type_hints(thing), dataclasses.fields(thing)
        listed = [
            f"{field.name}: {stringify_annotation(hints[field.name])}"
            + (f" = {field.default!r}" if field.default is not dataclasses.MISSING else "")
            for field in sorted(fields, key=lambda field: field.kw_only)
        ]
        listed.insert(sum(not field.kw_only for field in fields), "*")
        signature = f"({', '.join(listed)})"

    def known(text):
        text = text and text.replace("~", "")
        for inner, outer in KNOWN_AS.items():
            text = text and text.replace(inner, outer)
        return text

    return known(signature), known(returns)


# Other projects


def write_inventories(app):
    """Writes where names of other projects are documented, as intersphinx reads it."""
    build = HERE / "_build"
    build.mkdir(exist_ok=True)
    for project, names in ELSEWHERE.items():
        head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: latest\n"
        head += "# The remainder of this file is compressed using zlib.\n"
        rows = "".join(f"{name} py:class 1 {address} -\n" for name, address in names.items())
        (build / f"{project}.inv").write_bytes(head.encode() + zlib.compress(rows.encode()))


def setup(app):
    """Connects all of it."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # as docstrings call them
    app.connect("builder-inited", write_inventories, priority=100)
    app.connect("source-read", source_read)
    app.connect("autodoc-process-docstring", process_docstring, priority=100)
    app.connect("autodoc-process-signature", process_signature)
    return {"parallel_read_safe": True}
