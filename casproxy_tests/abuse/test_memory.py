"""Frames that want to be kept: what a connection may hold outside the memory budget is bounded and small."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import MockClock

from casproxy.rpc.api import ServerCall
from casproxy.rpc.server import ServerSettings
from casproxy.wire.inbound import LARGEST_WHOLE
from casproxy.wire.protocol import WireSettings
from casproxy_tests.abuse.arena import arena
from casproxy_tests.rpc.world import CHAT, UPLOAD, blocked, count, serving, to
from casproxy_tests.wire.frames import block, frame
from casproxy_tests.wire.peer import message

FRAME_SIZE_ERROR, FLOW_CONTROL_ERROR = 6, 3


class Growth:
    """``peak``: bytes of memory at the worst moment, over what there was before."""

    peak = 0


@contextmanager
def growth() -> Iterator[Growth]:
    measured = Growth()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    try:
        yield measured
        measured.peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def head(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """A frame's header without the frame."""
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream_id)


REFUSED_FROM_THE_HEADER = {
    "DATA of 16 MB": head(2**24 - 1, 0, 0, 1),
    "HEADERS of 16 MB": head(2**24 - 1, 1, 4, 1),
    "an unknown frame of 16 MB": head(2**24 - 1, 0x55, 0, 0),
    "a frame one byte over MAX_FRAME_SIZE": head(1024 * 1024 + 1, 0, 0, 1),
    "SETTINGS of 600 KB": head(600_000, 4, 0, 0),
    "PING of 17 KB": head(17_000, 6, 0, 0),
    "GOAWAY of 1 MB": head(1_000_000, 7, 0, 0),
    "CONTINUATION from nowhere": head(1_000_000, 9, 0, 1),
    "padded DATA of 17 KB": head(17_000, 0, 8, 1),
    "an unknown frame inside a header block": frame(1, 0, 1, block()) + head(1_000_000, 0x55, 0, 1),
}


@pytest.mark.parametrize("attack", REFUSED_FROM_THE_HEADER)
async def test_refused_from_the_nine_bytes(attack: str, mock_clock: MockClock) -> None:
    async with arena((UPLOAD, blocked(trio.Event()))) as ring:
        attacker = await ring.attacker()
        attacker.peer.open(to(UPLOAD))
        await attacker.send(b"")
        await attacker.send(REFUSED_FROM_THE_HEADER[attack])
        assert attacker.closed
        assert attacker.goaway()[0] == FRAME_SIZE_ERROR
        assert ring.limits == ["frame_size"]


async def test_data_beyond_the_window_is_refused_from_the_header_too(mock_clock: MockClock) -> None:
    async with arena((UPLOAD, blocked(trio.Event())), neighbour=False) as ring:
        attacker = await ring.attacker()
        attacker.peer.open(to(UPLOAD))
        await attacker.send(b"")
        (window,) = {live._protocol._credit.available for live in ring.world.server._live if live._calls}
        await attacker.send(head(window + 1, 0, 0, 1))
        assert attacker.closed
        assert attacker.goaway()[0] == FLOW_CONTROL_ERROR


async def test_large_unknown_frames_are_skipped_and_not_kept(mock_clock: MockClock) -> None:
    """RFC 9113, 4.1 has us ignore them; a megabyte each, on ten thousand connections, must not be gathered first."""
    async with arena((UPLOAD, count), neighbour=False) as ring:
        attacker = await ring.attacker()
        with growth() as grown:
            attacker.peer.output += head(1_000_000, 0x55, 0, 0)
            for _ in range(99):
                await attacker.send(bytes(10_000), passes=5)
        await attacker.send(bytes(10_000), passes=5)
        assert grown.peak < 200_000
        stream_id = attacker.peer.open(to(UPLOAD))
        attacker.peer.message(stream_id, b"four", end=True)
        await attacker.send(b"")
        assert attacker.peer.body(stream_id) == message(b"4")


async def test_a_frame_being_gathered_is_small(mock_clock: MockClock) -> None:
    async with arena(neighbour=False) as ring:
        attacker = await ring.attacker()
        with growth() as grown:
            await attacker.send(head(LARGEST_WHOLE, 4, 0, 0) + bytes(LARGEST_WHOLE - 10))
        assert grown.peak < 200_000
        assert not ring.limits


async def test_settings_nobody_knows_are_not_stored(mock_clock: MockClock) -> None:
    """h2 keeps a deque for each: 40,000 of them would be 30 MB a connection."""
    async with arena(neighbour=False) as ring:
        attacker = await ring.attacker()
        with growth() as grown:
            for first in range(100, 40_100, 2000):
                settings = b"".join(struct.pack(">HI", code, 1) for code in range(first, first + 2000))
                await attacker.send(frame(4, 0, 0, settings), passes=10)
        assert not ring.limits
        assert grown.peak < 1_000_000


