# SPDX-License-Identifier: Apache-2.0
"""The documentation site: ``make docs``.

Sources are the Markdown files that people read in the repository, so the root of the tree is
Sphinx's source folder: a link such as ``../CONTRIBUTING.md`` means the same in both places, and
Sphinx checks it. Nothing is downloaded.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT)]

project = "vllm as conda packages"
author = "the vllm contributors"
copyright = author  # noqa: A001 - Sphinx's name
release = version = (ROOT / "VERSION").read_text(encoding="utf-8").strip()

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/**/*.md", "examples/*.md", "examples/**/*.md"]
# Folders that Sphinx need not walk through.
exclude_patterns = [
    *(
        ".*",
        "benchmarks",
        "build",
        "cmake",
        "csrc",
        "dist",
        "output",
        "recipe",
        "requirements",
        "scripts",
        "tests",
    ),
    *("third_party", "toolchain", "variants", "vllm", "**/.*"),
]

# Markdown
myst_heading_anchors = 3
myst_links_external_new_tab = False

# Docstrings
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Pages
html_theme = "furo"
html_title = f"{project} {release}"
html_extra_path = ["site"]  # index.html, which leads to the first page
html_copy_source = False
html_show_sourcelink = False
pygments_style = "default"

# Only `make docs-links` looks at other servers.
linkcheck_timeout = 30
linkcheck_retries = 2
linkcheck_ignore = [r"https://example\.org/.*"]
