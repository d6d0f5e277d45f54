"""The page for people in a real browser: what goes up, what comes down, and what it says when something is wrong."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from casproxy.digest import Digest
from casproxy.errors import BackendUnavailable
from casproxy.web.asgi import Receive, Scope, Send, response_start
from casproxy.web.server import serve_http
from casproxy_tests.browser.chromium import Page, chromium
from casproxy_tests.browser.people import download, give_tokens, look_up, store, visit
from casproxy_tests.fakes.faulty_backend import Fault
from casproxy_tests.web.world import World, token, world

CONTENT = bytes(range(256)) * 12_000
NAME = "señal 日本 🚀.tar.gz"


@asynccontextmanager
async def at(page: Page, server: World) -> AsyncIterator[None]:
    await visit(page, server)
    await give_tokens(page)
    yield
    assert not page.complaints


async def test_a_file_goes_up_and_comes_back_verified(tmp_path: Path) -> None:
    file = tmp_path / NAME
    file.write_bytes(CONTENT)
    digest = Digest.of(CONTENT)
    async with world() as server, chromium(tmp_path) as page, at(page, server):
        assert "Stored and verified" in await store(page, file)
        assert await page.text("#store-result .digest code") == str(digest)
        assert await server.stored(digest) == CONTENT
        assert "stored already" in await store(page, file)
        await look_up(page, digest)
        assert (await page.text("#fetch-result .name"), await page.text("#fetch-result .size")) == (NAME, "2.9 MiB")
        assert "Verified" in await download(page)
        assert await page.downloaded(NAME) == "completed"
        assert (tmp_path / "downloads" / NAME).read_bytes() == CONTENT


async def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    async with world() as server, chromium(tmp_path) as page, at(page, server):
        assert "Stored and verified" in await store(page, tmp_path / "empty")
        await look_up(page, Digest.of(b""))
        assert "Verified" in await download(page)


async def test_a_tampered_artifact_is_not_saved(tmp_path: Path) -> None:
    async with world(Fault("receive", flip=1_000_000, times=9)) as server, chromium(tmp_path) as page:
        digest = await server.put(CONTENT, "tampered.bin")
        await visit(page, server)
        await give_tokens(page)
        await look_up(page, digest)
        said = await download(page, mood="bad")
        assert "nothing was saved" in said and "no longer matches its digest" in said
        assert not page.downloads and not list((tmp_path / "downloads").iterdir())


async def test_a_dead_store_is_told_clearly(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    down = [Fault("describe", error=BackendUnavailable("the registry is down"), times=9)]
    async with world(*down) as server, chromium(tmp_path) as page:
        await visit(page, server)
        await give_tokens(page)
        looked_up = await look_up(page, Digest.of(CONTENT), mood=".bad")
        stored = await store(page, tmp_path / "file", mood="bad")
    for said in (looked_up, stored):
        assert said.startswith("The store does not answer. Try again in a moment.")
        assert "the registry is down (id " in said


async def test_what_a_person_can_do_wrong(tmp_path: Path) -> None:
    async with world() as server, chromium(tmp_path) as page:
        await visit(page, server)
        assert "role downloader" in await look_up(page, Digest.of(b"x"), mood=".bad")
        await page.enter("#token", "nonsense")
        await page.wait_for("#tokens .bad")
        await give_tokens(page)
        assert "64 lower-case hex digits" in await look_up(page, "nonsense", mood=".bad")
        assert "Nothing is stored" in await look_up(page, Digest.of(b"x"), mood=".bad")


async def test_the_status_strip_tells_the_truth(tmp_path: Path) -> None:
    async with chromium(tmp_path) as page:
        async with world() as server:
            await visit(page, server)
            assert await page.text("#status-version") == "1.2.3" and await page.text("#status-backends") == "FS"
            server.not_ready = "draining"
            await page.wait("document.getElementById('status-state').textContent === 'draining'")
        await page.wait_for('#status-state[data-state="gone"]')


async def test_the_token_is_nowhere_but_in_memory(tmp_path: Path) -> None:
    async with world() as server, chromium(tmp_path) as page, at(page, server):
        digest = await server.put(CONTENT)
        await look_up(page, digest)
        await download(page)
        assert await page.js("[localStorage.length, sessionStorage.length, document.cookie].join()") == "0,0,"
        urls = await page.js("performance.getEntriesByType('resource').map((entry) => entry.name).join(' ')")
        assert "eyJ" not in urls + await page.js("location.href")
        await page.open(server.url)
        assert await page.js("document.querySelectorAll('#tokens li').length") == 0


async def test_the_policy_lets_nothing_inline_run(tmp_path: Path) -> None:
    async with world() as server, chromium(tmp_path) as page:
        await visit(page, server)
        await page.js(
            "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
        )
        assert await page.js("window.ran === undefined")
        assert any("Content Security Policy" in complaint for complaint in page.complaints)


async def test_every_control_has_a_name_and_can_be_reached_by_keyboard(tmp_path: Path) -> None:
    async with world() as server, chromium(tmp_path) as page:
        await visit(page, server)
        focused = []
        for _ in range(5):
            await page.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
            focused.append(await page.js("document.activeElement.id || document.activeElement.textContent"))
        assert focused == ["token", "Use", "file", "digest", "Look up"]
        await give_tokens(page)
        tree = await page.call("Accessibility.getFullAXTree")
        controls = [node for node in tree["nodes"] if node.get("role", {}).get("value") in ("button", "textbox")]
        assert len(controls) >= 6
        assert all(node["name"]["value"].strip() for node in controls)


# -- another origin ----------------------------------------------------------------------------------


@asynccontextmanager
async def another_origin() -> AsyncIterator[str]:
    """A page of somebody else's; its address is its origin."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(response_start(200, [("content-type", "text/html")]))
        await send({"type": "http.response.body", "body": b"<!doctype html><link rel=icon href=data:,>"})

    listener = socket.create_server(("127.0.0.1", 0))
    origin, stop = f"http://127.0.0.1:{listener.getsockname()[1]}", trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_http, app, listener, stop)
        yield origin
        stop.set()


@pytest.mark.parametrize("how", ["simple", "preflight"])
@pytest.mark.parametrize("allowed", [True, False])
async def test_a_page_of_another_origin(tmp_path: Path, how: str, allowed: bool) -> None:
    async with (
        another_origin() as origin,
        chromium(tmp_path) as page,
        world(allow_origins=[origin if allowed else "https://other.example"]) as server,
    ):
        digest = await server.put(b"across", "across.txt")
        url, options = f"{server.url}/download/{digest}", "{}"
        if how == "simple":
            url += f"?t={token()}"
        else:
            options = f"{{headers: {{Authorization: 'Bearer {token()}'}}}}"
        await page.open(origin)
        read = "answer.headers.get('Repr-Digest') + answer.headers.get('Content-Disposition') + await answer.text()"
        got = await page.js(f"fetch({url!r}, {options}).then(async (answer) => {read}, () => 'refused')")
    if allowed:
        assert got.startswith("sha-256=:") and got.endswith('attachment; filename="across.txt"across')
    else:
        assert got == "refused"
