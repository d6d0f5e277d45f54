"""``PUT /upload[/{digest}]``: streamed, verified, refused early, and nothing left behind."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from casproxy.auth.claims import Role
from casproxy.digest import Digest
from casproxy.errors import ArtifactNotFound, BackendUnavailable
from casproxy.pipeline.api import Limits
from casproxy.pipeline.holding import FLOOR, LEAST
from casproxy.storage.memory import MemoryBackend
from casproxy.storage.wrappers.flights import SharedBackend
from casproxy_tests.fakes.faulty_backend import Fault
from casproxy_tests.web.curl import HTTP2, curl
from casproxy_tests.web.world import SECRET_ID, World, bearer, until, world

CONTENT = bytes(range(253)) * 12_000  # 3 MB
UPLOADER = bearer(Role.UPLOADER)


async def put(
    server: World, path: str, content: object = CONTENT, headers: dict[str, str] | None = None
) -> httpx.Response:
    async with server.client() as client:
        return await client.put(path, content=content, headers=headers or UPLOADER)  # type: ignore[arg-type]


def authorization() -> tuple[str, str]:
    return "-H", f"authorization: {UPLOADER['authorization']}"


async def absent(server: World, digest: Digest) -> bool:
    try:
        await server.store.inner.describe(digest)
    except ArtifactNotFound:
        return True
    return False


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("content", [CONTENT, b"x", b""], ids=["3MB", "1", "empty"])
async def test_a_new_artifact_is_stored(named: bool, content: bytes) -> None:
    digest = Digest.of(content)
    async with world() as server:
        path = f"/upload/{digest}" if named else "/upload"
        answer = await put(server, f"{path}?filename=se%C3%B1al.bin", content)
        again = await put(server, path, content)
        assert await server.stored(digest) == content
    assert answer.status_code == 201
    assert answer.json() == {"digest": str(digest), "size": len(content), "fileName": "señal.bin"}
    assert answer.headers["location"] == f"/download/{digest}"
    assert (again.status_code, again.json()) == (200, answer.json())
    assert server.store.calls["ingest"] == 1


async def test_a_body_of_unknown_length_and_many_small_parts() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, 20_000, 7):
            yield CONTENT[start : start + 7]

    digest = Digest.of(CONTENT[: 20_000 // 7 * 7 + 7])
    async with world() as server:
        assert (await put(server, f"/upload/{digest}", parts())).status_code == 201


async def test_without_a_name_the_digest_is_the_name() -> None:
    async with world() as server:
        assert (await put(server, "/upload", b"x")).json()["fileName"] == Digest.of(b"x").hex


@pytest.mark.parametrize("version", ["--http1.1", HTTP2])
async def test_curl_uploads_a_file(tmp_path: Path, version: str) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    async with world() as server:
        url = f"{server.url}/upload?filename=file"
        new = await curl(version, "-T", tmp_path / "file", *authorization(), "-w", "%{http_code}", url)
        digest = Digest.of(CONTENT)
        known = await curl(version, "-T", tmp_path / "file", *authorization(), f"{server.url}/upload/{digest}")
        assert await server.stored(digest) == CONTENT
    assert (new.code, new.stdout[-3:]) == (0, b"201"), new.stderr
    assert known.code == 0 and str(digest).encode() in known.stdout


async def test_a_known_artifact_is_not_sent_by_a_client_that_asks_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    async with world() as server:
        digest = await server.put(CONTENT)
        arguments = ["--http1.1", "-T", tmp_path / "file", *authorization(), "-H", "Expect: 100-continue"]
        ran = await curl(
            *arguments, "-o", "/dev/null", "-w", "%{size_upload} %{http_code}", f"{server.url}/upload/{digest}"
        )
    assert (ran.code, ran.stdout) == (0, b"0 200"), ran.stderr


async def test_of_two_uploads_at_once_the_second_waits_and_both_succeed() -> None:
    digest, answers = Digest.of(CONTENT), list[httpx.Response]()

    async def second(server: World) -> None:
        answers.append(await put(server, f"/upload/{digest}"))

    async with (
        world(backend=SharedBackend(MemoryBackend())) as server,
        await trio.open_tcp_stream("127.0.0.1", server.port) as first,
        trio.open_nursery() as nursery,
    ):
        await begin(first, f"/upload/{digest}", f"content-length: {len(CONTENT)}", CONTENT[:500_000])
        await until(lambda: server.store.open_ingests == 1)
        nursery.start_soon(second, server)
        await until(lambda: server.store.calls["ingest"] == 2)
        await first.send_all(CONTENT[500_000:])
        assert (await first.receive_some(4096)).startswith(b"HTTP/1.1 201")
    assert [(answer.status_code, answer.json()["digest"]) for answer in answers] == [(200, str(digest))]


@pytest.mark.parametrize("version", ["--http1.1", HTTP2])
async def test_an_early_refusal_reaches_a_client_that_is_still_sending(tmp_path: Path, version: str) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    async with world() as server:
        arguments = [version, "-T", tmp_path / "file", "-H", "Expect:", "-w", "%{http_code}", f"{server.url}/upload"]
        ran = await curl(*arguments)
    assert ran.stdout.endswith(b"401"), ran.stderr
    assert b"JWT token is missing" in ran.stdout


async def test_no_100_continue_before_the_token_was_checked() -> None:
    async with world() as server, await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(b"PUT /upload HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        answer = await stream.receive_some(4096)
    assert answer.startswith(b"HTTP/1.1 401")


# -- refused -----------------------------------------------------------------------------------------


async def test_a_wrong_digest_is_422_and_nothing_is_stored() -> None:
    wrong = Digest.of(b"something else")
    async with world() as server:
        answer = await put(server, f"/upload/{wrong}", CONTENT)
        assert await absent(server, wrong) and await absent(server, Digest.of(CONTENT))
    assert (answer.status_code, answer.json()["reason"]) == (422, "DIGEST_MISMATCH")


async def test_a_size_that_cannot_be_is_409() -> None:
    async with world() as server:
        digest = await server.put(b"five5")
        answer = await put(server, f"/upload/{digest}", b"sixsix")
    assert (answer.status_code, answer.json()["reason"]) == (409, "SIZE_CONFLICT")


@pytest.mark.parametrize("path", ["/upload", f"/upload/{Digest.of(CONTENT)}"])
@pytest.mark.parametrize("announced", [True, False])
async def test_more_than_the_token_allows_is_413(path: str, announced: bool) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(CONTENT), 100_000):
            yield CONTENT[start : start + 100_000]

    async with world() as server:
        headers = bearer(Role.UPLOADER, max_bytes=1_000_000)
        answer = await put(server, path, CONTENT if announced else parts(), headers)
        assert await absent(server, Digest.of(CONTENT))
    assert (answer.status_code, answer.json()["reason"]) == (413, "SIZE_LIMIT_EXCEEDED")
    assert "max=1000000" in answer.json()["message"]


async def test_no_room_is_507_in_the_store_and_in_staging() -> None:
    async with world(backend=MemoryBackend(max_bytes=1000)) as server:
        store = await put(server, f"/upload/{Digest.of(CONTENT)}")
    async with world(staging_quota=1000) as server:
        staging = await put(server, "/upload")
    assert store.status_code == staging.status_code == 507


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/upload/nonsense", UPLOADER, 400),
        ("/upload?filename=a%0Ab", UPLOADER, 400),
        ("/upload?filename=" + "x" * 1025, UPLOADER, 400),
        ("/upload", bearer(Role.DOWNLOADER), 401),
        ("/upload", {"x": "y"}, 401),
        ("/upload", bearer(Role.UPLOADER, backend="Nowhere"), 404),
    ],
)
async def test_refusals(path: str, headers: dict[str, str], status: int) -> None:
    async with world() as server:
        answer = await put(server, path, b"x", headers)
    assert answer.status_code == status
    assert server.store.calls.total() == 0


async def test_without_a_place_to_stage_an_upload_names_its_digest() -> None:
    async with world(staging_dir=None) as server:
        refused = await put(server, "/upload", b"x")
        assert (await put(server, f"/upload/{Digest.of(b'x')}", b"x")).status_code == 201
        page = (await server.get("/ui/activity.json")).json()
    assert (refused.status_code, refused.json()["reason"]) == (400, "DIGEST_REQUIRED")
    assert "staging.dir" in refused.text and "PUT /upload/sha256:" in refused.text
    assert page["uploads"] is False


async def test_uploads_are_off_unless_switched_on() -> None:
    async with world(uploads=False) as server:
        assert (await put(server, "/upload", b"x")).status_code == 404


async def test_other_methods_are_told_what_works() -> None:
    async with world() as server:
        answer = await server.get("/upload", UPLOADER, method="POST")
        options = await server.get("/upload", method="OPTIONS")
    assert (answer.status_code, answer.headers["allow"]) == (405, "PUT")
    assert (options.status_code, options.headers["allow"]) == (204, "PUT, OPTIONS")


# -- what goes wrong on the way ----------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["ingest", "write", "commit"])
async def test_a_store_that_fails_is_503_and_nothing_is_stored(operation: str) -> None:
    async with world(Fault(operation, error=BackendUnavailable("down"))) as server:  # type: ignore[arg-type]
        answer = await put(server, f"/upload/{Digest.of(CONTENT)}")
        assert await absent(server, Digest.of(CONTENT))
    assert answer.status_code == 503


async def begin(stream: trio.SocketStream, path: str, rest: str, body: bytes) -> None:
    """Send the head of an upload and the beginning of its body."""
    head = f"PUT {path} HTTP/1.1\r\nhost: x\r\nauthorization: {UPLOADER['authorization']}\r\n{rest}\r\n\r\n"
    await stream.send_all(head.encode() + body)


async def test_a_store_that_fails_while_the_client_is_idle_is_told_at_once() -> None:
    async with (
        world(Fault("write", error=BackendUnavailable("down"))) as server,
        await trio.open_tcp_stream("127.0.0.1", server.port) as stream,
    ):
        await begin(stream, f"/upload/{Digest.of(CONTENT)}", "content-length: 4000000", CONTENT[:300_000])
        assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 503")


@pytest.mark.parametrize("path", ["/upload", f"/upload/{Digest.of(CONTENT)}"])
async def test_with_little_memory_an_upload_is_whole_all_the_same(path: str) -> None:
    async with world(memory_budget=400_000) as server:
        answer = await put(server, path)
        assert answer.status_code == 201
        assert await server.stored(Digest.of(CONTENT)) == CONTENT
        assert server.budget.exposed == 0


@pytest.mark.parametrize("path", ["/upload", f"/upload/{Digest.of(CONTENT)}"])
async def test_an_upload_that_memory_has_no_room_for_is_told_to_come_back(path: str) -> None:
    async with world(memory_budget=1000) as server:
        answer = await put(server, path)
        assert (answer.status_code, answer.json()["reason"]) == (503, "MEMORY_SHORT")
        assert server.staging.reserved == 0


async def test_a_store_that_hangs_is_sent_no_more_than_there_is_room_for() -> None:
    async with (
        world(Fault("write", stall=True), memory_budget=2_400_000) as server,  # an eighth is for reading ahead
        await trio.open_tcp_stream("127.0.0.1", server.port) as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(begin, stream, f"/upload/{Digest.of(CONTENT)}", f"content-length: {len(CONTENT)}", CONTENT)
        await server.store.faults[0].reached.wait()
        await until(lambda: server.budget.account(SECRET_ID).room_ahead < LEAST)
        assert server.budget.exposed <= 2_400_000 // 8 + 2 * FLOOR
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("path", ["/upload", f"/upload/{Digest.of(CONTENT)}"])
async def test_a_client_that_stops_sending_is_408(path: str) -> None:
    async with (
        world(limits=Limits(idle_timeout=0.2)) as server,
        await trio.open_tcp_stream("127.0.0.1", server.port) as stream,
    ):
        await begin(stream, path, "content-length: 100", b"12345")
        assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("path", ["/upload", f"/upload/{Digest.of(CONTENT)}"])
@pytest.mark.parametrize("abruptly", [True, False])
async def test_a_client_that_leaves_leaves_nothing(path: str, abruptly: bool) -> None:
    async with world() as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await begin(stream, path, f"content-length: {len(CONTENT)}", CONTENT[:2_000_000])
        await until(lambda: server.store.open_ingests + server.staging.reserved > 0)
        if abruptly:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await stream.aclose()
        await until(lambda: server.store.open_ingests + server.staging.reserved == 0)
        await until(lambda: server.metric("casproxy_http_requests_in_flight") == 0)
        assert await absent(server, Digest.of(CONTENT))
        assert server.metric("casproxy_http_requests_total", method="PUT", route=_route(path), code="499") == 1


def _route(path: str) -> str:
    return path if path == "/upload" else "/upload/{digest}"
