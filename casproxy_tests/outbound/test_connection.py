"""One HTTP/1.1 connection against a scripted server."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from casproxy.outbound.connection import Connection
from casproxy.outbound.errors import AnswerBroken, ConnectionBroken, OutboundError, TimedOut
from casproxy.outbound.message import Request
from casproxy_tests.outbound.scripted import TIMEOUTS, Line, Pieces, Script, Server, url

GET = Request("GET", url("/x"))


async def get(connection: Connection) -> tuple[int, bytes, bool]:
    response = await connection.exchange(GET)
    return response.status, await response.read(1000), response.reusable


def answering(*answers: bytes, then_hang_up: bool = False) -> Script:
    async def script(line: Line) -> None:
        for answer in answers:
            await line.hear(b"\r\n\r\n")
            await line.say(answer)
        if then_hang_up:
            await line.hang_up()

    return script


async def exchange(*answers: bytes, then_hang_up: bool = False) -> tuple[int, bytes, bool]:
    async with trio.open_nursery() as nursery:
        connection = await Server(nursery, [answering(*answers, then_hang_up=then_hang_up)]).connect()
        try:
            return await get(connection)
        finally:
            connection.close()


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", (200, b"abc", True)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True)),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", (304, b"", True)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", (200, b"abc", True)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", (200, b"abc", False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", (200, b"abc", False)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\n", (200, b"abc", False)),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, b"", True)),
    ],
)
async def test_answers(answer: bytes, want: tuple[int, bytes, bool]) -> None:
    assert await exchange(answer) == want


async def test_a_body_that_ends_with_the_connection() -> None:
    assert await exchange(b"HTTP/1.1 200 OK\r\n\r\nabc", then_hang_up=True) == (200, b"abc", False)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", ConnectionBroken),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", ConnectionBroken),
        (b"HTTP/1.1 200 OK\r\nContent-Le", ConnectionBroken),
        (b"", ConnectionBroken),
        (b"SSH-2.0-OpenSSH\r\n\r\n", AnswerBroken),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", AnswerBroken),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", AnswerBroken),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", AnswerBroken),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, AnswerBroken),
    ],
)
async def test_broken_answers(answer: bytes, error: type[OutboundError]) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await exchange(answer, then_hang_up=True)
    assert caught.group_contains(error, depth=1)


async def test_several_headers_of_one_name_are_joined() -> None:
    async with trio.open_nursery() as nursery:
        answer = b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nwww-authenticate: Bearer\r\nContent-Length: 0\r\n\r\n"
        connection = await Server(nursery, [answering(answer)]).connect()
        response = await connection.exchange(GET)
        assert response.headers["www-authenticate"] == "Basic, Bearer"
        connection.close()


async def test_one_exchange_after_another() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    async with trio.open_nursery() as nursery:
        connection = await Server(nursery, [answering(answer, answer, answer)]).connect()
        for _ in range(3):
            assert await get(connection) == (200, b"abc", True)
        connection.close()


@pytest.mark.parametrize("silent_after", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na"])
async def test_a_silent_server_is_given_up(silent_after: bytes, autojump_clock: MockClock) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await exchange(silent_after)
    assert caught.group_contains(TimedOut, depth=1)
    assert trio.current_time() == pytest.approx(TIMEOUTS.read if silent_after else TIMEOUTS.answer, abs=0.1)


async def test_a_body_in_chunks() -> None:
    heard = b""

    async def script(line: Line) -> None:
        nonlocal heard
        heard = await line.hear(b"\r\n0\r\n\r\n")
        await line.say(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        connection = await Server(nursery, [script]).connect()
        response = await connection.exchange(Request("PATCH", url("/u"), body=Pieces(b"abc", b"d" * 17)))
        assert (response.status, response.early) == (202, False)
        connection.close()
    head, _, body = heard.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    assert body == b"3\r\nabc\r\n11\r\n" + b"d" * 17 + b"\r\n0\r\n\r\n"


async def test_a_body_of_declared_size() -> None:
    heard = b""

    async def script(line: Line) -> None:
        nonlocal heard
        heard = await line.hear(b"abcdef")
        await line.say(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        connection = await Server(nursery, [script]).connect()
        body = Pieces(b"abc", b"def", size=6, silent=True)  # the answer is not held up by a body that goes on asking
        response = await connection.exchange(Request("PUT", url("/u"), body=body))
        assert (response.status, response.early) == (201, False)
        connection.close()
    assert b"content-length: 6\r\n" in heard.lower()


@pytest.mark.parametrize("idle", [True, False])
async def test_an_early_answer_is_heard(idle: bool) -> None:
    async def script(line: Line) -> None:
        await line.hear(b"abc")
        await line.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await line.closed()

    async with trio.open_nursery() as nursery:
        connection = await Server(nursery, [script]).connect()
        body = Pieces(b"abc", silent=True) if idle else Pieces(*[b"abc"] * 100, silent=True)
        response = await connection.exchange(Request("PATCH", url("/u"), body=body))
        assert (response.status, response.early) == (413, True)
        assert await response.read(100) == b"no"
        assert not response.reusable
        connection.close()


async def test_a_server_that_hangs_up_during_a_body() -> None:
    async def script(line: Line) -> None:
        await line.hear(b"abc")
        await line.hang_up()

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            connection = await Server(nursery, [script]).connect()
            await connection.exchange(Request("PATCH", url("/u"), body=Pieces(b"abc", silent=True)))
    assert caught.group_contains(ConnectionBroken, depth=1)


async def test_a_cancelled_body_in_chunks_ends_in_order() -> None:
    body = Pieces(b"abc", silent=True)

    async def script(line: Line) -> None:
        await line.hear(b"abc\r\n")
        cancelled.cancel()
        assert await line.hear(b"0\r\n\r\n") == b"0\r\n\r\n"
        await line.say(b"HTTP/1.1 202 Accepted\r\nLocation: /new\r\nContent-Length: 0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        connection = await Server(nursery, [script]).connect()
        with trio.CancelScope() as cancelled:
            await connection.exchange(Request("PATCH", url("/u"), body=body))
        assert cancelled.cancelled_caught
        connection.close()
    assert [answer.headers["location"] for answer in body.answers] == ["/new"]


async def test_a_cancelled_body_does_not_wait_long_for_a_silent_server(autojump_clock: MockClock) -> None:
    async def script(line: Line) -> None:
        await line.hear(b"abc\r\n")
        cancelled.cancel()
        await line.closed()

    async with trio.open_nursery() as nursery:
        connection = await Server(nursery, [script]).connect()
        with trio.CancelScope() as cancelled:
            await connection.exchange(Request("PATCH", url("/u"), body=Pieces(b"abc", silent=True)))
        connection.close()
    assert trio.current_time() == pytest.approx(1.0)
