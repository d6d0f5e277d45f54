"""The page's files and its numbers, as they leave the port. What people see of it: casproxy_tests/browser."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from casproxy.auth.claims import Role
from casproxy.web.ui import ui_pages
from casproxy_tests.web.world import bearer, world

FILES = sorted(path for path in ui_pages(dict) if path != "/ui/activity.json")


@pytest.mark.parametrize("path", FILES)
async def test_every_file_is_served_under_a_strict_policy(path: str) -> None:
    async with world() as server:
        answer = await server.get(path)
        again = await server.get(path, {"if-none-match": answer.headers["etag"]})
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "*" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert (again.status_code, again.content) == (304, b"")


def test_all_files_are_served_and_nothing_is_inline() -> None:
    names = {path.name for path in files("casproxy.web").joinpath("static").iterdir()}
    assert names == {path.rpartition("/")[2] or "index.html" for path in FILES}
    page = files("casproxy.web").joinpath("static", "index.html").read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=)", page)
    assert "//" not in re.sub(r"<!doctype.*?>", "", page), "the page names another origin"


async def test_the_page_is_off_unless_switched_on() -> None:
    async with world(ui=False) as server:
        for path in [*FILES, "/ui/activity.json"]:
            assert (await server.get(path)).status_code == 404


async def test_activity() -> None:
    async with world() as server:
        digest = await server.put(b"12345")
        await server.get(f"/download/{digest}", bearer())
        async with server.client() as client:
            await client.put("/upload", content=b"123", headers=bearer(Role.UPLOADER))
        server.not_ready = "draining"
        answer = await server.get("/ui/activity.json")
    facts = answer.json()
    assert facts.pop("bytesOut") >= 5
    assert facts == {
        "version": "1.2.3",
        "backends": ["FS"],
        "uploads": True,
        "notReady": "draining",
        "streams": 0,
        "bytesIn": 3,
    }
