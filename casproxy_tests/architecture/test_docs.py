"""Documentation that names a file or links to a page is checked, for nobody rereads it when a file moves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from casproxy_tests.architecture import ROOT

_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
_FILE = re.compile(r"(?<![\w./-])(?:casproxy|casproxy_tests|contrib|proto)/[\w./-]*\w")
_PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_file_names_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    links = [target for target in _LINK.findall(text) if not (page.parent / target).exists()]
    files = [name for name in _FILE.findall(text) if not (ROOT / name).exists()]
    assert not links and not files