async def test_a_body_with_a_length_may_come_in_frames_of_any_size(mock_clock: MockClock) -> None:
    """The rule above is for frames that have to be gathered; DATA never has to be."""
    async with arena((UPLOAD, count)) as ring:
        attacker = await ring.attacker()
        body = message(bytes(40_000))
        stream_id = attacker.peer.open(to(UPLOAD, (b"content-length", b"%d" % len(body))))
        attacker.peer.data(stream_id, body, end=True, step=50_000)
        await attacker.send(b"")
        assert attacker.peer.body(stream_id) == message(b"40000")


async def test_long_closed_streams_are_forgotten(mock_clock: MockClock) -> None:
    settings = ServerSettings(wire=WireSettings(max_concurrent_streams=50))
    async with arena(settings=settings, neighbour=False) as ring:
        attacker = await ring.attacker()
        before = attacker.peer.open(to(UPLOAD), end=True)
        await attacker.send(b"", passes=20)
        protocols = [live._protocol for live in ring.world.server._live]
        for _ in range(300):
            for _ in range(30):
                attacker.peer.open(to(UPLOAD), end=True)
            await attacker.send(b"", passes=20)
        assert attacker.peer.status(before) == 12
        assert max(len(protocol._h2._closed_streams) for protocol in protocols) == 8192
        assert max(len(protocol._h2.streams) for protocol in protocols) == 0


async def test_open_streams_cannot_make_us_hold_more_than_the_budget(mock_clock: MockClock) -> None:
    """Whatever is filled, the books say less than the budget, and there is room left for the next connection."""
    budget = 16 * 1024 * 1024
    settings = ServerSettings(memory_budget=budget)
    async with arena((UPLOAD, blocked(trio.Event())), settings=settings) as ring:
        for _ in range(6):
            attacker = await ring.attacker()
            for _ in range(100):
                stream_id = attacker.peer.open(to(UPLOAD))
                await attacker.send(b"", passes=5)
                while (size := min(16_384, attacker.peer.may_send(stream_id))) > 0:
                    attacker.peer.data(stream_id, bytes(size))
                    await attacker.send(b"", passes=5)
            assert ring.world.server.budget.exposed <= budget
        held = [live._protocol._credit.held for live in ring.world.server._live]
        assert budget // 2 < sum(held) <= budget + len(held) * 65_535
        assert sorted(held)[-1] <= budget // 5 + 65_535
        assert ring.world.server.budget.free >= budget // 5


async def test_calls_beyond_the_budget_are_refused_and_others_go_on(mock_clock: MockClock) -> None:
    """REFUSED_STREAM tells a client that nothing happened, so that it may try again or elsewhere."""
    async with arena((UPLOAD, count)) as ring:
        attacker = await ring.attacker()
        used = attacker.peer.open(to(UPLOAD))
        for _ in range(10):  # its connection's window grows with use, so each call it opens is one more window to fill
            attacker.peer.message(used, bytes(40_000))
            await attacker.send(b"", passes=30)
        attacker.peer.data(used, b"", end=True)
        first = attacker.peer.open(to(UPLOAD))
        attacker.peer.message(first, b"first")
        await attacker.send(b"", passes=30)
        budget = ring.world.server.budget
        taken = budget.free
        budget.exposed += taken  # somebody else takes all the room
        calls = [attacker.peer.open(to(UPLOAD)) for _ in range(20)]
        await attacker.send(b"")
        assert [attacker.peer.trace(stream_id) for stream_id in calls] == [["RST(7)"]] * 20
        assert ring.limits == ["memory_budget"] * 20
        attacker.peer.data(first, b"", end=True)
        await attacker.send(b"")
        assert attacker.peer.body(first) == message(b"5")
        await ring.neighbour_is_well()
        budget.exposed -= taken


async def test_a_peer_that_does_not_read_is_sent_little_when_the_budget_is_used_up() -> None:
    sent: list[int] = []

    async def big(call: ServerCall) -> None:
        call.charge_to("tenant")
        while True:
            await call.send_message(bytes(10_000))
            sent.append(10_000)

    async with serving((CHAT, big), settings=ServerSettings(memory_budget=0)) as world:
        wire = world.connect()
        await wire.exchange()
        released = wire.hold_writes()
        wire.peer.credit(0, 100_000_000)
        wire.peer.open(to(CHAT))
        wire.peer.credit(1, 10_000_000)
        await wire.exchange()
        assert 10_000 < sum(sent) <= 2 * (64 * 1024 + 20_000)  # one batch in the writer's hands, one queued
        assert world.server.budget.exposed == world.server.budget.account("tenant").exposed > 0
        released.set()
        wire.hang_up()
        await wire.exchange()
        assert world.server.budget.exposed == 0
