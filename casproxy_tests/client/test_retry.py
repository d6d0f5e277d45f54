"""When a call is made again, and that what was reached is taken up."""

from __future__ import annotations

import math
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from casproxy.client import Client, Phase, Retry, RpcError, StatusCode, UnexpectedAnswer, open_client
from casproxy.client.progress import no_progress
from casproxy.client.retry import NO_RETRY, Attempts
from casproxy.digest import Digest
from casproxy_tests.client.sinks import Collected
from casproxy_tests.fakes.artifact_server import READ_PIECE, ArtifactServer, serve

QUICK = Retry(times=3, first_wait=0.001, longest_wait=0.002)
UNAVAILABLE = RpcError(StatusCode.UNAVAILABLE, "gone")


def caused_by(cause: BaseException) -> RpcError:
    """UNAVAILABLE as the channel raises it when it cannot dial."""
    error = RpcError(StatusCode.UNAVAILABLE, "cannot connect")
    error.__cause__ = trio.BrokenResourceError()
    error.__cause__.__cause__ = cause
    return error


@asynccontextmanager
async def connected(server: ArtifactServer) -> AsyncIterator[Client]:
    async with serve(server) as address, open_client(address, insecure=True, retry=QUICK) as client:
        yield client


def test_waits_grow_are_spread_and_bounded() -> None:
    retry = Retry(times=9, first_wait=1, longest_wait=5)
    for failures, longest in ((1, 1), (2, 2), (3, 4), (4, 5), (5, 5), (10_000, 5)):
        waits = [retry.wait(failures) for _ in range(200)]
        assert longest / 2 <= min(waits) < max(waits) <= longest


async def test_the_waits_are_waited_for_and_counted(autojump_clock: trio.testing.MockClock) -> None:
    attempts, begun = Attempts(Retry(times=3, first_wait=1), math.inf), trio.current_time()
    seen: list[Phase] = []
    answers = [await attempts.again(UNAVAILABLE, lambda phase, *_: seen.append(phase)) for _ in range(4)]
    assert answers == [True, True, True, False]
    assert seen == [Phase.WAIT] * 3
    assert 3.5 <= trio.current_time() - begun <= 7


async def test_who_got_further_may_fail_as_often_again(autojump_clock: trio.testing.MockClock) -> None:
    attempts = Attempts(Retry(times=1), math.inf)
    for _ in range(20):
        assert await attempts.again(UNAVAILABLE, no_progress)
        attempts.got_further()


async def test_nothing_is_tried_beyond_the_timeout(autojump_clock: trio.testing.MockClock) -> None:
    attempts = Attempts(Retry(times=100, first_wait=1), 10)
    assert attempts.seconds_left == 10
    while await attempts.again(UNAVAILABLE, no_progress):
        assert 0 < attempts.seconds_left < 10
    assert trio.current_time() < 10


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (UNAVAILABLE, True),
        (caused_by(ConnectionRefusedError()), True),
        (caused_by(ssl.SSLEOFError()), True),
        (caused_by(ssl.SSLCertVerificationError()), False),
        (caused_by(ssl.SSLError(1, "wrong version number")), False),
        (caused_by(socket.gaierror(socket.EAI_AGAIN, "try again")), True),
        (caused_by(socket.gaierror(socket.EAI_NONAME, "no such name")), False),
        *((RpcError(code), False) for code in StatusCode if code is not StatusCode.UNAVAILABLE),
    ],
)
async def test_only_what_may_pass_is_tried_again(
    autojump_clock: trio.testing.MockClock, error: RpcError, again: bool
) -> None:
    assert await Attempts(Retry(), math.inf).again(error, no_progress) is again
    assert not await Attempts(NO_RETRY, math.inf).again(error, no_progress)


@pytest.mark.parametrize("failures", [1, 3, 4])
async def test_an_upload_is_sent_again_from_its_start(tmp_path: Path, failures: int) -> None:
    path, content = tmp_path / "in", os.urandom(2 * READ_PIECE)
    path.write_bytes(content)
    server = ArtifactServer(failures={"Write": failures})
    async with connected(server) as client:
        if failures > QUICK.times:
            with pytest.raises(RpcError, match="the server restarts"):
                await client.upload(path)
            assert server.stored == {}
        else:
            assert (await client.upload(path)).digest == Digest.of(content)
            assert server.stored == {Digest.of(content).hex: ("in", content)}
    assert len(server.writes) == min(failures, QUICK.times) + 1


async def test_bytes_and_streams_are_sent_again_too() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a piece"

    server = ArtifactServer(failures={"Write": 1})
    async with connected(server) as client:
        await client.upload(b"some bytes")
        server.failures["Write"] = 1
        await client.upload(pieces())
    assert {content for _, content in server.stored.values()} == {b"some bytes", b"a piece"}


async def test_a_download_goes_on_at_the_byte_reached() -> None:
    content = os.urandom(8 * READ_PIECE + 5)
    server = ArtifactServer(fail_read_after=2)  # more failures in all than retries in a row
    digest = Digest(server.put("f", content))
    async with connected(server) as client:
        await client.download(digest, sink := Collected())
    assert sink.content == content
    assert server.offsets == [0, 2 * READ_PIECE, 4 * READ_PIECE, 6 * READ_PIECE, 8 * READ_PIECE]


async def test_a_download_that_gets_nowhere_ends() -> None:
    server = ArtifactServer(failures={"Read": 100})
    digest = Digest(server.put("f", b"content"))
    async with connected(server) as client:
        with pytest.raises(RpcError, match="the server restarts"):
            await client.download(digest, Collected())
    assert server.offsets == [0] * (QUICK.times + 1)


async def test_a_server_that_cannot_begin_in_the_middle_is_found_out() -> None:
    content = os.urandom(3 * READ_PIECE)
    server = ArtifactServer(fail_read_after=2, ignores_offset=True)
    digest = Digest(server.put("f", content))
    async with connected(server) as client:
        with pytest.raises(UnexpectedAnswer, match="cannot resume"):
            await client.download(digest, Collected())


async def test_describe_is_asked_again() -> None:
    server = ArtifactServer(failures={"Describe": 3})
    digest = Digest(server.put("f", b"content"))
    async with connected(server) as client:
        assert (await client.describe(digest)).size == 7


async def test_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    """Nothing listens when the call begins; the first wait is when the server comes."""
    async with serve(server := ArtifactServer()) as address:
        pass  # a port that is free now
    digest, port = Digest(server.put("f", b"content")), int(address.rpartition(":")[2])
    coming = trio.Event()

    def started_waiting(phase: Phase, done: int, total: int | None) -> None:
        if phase is Phase.WAIT:
            coming.set()

    async with trio.open_nursery() as nursery:

        async def come() -> None:
            await coming.wait()
            async with serve(server, port=port):
                await trio.sleep_forever()

        nursery.start_soon(come)
        async with open_client(address, insecure=True, retry=Retry(times=50, first_wait=0.2)) as client:
            await client.download(digest, sink := Collected(), progress=started_waiting)
        nursery.cancel_scope.cancel()
    assert sink.content == b"content"
