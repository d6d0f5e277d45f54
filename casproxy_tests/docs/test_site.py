"""The site of the documentation: it builds without a warning, no link of it is dead, and it fits a phone.

The build itself tells of broken links between pages and of anchors (MyST). Here its result is walked as a browser does:
that also finds what the theme and the included pages brought along.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from casproxy_tests.architecture import ROOT
from casproxy_tests.browser.chromium import chromium
from casproxy_tests.real.process import require_package

_LOADED = {"img": "src", "link": "href", "script": "src", "source": "src", "iframe": "src"}
_PHONE = 390
_TOO_WIDE = """[...document.querySelectorAll(":root, .table-wrapper")].some((it) => it.scrollWidth > it.clientWidth)"""
_FETCHED_BY_CSS = re.compile(r"""(?:url\(|@import)\s*["']?(?!data:|#)([^"')\s;]+)""")


@dataclass
class Html(HTMLParser):
    """What one page says about others."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given["id"]} if "id" in given else set()
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if _LOADED.get(tag) in given and given.get("rel") not in {"index", "search", "next", "prev"}:
            self.loaded.append(given[_LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``just docs`` does."""
    for module in ("sphinx", "myst_parser", "furo"):
        require_package(module, "the site of the documentation")
    target = tmp_path_factory.mktemp("site")
    recipe = re.search(r"^    (sphinx-build .*) docs build/site$", (ROOT / "justfile").read_text("utf-8"), re.MULTILINE)
    assert recipe is not None
    flags = recipe[1].replace("build/", f"{target}/").split()[1:]
    command = [sys.executable, "-m", "sphinx", *flags, "docs", str(target / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return target / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Html]:
    """Every page of the site, taken apart."""
    found = {}
    for path in site.rglob("*.html"):
        found[path] = Html()
        found[path].feed(path.read_text("utf-8"))
    return found


def test_every_page_of_the_documentation_is_there(site: Path) -> None:
    sources = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    assert built >= sources - {Path("README")}  # the navigation takes its place


def test_no_link_is_dead(pages: dict[Path, Html]) -> None:
    dead = [
        f"{path.name}: {link}" for path, page in pages.items() for link in page.links if _is_dead(link, path, pages)
    ]
    assert not dead


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[Path, Html]) -> None:
    wanted = {path: page.loaded for path, page in pages.items()}
    wanted |= {path: _FETCHED_BY_CSS.findall(path.read_text("utf-8")) for path in site.rglob("*.css")}
    assert sum(map(len, wanted.values())) > 100
    assert not [f"{path.name}: {url}" for path, urls in wanted.items() for url in urls if _file(url, path) is None]


async def test_the_pages_fit_a_phone(pages: dict[Path, Html], tmp_path: Path) -> None:
    async with chromium(tmp_path) as browser:
        await browser.look(dark=True, width=_PHONE)
        for path in pages:
            await browser.open(path.as_uri())
            assert not await browser.js(_TOO_WIDE), path.name
        assert browser.complaints == []


async def test_the_search_finds_a_setting(site: Path, tmp_path: Path) -> None:
    async with chromium(tmp_path) as browser:
        await browser.open(f"{(site / 'search.html').as_uri()}?q=max_connection_age")
        await browser.wait_for("ul.search a[href*='configuration.html']")


def _is_dead(link: str, path: Path, pages: dict[Path, Html]) -> bool:
    """Others' addresses are looked at, not asked: the tests need no network."""
    url = urlsplit(link)
    if url.scheme:
        return url.scheme not in {"http", "https", "mailto"} or not (url.hostname or url.path)
    target = _file(link, path)
    if target is None:
        return True
    return bool(url.fragment) and unquote(url.fragment) not in pages[target].ids


def _file(url: str, path: Path) -> Path | None:
    """The file of the site that a relative address on a page means, if there is one."""
    parts = urlsplit(url)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    return None if parts.scheme or parts.netloc or not target.is_file() else target


@pytest.mark.parametrize(
    ("link", "dead"),
    [
        ("#here", False),
        ("#nowhere", True),
        ("page.html#here", False),
        ("missing.html", True),
        ("https://example.org/x", False),
        ("https:///x", False),
        ("htps://example.org", True),
        ("//example.org/font.woff", True),
        ("mailto:", True),
    ],
)
def test_what_counts_as_dead(link: str, dead: bool, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("")
    assert _is_dead(link, path, {path: Html(ids={"here"})}) is dead
