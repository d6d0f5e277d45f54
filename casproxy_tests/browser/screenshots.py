"""Makes the pictures of the page in the documentation: ``just screenshots``. Look at them before they are committed."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import structlog
import trio

from casproxy.digest import Digest
from casproxy.observe import log
from casproxy_tests.browser.chromium import Page, chromium
from casproxy_tests.browser.people import download, give_tokens, look_up, store, visit
from casproxy_tests.fakes.faulty_backend import Fault
from casproxy_tests.web.world import World, world

_FILE = "release-1.4.0.tar.gz"
_CONTENT = bytes(range(253)) * 40_000


async def take_pictures(target: Path) -> None:
    """Light, dark, narrow, and the failure that must be plain."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / _FILE).write_bytes(_CONTENT)
        async with world() as server, chromium(place) as page:
            await _use(page, server, place / _FILE)
            await download(page)
            await _picture(page, target / "page-light.png", dark=False)
            await _picture(page, target / "page-dark.png", dark=True)
            await _picture(page, target / "page-narrow.png", dark=False, width=400)
    with tempfile.TemporaryDirectory() as directory:
        async with world(Fault("receive", flip=5_000_000, times=9)) as server, chromium(Path(directory)) as page:
            digest = await server.put(_CONTENT, _FILE)
            await visit(page, server)
            await give_tokens(page)
            await look_up(page, digest)
            await download(page, mood="bad")
            await _picture(page, target / "page-tampered.png", dark=False)


async def _use(page: Page, server: World, file: Path) -> None:
    await visit(page, server)
    await give_tokens(page)
    await store(page, file)
    await look_up(page, Digest.of(_CONTENT))


async def _picture(page: Page, path: Path, *, dark: bool, width: int = 860) -> None:
    await page.look(dark=dark, width=width)
    await page.js("document.activeElement.blur()")
    await page.wait("document.getElementById('status-in').textContent !== '–'")
    await page.screenshot(path)


if __name__ == "__main__":
    log.configure("error", "console")
    trio.run(take_pictures, Path(sys.argv[1]))
    structlog.reset_defaults()
