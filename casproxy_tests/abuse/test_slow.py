"""Peers that take their time, or take our connections: every wait has an end, measured from the last progress."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from casproxy.rpc.patience import ConnectionTimeouts
from casproxy.rpc.server import ServerSettings
from casproxy_tests.abuse.arena import Attacker, arena, passes
from casproxy_tests.rpc.world import CHAT, DOWNLOAD, UNARY, UPLOAD, blocked, chat, count, serving, to
from casproxy_tests.wire.frames import PREFACE, block, frame
from casproxy_tests.wire.peer import message

SETTINGS = frame(4, 0, 0)
NO_ERROR = 0


async def seconds(clock: MockClock, count: float) -> None:
    """Let time pass, and whoever waited for it run."""
    clock.jump(count)
    await passes(30)


BEGINNINGS = {
    "nothing": b"",
    "half a preface": PREFACE[:12],
    "a preface and no SETTINGS": PREFACE,
    "a preface and half of SETTINGS": PREFACE + SETTINGS[:5],
}


@pytest.mark.parametrize("said", BEGINNINGS)
async def test_slow_greeting(said: str, mock_clock: MockClock) -> None:
    """Ten seconds for all of it; a byte now and then buys no time."""
    async with arena(neighbour=False) as ring:
        wire = ring.world.connect()
        wire.peer.output[:] = BEGINNINGS[said]
        attacker = Attacker(wire, ring.attackers_time)
        await attacker.send(b"", passes=20)
        await seconds(mock_clock, 9.9)
        assert not ring.limits
        if said == "nothing":
            attacker.peer.output.clear()
            await attacker.send(PREFACE[:1], passes=20)
        await seconds(mock_clock, 0.2)
        assert ring.limits == ["slow_greeting"]
        await attacker.send(b"", passes=20)
        assert attacker.closed


UNFINISHED = {
    "half a frame header": frame(1, 4, 1, block())[:5],
    "half a header block": frame(1, 4, 1, block())[:20],
    "HEADERS and no CONTINUATION": frame(1, 0, 1, block()),
    "half a PING": frame(6, 0, 0, bytes(8))[:12],
    "half of an unknown frame": frame(0x55, 0, 0, bytes(100_000))[:20_000],
}


@pytest.mark.parametrize("what", UNFINISHED)
async def test_slow_headers(what: str, mock_clock: MockClock) -> None:
    async with arena(neighbour=False) as ring:
        attacker = await ring.attacker()
        await attacker.send(UNFINISHED[what], passes=20)
        await seconds(mock_clock, 9.9)
        assert not ring.limits
        await seconds(mock_clock, 0.2)
        assert ring.limits == ["slow_headers"]
        await attacker.send(b"", passes=20)
        assert attacker.closed and attacker.goaway() == (NO_ERROR, b"slow_headers")


async def test_a_header_block_in_drops(mock_clock: MockClock) -> None:
    """A byte a second is progress of a kind, and not enough: the block as a whole has ten seconds."""
    wire = frame(1, 4, 1, block())
    async with arena(neighbour=False) as ring:
        attacker = await ring.attacker()
        for byte in wire[:10]:
            assert not ring.limits
            await attacker.send(bytes([byte]), passes=10)
            await seconds(mock_clock, 1)
        assert ring.limits == ["slow_headers"]


async def test_slow_request(mock_clock: MockClock) -> None:
    """A call that takes one message gets it within ten seconds; only that call ends."""
    async with arena((DOWNLOAD, chat), settings=ServerSettings(unary_timeout=math.inf), neighbour=False) as ring:
        attacker = await ring.attacker()
        calls = [attacker.peer.open(to(method)) for method in (UNARY, DOWNLOAD)]
        await attacker.send(b"", passes=30)
        for stream_id in calls:
            attacker.peer.data(stream_id, message(b"twelve bytes")[:7])
        await attacker.send(b"", passes=30)
        await seconds(mock_clock, 9.9)
        assert not ring.limits
        await seconds(mock_clock, 0.2)
        await attacker.send(b"", passes=30)
        assert ring.limits == ["slow_request"] * len(calls)
        assert [attacker.peer.status(stream_id) for stream_id in calls] == [4, 4]
        assert not attacker.closed


async def test_a_slow_stream_of_messages_is_not_the_wires_business(mock_clock: MockClock) -> None:
    """An upload may take hours, as long as the pipeline sees progress."""
    async with arena((UPLOAD, count), neighbour=False) as ring:
        attacker = await ring.attacker()
        stream_id = attacker.peer.open(to(UPLOAD))
        for _ in range(20):
            attacker.peer.message(stream_id, b"x")
            await attacker.send(b"", passes=20)
            await seconds(mock_clock, 1000)
        attacker.peer.data(stream_id, b"", end=True)
        await attacker.send(b"", passes=30)
        assert attacker.peer.body(stream_id) == message(b"20")
        assert set(ring.limits) <= {"idle"}  # the neighbour's connection


async def test_idle(mock_clock: MockClock) -> None:
    """An hour without a call ends a connection in peace; keepalive PINGs of the client do not prolong it for ever."""
    async with arena(neighbour=False) as ring:
        attacker = await ring.attacker()
        await seconds(mock_clock, 3599)
        assert not attacker.closed
        await seconds(mock_clock, 2)
        await attacker.send(b"", passes=20)
        assert ring.limits.count("idle") == 2  # the neighbour's connection was idle too, and it dials again
        assert attacker.closed and attacker.goaway() == (NO_ERROR, b"idle")


async def test_a_call_keeps_its_connection_from_being_idle(mock_clock: MockClock) -> None:
    async with arena((CHAT, chat), neighbour=False) as ring:
        attacker = await ring.attacker()
        stream_id = attacker.peer.open(to(CHAT))
        await attacker.send(b"", passes=20)
        await seconds(mock_clock, 7000)
        attacker.peer.message(stream_id, b"still here", end=True)
        await attacker.send(b"", passes=30)
        assert attacker.peer.body(stream_id) == message(b"still here")


async def test_too_many_connections(mock_clock: MockClock) -> None:
    """One too many is closed unheard; those that are there notice nothing, and a place that is left can be taken."""
    async with arena(settings=ServerSettings(max_connections=3)) as ring:
        attackers = [await ring.attacker() for _ in range(2)]
        late = await ring.attacker()
        assert ring.limits == ["connections"]
        assert late.closed and not late.peer.seen
        assert not any(attacker.closed for attacker in attackers)
        attackers[0].hang_up()
        await passes(50)
        assert not (await ring.attacker()).closed


async def test_connections_that_have_not_said_hello_count(mock_clock: MockClock) -> None:
    async with arena(settings=ServerSettings(max_connections=3)) as ring:
        for _ in range(5):
            wire = ring.world.connect()
            wire.peer.output.clear()
        await passes(50)
        assert ring.limits == ["connections"] * 3
        await seconds(mock_clock, 4)
        await passes(50)


async def test_max_age_is_a_drain_of_one_connection(mock_clock: MockClock) -> None:
    """Two GOAWAYs, the call in flight goes on to its end, then the connection closes."""
    settings = ServerSettings(max_connection_age=100)
    async with arena((CHAT, chat), settings=settings, neighbour=False) as ring:
        attacker = await ring.attacker()
        stream_id = attacker.peer.open(to(CHAT))
        await attacker.send(b"", passes=20)
        await seconds(mock_clock, 89)
        assert "max_age" not in ring.limits
        await seconds(mock_clock, 22)
        await attacker.send(b"", passes=50)
        await attacker.send(b"", passes=50)  # the PING's ACK
        assert "max_age" in ring.limits
        assert attacker.peer.trace(0) == ["GOAWAY(2147483647,0)", "PING", "GOAWAY(1,0)"]
        attacker.peer.message(stream_id, b"last words", end=True)
        await attacker.send(b"", passes=50)
        assert attacker.peer.body(stream_id) == message(b"last words")
        assert attacker.closed


# -- keepalive, both ways -------------------------------------------------------------------------------


async def test_we_ask_a_silent_peer_whether_it_is_alive(mock_clock: MockClock) -> None:
    timeouts = ConnectionTimeouts(keepalive=60, keepalive_answer=20)
    async with arena((CHAT, chat), settings=ServerSettings(timeouts=timeouts), neighbour=False) as ring:
        attacker = await ring.attacker()
        attacker.peer.open(to(CHAT))
        await attacker.send(b"", passes=20)
        for _ in range(3):
            await seconds(mock_clock, 61)
            await attacker.send(b"", passes=20)
            await attacker.send(b"", passes=20)  # the answer
        assert attacker.peer.trace(0) == ["PING"] * 3
        assert "dead_peer" not in ring.limits and not attacker.closed
        attacker.peer.answers_pings = False
        await seconds(mock_clock, 61)
        await attacker.send(b"", passes=20)
        await seconds(mock_clock, 21)
        await attacker.send(b"", passes=20)
        assert ring.limits[-1] == "dead_peer"
        assert attacker.closed


async def test_any_byte_is_an_answer(mock_clock: MockClock) -> None:
    timeouts = ConnectionTimeouts(keepalive=60, keepalive_answer=20)
    async with arena((CHAT, chat), settings=ServerSettings(timeouts=timeouts), neighbour=False) as ring:
        attacker = await ring.attacker()
        attacker.peer.answers_pings = False
        attacker.peer.open(to(CHAT))
        await attacker.send(b"", passes=20)
        await seconds(mock_clock, 61)
        await attacker.send(frame(0, 0, 1, message(b"busy")), passes=20)
        await seconds(mock_clock, 50)
        assert not attacker.closed


PING = frame(6, 0, 0, b"12345678")


async def test_too_many_pings(mock_clock: MockClock) -> None:
    """The first is free, then one in five seconds: three that come sooner are one too many."""
    async with arena(neighbour=False) as ring:
        attacker = await ring.attacker()
        for _ in range(5):
            await attacker.send(PING, passes=10)
            await seconds(mock_clock, 5)
        assert attacker.peer.trace(0) == ["PONG"] * 5
        await attacker.send(PING + PING + PING, passes=20)
        assert not attacker.closed
        await attacker.send(PING, passes=20)
        assert ring.limits == ["pings"]
        assert attacker.closed and attacker.goaway() == (11, b"too_many_pings")


async def test_strikes_are_forgotten_when_we_send_headers_or_data(mock_clock: MockClock) -> None:
    """A client that measures the way to us by PINGs (gRPC's BDP probes) does so while data flows."""
    async with arena((CHAT, chat), neighbour=False) as ring:
        attacker = await ring.attacker()
        stream_id = attacker.peer.open(to(CHAT))
        for number in range(20):
            attacker.peer.message(stream_id, b"data")
            await attacker.send(b"", passes=20)
            await attacker.send(PING + PING, passes=20)
            assert attacker.peer.trace(0) == ["PONG"] * (2 * number + 2)
        assert not ring.limits
        await attacker.send(PING * 3, passes=20)
        assert ring.limits == ["pings"]


async def test_a_keepalive_every_ten_seconds_is_fine_for_ever(mock_clock: MockClock) -> None:
    """What grpc-go allows its clients, with the network's jitter."""
    async with serving((CHAT, blocked(trio.Event()))) as world:
        wire = world.connect()
        wire.peer.open(to(CHAT))
        for jitter in (0.0, -3.0, 2.0) * 30:
            wire.peer.output += PING
            await wire.exchange()
            mock_clock.jump(10 + jitter)
            await wait_all_tasks_blocked()
        assert not wire.closed
