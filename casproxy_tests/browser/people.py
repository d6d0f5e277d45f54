"""Owns what a person does on the page, step by step; each step waits until the page shows that it worked."""

from __future__ import annotations

from pathlib import Path

from casproxy.auth.claims import Role
from casproxy.digest import Digest
from casproxy_tests.browser.chromium import Page
from casproxy_tests.web.world import World, token


async def visit(page: Page, server: World) -> None:
    """Open the page; it says that the server is ready."""
    await page.open(server.url)
    await page.wait_for('#status-state[data-state="ready"]')


async def give_tokens(page: Page) -> None:
    """Paste a token for each role into the one field."""
    await page.enter("#token", f"{token(Role.UPLOADER)} {token(Role.DOWNLOADER)}")
    await page.wait("document.querySelectorAll('#tokens li').length === 2")


async def store(page: Page, file: Path, *, mood: str = "good") -> str:
    """Choose a file; returns what the page says in the end."""
    await page.choose_file("#file", file)
    await page.wait_for(f"#store-result .card.{mood}")
    return await page.text("#store-result .message")


async def look_up(page: Page, digest: Digest | str, *, mood: str = "") -> str:
    """Ask for a digest; returns what the page says when it found it, or why it did not."""
    await page.js("document.getElementById('digest').value = ''")
    await page.enter("#digest", str(digest))
    await page.wait_for(f"#fetch-result .card{mood}" if mood else "#fetch-result .actions button")
    return await page.text("#fetch-result .message")


async def download(page: Page, *, mood: str = "good") -> str:
    """Press the button; returns what the page says in the end."""
    await page.click("#fetch-result .actions button")
    await page.wait_for(f"#fetch-result .card.{mood}")
    return await page.text("#fetch-result .message")
