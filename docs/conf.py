"""The documentation site: `make docs`. Warnings are errors; the search works without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

import pertstack

project = "pertstack"
copyright = "the pertstack authors"
release = version = pertstack.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "README.md"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "misc.highlighting_failure"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = True
html_theme = "pydata_sphinx_theme"
html_title = "pertstack"
html_static_path = ["images"]
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": True,
    "navigation_depth": 2,
    "show_toc_level": 2,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
nitpicky = False
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_rate_limit_timeout = 60.0
linkcheck_allowed_redirects = {r"https://doi\.org/.*": r"https://.*"}  # a DOI is meant to lead elsewhere


class CodeCell(Directive):
    """A cell of a text notebook (MyST, as jupytext reads it), shown as code; a test runs the cells."""

    has_content = True
    optional_arguments = 1
    option_spec = {"tags": str}  # noqa: RUF012  (how docutils wants it)

    def run(self) -> list[nodes.Node]:
        block = nodes.literal_block("\n".join(self.content), "\n".join(self.content))
        block["language"] = "bash" if self.content and self.content[0].startswith("!") else "python"
        return [block]


def write_cli_page(app: Sphinx) -> None:
    """``reference/cli.md`` from the commands themselves, so that it cannot fall behind."""
    env = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
    words = [
        sys.executable,
        "-m",
        "typer",
        "pertstack.cli.entry",
        "utils",
        "docs",
        "--name",
        "pertstack",
        "--title",
        "Commands",
    ]
    made = subprocess.run(words, capture_output=True, text=True, env=env, check=True).stdout
    path = Path(app.srcdir) / "reference" / "cli.md"
    if not path.exists() or path.read_text(encoding="utf-8") != made:
        path.write_text(made, encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.add_directive("code-cell", CodeCell)
    app.connect("builder-inited", write_cli_page)
