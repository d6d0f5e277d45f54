"""Draining: wire.md Behaviour 9. Two GOAWAYs with a PING between, calls that end, calls that do not."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from casproxy.rpc.api import ServerCall
from casproxy.rpc.server import Server, ServerSettings
from casproxy_tests.rpc.world import CHAT, UNARY, UPLOAD, ServerWorld, Wire, blocked, chat, echo, serving, to
from casproxy_tests.wire.peer import RawPeer, message

EVERY_STREAM = 2**31 - 1


async def test_b09_a_call_that_raced_the_first_goaway_is_served() -> None:
    async with serving((CHAT, chat)) as world:
        wire = world.connect()
        peer = wire.peer
        peer.answers_pings = False
        running = peer.open(to(CHAT))
        await wire.exchange()
        world.server.start_draining()
        await wire.exchange()
        assert peer.trace(0)[-2:] == [f"GOAWAY({EVERY_STREAM},0)", "PING"]
        raced = peer.open(to(CHAT))
        peer.message(raced, b"in time", end=True)
        await wire.exchange()
        assert peer.status(raced) == 0
        assert peer.body(raced) == message(b"in time")

        ping = next(seen for seen in peer.seen if seen.text == "PING")
        peer.output += b"\0\0\x08\6\1\0\0\0\0" + ping.data
        await wire.exchange()
        assert peer.trace(0)[-1] == f"GOAWAY({raced},0)"
        late = peer.open(to(CHAT))
        await wire.exchange()
        assert peer.trace(late) == ["RST(7)"]
        assert not wire.closed
        peer.message(running, b"still here", end=True)
        await wire.exchange()
        assert peer.status(running) == 0
        assert wire.closed
        assert world.returned.is_set()


async def test_b09_a_client_that_does_not_answer_the_ping_is_waited_for_five_seconds(mock_clock: MockClock) -> None:
    async with serving((CHAT, chat)) as world:
        wire = world.connect()
        wire.peer.answers_pings = False
        running = wire.peer.open(to(CHAT))
        await wire.exchange()
        world.server.start_draining()
        await wire.exchange()
        mock_clock.jump(4.9)
        await wire.exchange()
        assert wire.peer.trace(0).count(f"GOAWAY({running},0)") == 0
        mock_clock.jump(0.2)
        await wire.exchange()
        assert wire.peer.trace(0)[-1] == f"GOAWAY({running},0)"
        wire.peer.message(running, b"x", end=True)
        assert (await wire.exchange()).status(running) == 0
        assert world.returned.is_set()


async def test_b09_idle_connections_are_closed_at_once() -> None:
    async with serving((UNARY, echo)) as world:
        wires = [world.connect() for _ in range(3)]
        for wire in wires:
            wire.peer.open(to(UNARY))
            wire.peer.message(1, b"x", end=True)
            await wire.exchange()
        world.server.start_draining()
        for wire in wires:
            peer = await wire.exchange()
            assert [text for text in peer.trace(0) if text.startswith(("GOAWAY", "PING"))] == [
                f"GOAWAY({EVERY_STREAM},0)",
                "PING",
                "GOAWAY(1,0)",
            ]
            assert wire.closed
        await trio.testing.wait_all_tasks_blocked()
        assert world.returned.is_set()


async def test_b09_a_server_without_connections_returns_at_once() -> None:
    async with serving((UNARY, echo)) as world:
        world.server.start_draining()
        await trio.testing.wait_all_tasks_blocked()
        assert world.returned.is_set()


async def test_b09_after_the_grace_calls_end_with_unavailable(mock_clock: MockClock) -> None:
    entered, left = trio.Event(), trio.Event()
    async with serving((UPLOAD, blocked(entered, left.set)), settings=ServerSettings(drain_grace=30)) as world:
        wire = world.connect()
        wire.peer.open(to(UPLOAD))
        await wire.exchange()
        world.server.start_draining()
        await wire.exchange()
        mock_clock.jump(29)
        await wire.exchange()
        assert not left.is_set()
        mock_clock.jump(2)
        peer = await wire.exchange()
        assert left.is_set()
        assert peer.trace(1) == ["HEADERS+ES", "RST(0)"]
        assert peer.status(1) == 14
        assert wire.closed
        assert world.returned.is_set()


async def test_b09_a_handler_that_will_not_leave_is_not_waited_for(mock_clock: MockClock) -> None:
    async def stubborn(call: ServerCall) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(5, shield=True):
                await trio.sleep_forever()

    async with serving((CHAT, stubborn), settings=ServerSettings(drain_grace=1)) as world:
        wire = world.connect()
        wire.peer.open(to(CHAT))
        await wire.exchange()
        world.server.start_draining()
        for _ in range(4):
            await wire.exchange()
            mock_clock.jump(1.5)
        await wire.exchange()
        assert wire.closed  # the connection is; the handler's own clean-up has its own limit
        mock_clock.jump(5)
        await trio.testing.wait_all_tasks_blocked()
        assert world.returned.is_set()


async def test_b09_a_connection_accepted_just_before_is_drained_too() -> None:
    async with serving((UNARY, echo)) as world:
        wire = world.connect()
        await trio.lowlevel.checkpoint()  # accepted, perhaps, and not yet served
        world.server.start_draining()
        await wire.exchange()
        assert wire.closed
        assert world.returned.is_set()


async def test_b09_a_connection_that_begins_during_a_drain_is_drained_too(mock_clock: MockClock) -> None:
    """As one whose TLS handshake took until then."""
    entered = trio.Event()
    async with serving((CHAT, blocked(entered)), settings=ServerSettings(drain_grace=30)) as world:
        busy, late = world.connect(), Wire(RawPeer())
        busy.peer.open(to(CHAT))
        await busy.exchange()
        world.server.start_draining()
        await busy.exchange()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.server.serve_stream, late.stream)
            await late.exchange()
            assert f"GOAWAY({EVERY_STREAM},0)" in late.peer.trace(0)
            assert late.closed
        mock_clock.jump(31)
        await busy.exchange()
        assert world.returned.is_set()


async def test_b09_starting_twice_says_goodbye_once() -> None:
    async with serving((CHAT, chat)) as world:
        wire = world.connect()
        wire.peer.open(to(CHAT))
        await wire.exchange()
        world.server.start_draining()
        world.server.start_draining()
        peer = await wire.exchange()
        assert sum(text.startswith("GOAWAY") for text in peer.trace(0)) == 2


async def test_b09_a_slow_reader_gets_the_whole_answer_of_a_drained_call(mock_clock: MockClock) -> None:
    """The last bytes of a call that ended in time are not cut off because its client reads slowly."""

    answer = trio.Event()

    async def handler(call: ServerCall) -> None:
        await answer.wait()
        await call.send_message(bytes(200_000))

    async with serving((CHAT, handler), settings=ServerSettings(drain_grace=30)) as world:
        wire = world.connect()
        wire.peer.open(to(CHAT), end=True)
        wire.peer.credit(0, 1_000_000)
        wire.peer.credit(1, 1_000_000)
        await wire.exchange()
        world.server.start_draining()
        await wire.exchange()
        released = wire.hold_writes()
        answer.set()
        await wire.exchange()
        mock_clock.jump(5)
        await wire.exchange()
        released.set()
        peer = await wire.exchange()
        assert peer.body(1) == message(bytes(200_000))
        assert peer.status(1) == 0
        assert wire.closed


async def test_a_server_that_was_told_to_drain_before_it_serves_returns() -> None:
    world = ServerWorld(Server([]))
    world.server.start_draining()
    with trio.fail_after(5):
        await world.run()


async def test_cancelling_serve_closes_every_connection() -> None:
    entered, left = trio.Event(), trio.Event()
    async with serving((CHAT, blocked(entered, left.set))) as world:
        wire = world.connect()
        wire.peer.open(to(CHAT))
        await wire.exchange()
    assert left.is_set()
    await wire.exchange()
    assert wire.closed
