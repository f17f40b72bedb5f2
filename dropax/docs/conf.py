"""The site: `sphinx-build -W --keep-going dropax/docs dropax/docs/_build/html` builds it.

The pages are Markdown, readable where they are. `pages` fits them and the docstrings into the site,
`gallery` draws the gallery. Nothing is fetched from the network.
"""

import os
import pathlib
import sys
import tomllib

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # for the notebooks too

import dropax  # noqa: E402

ROOT = HERE.parents[1]
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]

project = "dropax"
author = "The dropax authors"
project_copyright = author
version = release = dropax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "pages",
    "gallery",
]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore = [
    ("py:class", "dropax.chaining.Chain"),  # documented by `chain`
    ("py:class", "dropax.kit.batching.AnyBatch"),
    ("py:class", "AnyBatch"),  # as overloads write it
    ("py:class", "hypothesis.strategies.SearchStrategy"),
]

# Markdown and notebooks
myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_output_stderr = "error"
nb_merge_streams = True

# Docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 88
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# The names of others that docstrings and signatures refer to are listed in `pages`.
intersphinx_mapping = {
    "jax": ("https://docs.jax.dev/en/latest/", "_build/jax.inv"),
    "python": ("https://docs.python.org/3/", "_build/python.inv"),
    "numpy": ("https://numpy.org/doc/stable/", "_build/numpy.inv"),
}

html_theme = "furo"
html_title = f"dropax {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_theme_options = {
    "source_repository": URLS["Source"],
    "source_branch": "main",
    "source_directory": "dropax/docs/",
}
