"""The HTTP port over TLS: the same port, whatever its clients speak, and for slow, leaving and half-finished ones."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from casproxy.auth.claims import Role
from casproxy.digest import Digest
from casproxy.storage.memory import MemoryBackend
from casproxy.tls import TlsStream
from casproxy.web.pace import PaceLimits
from casproxy.web.server import HttpSettings
from casproxy_tests.cancellation.harness import Run, cancel_everywhere
from casproxy_tests.real.certificates import authority, client_context, server_context
from casproxy_tests.web.curl import Ran, curl, has_http2
from casproxy_tests.web.world import World, bearer, until, world

CONTENT = bytes(range(253)) * 40_000  # 10 MB
VERSIONS = ("--http1.1", "--http2")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    made = server_context(tmp_path_factory.mktemp("tls"))
    made.set_alpn_protocols(["h2", "http/1.1"])
    return made


def over(context: ssl.SSLContext, **settings: Any) -> HttpSettings:
    return HttpSettings(tls=lambda: context, **settings)


async def asked(server: World, directory: Path, path: str, *flags: object) -> Ran:
    ca = directory / "ca.pem"
    ca.write_bytes(authority().certificate_pem)
    if "--http2" in flags and not has_http2():
        pytest.skip("this curl has no HTTP/2")
    return await curl("--cacert", ca, *flags, f"https://localhost:{server.port}{path}")


def authorization(role: Role = Role.DOWNLOADER) -> tuple[str, str]:
    return "-H", f"authorization: {bearer(role)['authorization']}"


@pytest.mark.parametrize("version", VERSIONS)
async def test_up_and_down_again(version: str, context: ssl.SSLContext, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    digest = Digest.of(CONTENT)
    async with world(http=over(context)) as server:
        up = await asked(
            server, tmp_path, f"/upload/{digest}", version, "-T", tmp_path / "file", *authorization(Role.UPLOADER)
        )
        down = await asked(
            server, tmp_path, f"/download/{digest}", version, "-w%{stderr}%{http_version}", *authorization()
        )
    assert up.code == 0 and b"fileName" in up.stdout
    assert (down.code, down.stderr) == (0, version.removeprefix("--http").removesuffix(".0"))
    assert Digest.of(down.stdout) == digest


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_early_refusal_reaches_a_client_that_is_still_sending(
    version: str, context: ssl.SSLContext, tmp_path: Path
) -> None:
    """Whoever says goodbye over TLS decrypts no more, but has to go on reading: a reset would lose the answer."""
    (tmp_path / "file").write_bytes(CONTENT)
    flags = (version, "-T", tmp_path / "file", "-H", "expect:", "-w%{stderr}%{http_code}", *authorization())
    async with world(http=over(context)) as server:
        refused = await asked(server, tmp_path, f"/upload/{Digest.of(CONTENT)}", *flags)
    assert refused.stderr.startswith("401")


@asynccontextmanager
async def deaf(server: World) -> AsyncIterator[TlsStream]:
    """A connection with a tiny receive buffer, from which nobody reads."""
    with trio.socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await raw.connect(("127.0.0.1", server.port))
        async with TlsStream(trio.SocketStream(raw), client_context(), server_hostname="localhost") as stream:
            await stream.handshake()
            yield stream


def request(digest: Digest) -> bytes:
    return f"GET /download/{digest} HTTP/1.1\r\nhost: x\r\nauthorization: {bearer()['authorization']}\r\n\r\n".encode()


async def test_a_reader_below_the_least_rate_is_ended(context: ssl.SSLContext) -> None:
    async with world(http=over(context, pace=PaceLimits(idle_timeout=0.5))) as server:
        digest = await server.put(CONTENT)
        async with deaf(server) as stalled:
            await stalled.send_all(request(digest))
            await until(lambda: server.store.open_readers == 1)
            await until(lambda: server.store.open_readers == 0)


async def test_a_reader_that_leaves_stops_the_store_at_once(context: ssl.SSLContext) -> None:
    async with world(http=over(context)) as server:
        digest = await server.put(CONTENT)
        async with deaf(server) as stream:
            await stream.send_all(request(digest))
            await until(lambda: server.store.open_readers == 1)
        await until(lambda: server.store.open_readers == 0)


async def test_whoever_speaks_no_tls_is_sent_away(context: ssl.SSLContext) -> None:
    limits: list[str] = []
    async with (
        world(http=over(context, on_limit=limits.append)) as server,
        await trio.open_tcp_stream("127.0.0.1", server.port) as stream,
    ):
        await stream.send_all(b"GET /infoz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert not (await stream.receive_some()).startswith(b"HTTP")
        await until(lambda: limits == ["http_tls_handshake"])


async def test_whoever_never_finishes_the_handshake_is_sent_away(context: ssl.SSLContext) -> None:
    limits: list[str] = []
    async with (
        world(http=over(context, handshake_timeout=0.1, on_limit=limits.append)) as server,
        await trio.open_tcp_stream("127.0.0.1", server.port) as stream,
    ):
        assert await stream.receive_some() == b""
    assert limits == ["http_tls_handshake"]


async def test_a_drain_waits_for_no_handshake(context: ssl.SSLContext) -> None:
    async with (
        world(http=over(context, grace=lambda: 0.0)) as server,
        await trio.open_tcp_stream("127.0.0.1", server.port) as stream,
    ):
        await trio.testing.wait_all_tasks_blocked()
        server.stop.set()
        assert await stream.receive_some() == b""


async def test_cancelled_at_every_await_it_leaves_nothing(context: ssl.SSLContext) -> None:
    backend = MemoryBackend()

    async def live() -> None:
        async with world(backend=backend, http=over(context)) as server:
            digest = await server.put(b"x" * 100_000)
            async with deaf(server) as stream:
                await stream.send_all(request(digest))
                got = 0
                while got < 100_000:
                    part = await stream.receive_some()
                    assert part, f"the connection ended after {got} bytes"
                    got += len(part)

    async def check(_run: Run[None]) -> None:
        """The harness has looked for tasks and files."""

    assert await cancel_everywhere(live, check) > 10
