"""Owns how the pages in docs/ become a site (``just docs``): Sphinx, MyST for Markdown, and the theme Furo.

The pages stay plain Markdown that reads well where it lies. What only the site needs is here, in ``index.md`` (the
navigation), in ``project/`` (pages from outside docs/) and in ``_static/``. Nothing is fetched, neither by the build
nor by a reader's browser. Refuses to know what any page says.
"""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import download_reference, pending_xref
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from casproxy import __version__

project = "casproxy"
version = release = __version__
html_title = f"casproxy {version}"

extensions = ["myst_parser"]
exclude_patterns = ["README.md", "_build"]  # README.md is the navigation of whoever reads the repository
suppress_warnings = ["misc.highlighting_failure"]  # `…` in an example of JSON is no JSON
highlight_language = "text"
myst_heading_anchors = 3  # GitHub's anchors: a link with # is checked here and works there
nitpicky = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
_MONOSPACE = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
html_theme_options = {
    "light_css_variables": {"font-stack--monospace": _MONOSPACE},  # whose arrows are as wide as its letters
    "navigation_with_keys": True,
}
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_use_index = False

_ROOT = Path(__file__).resolve().parent.parent
_INCLUDED = {
    "index": "README.md",
    "project/changelog": "CHANGELOG.md",
    "project/contributing": "CONTRIBUTING.md",
    "project/security": "SECURITY.md",
}
_PAGES = {_ROOT / path: page for page, path in _INCLUDED.items()} | {_ROOT / "docs/README.md": "index"}
_WIDE = 4
"""A table of so many columns becomes a list of cards where the window is narrow: then each cell says its column."""
_AFTER = re.compile(r"(?<=[^\s./_=:|-][./_=:|-])(?=\w)|(?<=[a-z])(?=[A-Z][a-z])")
"""Where a long name in a table may go on in the next line."""
_DECISIONS = "\n\n```{toctree}\n:glob:\n:maxdepth: 1\n\n0*\n```\n"


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("source-read", _list_decisions)
    app.connect("doctree-read", _keep_links_on_the_site)
    app.connect("doctree-resolved", _fit_tables)
    app.add_node(_LongName, html=(_write_long_name, None))


def _list_decisions(_app: Sphinx, page: str, source: list[str]) -> None:
    """In the repository the directory is the list."""
    if page == "decisions/README":
        source[0] += _DECISIONS


def _keep_links_on_the_site(app: Sphinx, document: nodes.document) -> None:
    """Lead links to Markdown that lies elsewhere to the page that includes it; MyST finds no such page."""
    here = app.env.docname
    directory = (_ROOT / _INCLUDED.get(here, f"docs/{here}")).parent
    for link in [*document.findall(pending_xref), *document.findall(download_reference)]:
        path, _, anchor = link["reftarget"].partition("#")
        found = _ROOT / "docs" / f"{path}.md" if link["refdomain"] == "doc" else (directory / path).resolve()
        if (page := _PAGES.get(found)) is not None:
            attributes = {"refdomain": "doc", "reftype": "myst", "refdoc": here, "refexplicit": True}
            anchor = link.get("reftargetid") or anchor
            link.replace_self(pending_xref("", *link.children, reftarget=page, reftargetid=anchor, **attributes))


class _LongName(nodes.inline):
    """A name that may go on in the next line. To the search it is one word."""


def _write_long_name(writer: HTML5Translator, name: _LongName) -> None:
    writer.body.append("<wbr>".join(writer.encode(part) for part in _AFTER.split(name.astext())))
    raise nodes.SkipNode


def _fit_tables(_app: Sphinx, document: nodes.document, _page: str) -> None:
    """Tell style sheet and browser how a table can be narrower than it would like to be."""
    for table in document.findall(nodes.table):
        for literal in table.findall(nodes.literal):
            literal.children = [_LongName("", literal.astext())]
        head = next(next(table.findall(nodes.thead)).findall(nodes.row)).children
        if len(head) >= _WIDE:
            table["classes"].append("wide")
            for row in next(table.findall(nodes.tbody)).findall(nodes.row):
                for name, cell in list(zip(head, row.findall(nodes.entry), strict=True))[1:]:
                    cell["classes"] += [] if cell.astext() else ["empty"]
                    cell.insert(0, nodes.paragraph("", name.astext(), classes=["column"]))
