"""Configuration of Sphinx, which builds the documentation: see `make docs`.

`CBSN_DOCS_GALLERY=0`, or `sphinx-build -D plot_gallery=0`, builds the gallery without running its
examples.
"""

import os
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's notes at its start
sys.path[:0] = [str(_HERE / "_ext"), str(_HERE.parent)]

import cbsn  # noqa: E402

project = "cbsn"
author = "The cbsn authors"
copyright = "the cbsn authors, Apache-2.0"
version = release = cbsn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "commands",
    "docstrings",
]
exclude_patterns = ["_build", "examples"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
default_role = "code"  # in docstrings `name` is code, not a reference

# Text, as -D gives it.
plot_gallery = str(os.environ.get("CBSN_DOCS_GALLERY") != "0")
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "/",
    "within_subsection_order": "gallery_order.InOrder",
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "cbsn"
html_static_path = ["_static"]
html_css_files = ["cbsn.css"]
html_show_sourcelink = False
# These pages have no pages below them to list on the left.
html_sidebars = {
    name: []
    for name in (
        "index",
        "getting_started",
        "reference",
        "api",
        "conventions",
        "architecture",
        "extending",
    )
}
html_theme_options = {
    "header_links_before_dropdown": 8,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
}
