"""Streams that end early, stall or break, and their neighbours: wire.md Behaviour 4, 8, 11, 12 and 13."""

from __future__ import annotations

import pytest
import trio
from hyperframe.frame import DataFrame
from trio.testing import MockClock

from casproxy.rpc.api import ServerCall
from casproxy.rpc.errors import RpcError, StreamGone
from casproxy.rpc.patience import ConnectionTimeouts
from casproxy.rpc.server import ServerSettings
from casproxy.wire.protocol import WireSettings
from casproxy.wire.status import StatusCode
from casproxy_tests.rpc.world import CHAT, DOWNLOAD, UNARY, UPLOAD, Wire, blocked, chat, count, echo, serving, to
from casproxy_tests.wire.peer import RawPeer, message, request_fields

KIB = 1024


async def still_works(wire: Wire) -> None:
    """A unary call on the same connection is answered."""
    stream_id = wire.peer.open(to(UNARY))
    wire.peer.message(stream_id, b"alive", end=True)
    peer = await wire.exchange()
    assert peer.status(stream_id) == 0
    assert peer.body(stream_id) == message(b"alive")


def everything_credited(peer: RawPeer) -> bool:
    """The connection's window is what it was at first, but for what may wait for the next update (a quarter)."""
    return peer.window * 4 > 65_535 * 3


# -- 4: RST_STREAM from the peer ---------------------------------------------------------------------


async def test_b04_a_reset_cancels_the_handler_and_nothing_more_is_sent() -> None:
    entered, left = trio.Event(), trio.Event()
    async with serving((UPLOAD, blocked(entered, left.set)), (UNARY, echo)) as world:
        wire = world.connect()
        wire.peer.open(to(UPLOAD))
        await wire.exchange()
        assert entered.is_set()
        assert not left.is_set()
        wire.peer.reset(1)
        peer = await wire.exchange()
        assert left.is_set()
        assert peer.trace(1) == []
        await still_works(wire)


async def test_b04_a_reset_while_answering_ends_the_answer() -> None:
    async def endless(call: ServerCall) -> None:
        while True:
            await call.send_message(bytes(1000))

    async with serving((CHAT, endless), (UNARY, echo)) as world:
        wire = world.connect()
        wire.peer.open(to(CHAT))
        await wire.exchange()
        assert len(wire.peer.body(1)) == 65_535  # all the credit there was
        wire.peer.reset(1)
        wire.peer.credit(0, 100_000)
        before = len(wire.peer.trace(1))
        peer = await wire.exchange()
        assert len(peer.trace(1)) == before
        await still_works(wire)


async def test_b04_a_handler_that_reads_is_told_and_cancelled() -> None:
    seen: list[str] = []

    async def handler(call: ServerCall) -> None:
        try:
            await call.receive_message()
        except StreamGone:
            seen.append("gone")
            raise
        except trio.Cancelled:
            seen.append("cancelled")
            raise

    async with serving((UPLOAD, handler)) as world:
        wire = world.connect()
        wire.peer.open(to(UPLOAD))
        await wire.exchange()
        wire.peer.reset(1)
        peer = await wire.exchange()
    assert seen in (["gone"], ["cancelled"])
    assert peer.trace(1) == []


@pytest.mark.parametrize("end", ["reset", "refuse", "answer", "http", "unknown"])
async def test_b04_unread_bytes_are_credited_also_if_no_handler_ran(end: str) -> None:
    async def answers(call: ServerCall) -> None:
        await call.send_message(b"no need")

    entered = trio.Event()
    fields = {
        "http": request_fields(path=CHAT.path.encode(), content_type=b"text/plain"),
        "unknown": request_fields(path=b"/no/where"),
        "refuse": request_fields(path=CHAT.path.encode(), te=b"gzip"),
    }.get(end, to(UPLOAD))
    async with serving((UPLOAD, answers if end == "answer" else blocked(entered)), (UNARY, echo)) as world:
        wire = world.connect()
        peer = wire.peer
        for _ in range(20):  # 1.2 MiB in all: twenty times what the connection takes without credit
            stream_id = peer.open(fields)
            if end == "reset":
                await wire.exchange()  # it runs, and reads nothing
                peer.data(stream_id, bytes(min(60 * KIB, peer.may_send(stream_id))))
                await wire.exchange()
                peer.reset(stream_id)
            else:
                peer.data(stream_id, bytes(min(60 * KIB, peer.may_send(stream_id))))
            await wire.exchange()
        assert everything_credited(peer)
        await still_works(wire)


async def test_b04_bytes_on_their_way_to_a_stream_we_reset_are_credited() -> None:
    async def refuse(call: ServerCall) -> None:
        raise RpcError(StatusCode.UNAUTHENTICATED, "no")

    async with serving((UPLOAD, refuse), (UNARY, echo)) as world:
        wire = world.connect()
        peer = wire.peer
        peer.open(to(UPLOAD))
        await wire.exchange()
        assert peer.trace(1) == ["HEADERS+ES", "RST(0)"]
        for _ in range(100):  # the client sent all this before it saw the answer
            peer.data(1, b"x" * min(16 * KIB, peer.window, peer.windows[1] + 16 * KIB) if peer.windows[1] > 0 else b"")
            peer.windows[1] = 64 * KIB
            await wire.exchange()
        assert everything_credited(peer)
        assert peer.trace(1) == ["HEADERS+ES", "RST(0)"]  # and got no RST_STREAM for each frame of it
        await still_works(wire)


async def test_b04_padding_is_credited() -> None:
    async with serving((UPLOAD, count)) as world:
        wire = world.connect()
        peer = wire.peer
        peer.open(to(UPLOAD))
        for _ in range(600):
            peer.send(DataFrame(1, message(b"x"), pad_length=250, flags=["PADDED"]))
            peer.window -= 6 + 251
            peer.windows[1] -= 6 + 251
            assert peer.may_send(1) >= 0
            await wire.exchange()
        peer.data(1, b"", end=True)
        await wire.exchange()
    assert peer.body(1) == message(b"600")


async def test_b04_a_lost_connection_cancels_every_handler() -> None:
    entered = trio.Event()
    left: list[None] = []
    async with serving((UPLOAD, blocked(entered, lambda: left.append(None)))) as world:
        wire = world.connect()
        for _ in range(5):
            stream_id = wire.peer.open(to(UPLOAD))
            wire.peer.data(stream_id, bytes(1000))
        await wire.exchange()
        wire.hang_up()
        await wire.exchange()
        assert len(left) == 5
        assert wire.closed
        assert world.server.budget.exposed == 0


# -- 8: an early answer ------------------------------------------------------------------------------


async def test_b08_an_early_answer_is_response_trailers_reset_in_one_write() -> None:
    async def stored(call: ServerCall) -> None:
        await call.send_message(b"42")

    async with serving((UPLOAD, stored), (UNARY, echo)) as world:
        wire = world.connect()
        await wire.exchange()
        writes = wire.watch_writes()
        wire.peer.open(to(UPLOAD))
        wire.peer.message(1, bytes(10_000))
        peer = await wire.exchange()
        assert peer.trace(1) == ["HEADERS", "DATA(7)", "HEADERS+ES", "RST(0)"]
        assert peer.status(1) == 0
        assert len([data for data in writes if b"\0\0\0\0\x0242" in data]) == 1
        answer = next(data for data in writes if b"\0\0\0\0\x0242" in data)
        assert answer.endswith(b"\0\0\4\3\0\0\0\0\1\0\0\0\0")  # RST_STREAM(NO_ERROR), in the same write
        await still_works(wire)


async def test_b08_no_reset_when_the_client_has_ended_its_side() -> None:
    async with serving((UPLOAD, count)) as world:
        wire = world.connect()
        wire.peer.open(to(UPLOAD))
        wire.peer.message(1, b"abc", end=True)
        peer = await wire.exchange()
    assert peer.trace(1) == ["HEADERS", "DATA(6)", "HEADERS+ES"]


async def test_b08_an_answer_in_mid_message_of_the_client() -> None:
    async def first_part(call: ServerCall) -> None:
        await call.receive_parts()
        raise RpcError(StatusCode.RESOURCE_EXHAUSTED, "max size of upload exceeded: want=9, max=8")

    async with serving((UPLOAD, first_part)) as world:
        wire = world.connect()
        wire.peer.open(to(UPLOAD))
        wire.peer.data(1, message(bytes(10_000))[:5000])
        peer = await wire.exchange()
    assert peer.trace(1) == ["HEADERS+ES", "RST(0)"]
    assert peer.status(1) == 8


async def test_b08_a_response_broken_off_in_mid_message_is_reset_not_ended(mock_clock: MockClock) -> None:
    async def big(call: ServerCall) -> None:
        await call.send_message(bytes(200_000))

    async with serving((DOWNLOAD, big), (UNARY, echo)) as world:
        wire = world.connect()
        wire.peer.open(to(DOWNLOAD, timeout=b"1S"))
        wire.peer.message(1, b"", end=True)
        await wire.exchange()
        assert len(wire.peer.body(1)) == 65_535
        mock_clock.jump(2)
        peer = await wire.exchange()
        assert peer.trace(1)[-1].startswith("DATA"), "half a second is left for the rest of the message"
        mock_clock.jump(0.5)
        peer = await wire.exchange()
        assert peer.trace(1)[-1] == "RST(8)"
        assert peer.status(1) is None
        peer.credit(0, 100_000)
        await still_works(wire)


async def _fail_beside_a_big_answer(call: ServerCall) -> None:
    """What a download does when its store breaks: one stage is in mid-message, and another fails."""

    async def fail() -> None:
        await trio.sleep(1)
        raise RpcError(StatusCode.UNAVAILABLE, "the store is gone")

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await call.send_message(bytes(200_000))
    except* RpcError as group:
        failure = group.exceptions[0]
    raise failure


async def test_b08_a_cancelled_call_ends_its_message_and_then_says_why(mock_clock: MockClock) -> None:
    async with serving((DOWNLOAD, _fail_beside_a_big_answer)) as world:
        wire = world.connect()
        wire.peer.open(to(DOWNLOAD))
        wire.peer.message(1, b"", end=True)
        await wire.exchange()
        mock_clock.jump(1)
        peer = await wire.exchange()
        assert peer.status(1) is None
        peer.credit(0, 200_000)
        peer.credit(1, 200_000)
        await wire.exchange()
        assert peer.body(1) == message(bytes(200_000))
        assert peer.status(1) == 14


async def test_b08_a_peer_that_takes_no_more_of_the_message_is_reset(mock_clock: MockClock) -> None:
    async with serving((DOWNLOAD, _fail_beside_a_big_answer)) as world:
        wire = world.connect()
        wire.peer.open(to(DOWNLOAD))
        wire.peer.message(1, b"", end=True)
        await wire.exchange()
        for seconds in (1, 0.5):
            mock_clock.jump(seconds)
            peer = await wire.exchange()
        assert peer.trace(1)[-1] == "RST(2)"


async def test_b08_a_peer_that_resets_in_the_grace_ends_it(mock_clock: MockClock) -> None:
    left = trio.Event()

    async def big(call: ServerCall) -> None:
        try:
            with trio.move_on_after(1):
                await call.send_message(bytes(200_000))
        finally:
            left.set()

    async with serving((DOWNLOAD, big), (UNARY, echo)) as world:
        wire = world.connect()
        wire.peer.open(to(DOWNLOAD))
        wire.peer.message(1, b"", end=True)
        await wire.exchange()
        mock_clock.jump(1)
        await wire.exchange()
        assert not left.is_set()
        wire.peer.reset(1)
        peer = await wire.exchange()
        assert left.is_set()
        assert peer.trace(1)[-1].startswith("DATA")
        peer.credit(0, 100_000)
        await still_works(wire)


# -- 11: refused and malformed streams ---------------------------------------------------------------


async def test_b11_a_stream_over_the_limit_is_refused_and_others_live_on() -> None:
    settings = ServerSettings(wire=WireSettings(max_concurrent_streams=3))
    async with serving((CHAT, chat), settings=settings) as world:
        wire = world.connect()
        ids = [wire.peer.open(to(CHAT)) for _ in range(5)]
        await wire.exchange()
        assert [wire.peer.trace(stream_id) for stream_id in ids] == [[], [], [], ["RST(7)"], ["RST(7)"]]
        for stream_id in ids[:3]:
            wire.peer.message(stream_id, b"alive", end=True)
        await wire.exchange()
        assert [wire.peer.status(stream_id) for stream_id in ids[:3]] == [0, 0, 0]
        after = wire.peer.open(to(CHAT), end=True)
        assert (await wire.exchange()).status(after) == 0


async def test_b11_a_slot_is_held_until_the_handler_ends() -> None:
    leave = trio.Event()

    async def slow_to_leave(call: ServerCall) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(60, shield=True):
                await leave.wait()

    settings = ServerSettings(wire=WireSettings(max_concurrent_streams=1))
    async with serving((CHAT, slow_to_leave), settings=settings) as world:
        wire = world.connect()
        first = wire.peer.open(to(CHAT))
        await wire.exchange()
        wire.peer.reset(first)
        second = wire.peer.open(to(CHAT))
        assert (await wire.exchange()).trace(second) == ["RST(7)"]
        leave.set()
        await wire.exchange()
        third = wire.peer.open(to(CHAT))
        assert (await wire.exchange()).trace(third) == []


MALFORMED = {
    "upper-case name": request_fields((b"X-Upper", b"1")),
    "connection": request_fields((b"connection", b"close")),
    "transfer-encoding": request_fields((b"transfer-encoding", b"chunked")),
    "te": request_fields((b"te", b"trailers, deflate")),
    "unknown pseudo-header": [(b":nonsense", b"1"), *request_fields()],
    "response pseudo-header": [(b":status", b"200"), *request_fields()],
    "pseudo-header at the end": [*request_fields(), (b":authority", b"x")],
    "pseudo-header twice": [(b":method", b"POST"), *request_fields()],
    "no :path": request_fields(path=None),
    "empty :path": request_fields(path=b""),
    "no :method": request_fields(method=None),
    "no :scheme": request_fields(scheme=None),
    "NUL in a value": request_fields((b"x", b"a\0b")),
    "CR in a value": request_fields((b"x", b"a\rb")),
    "LF in a value": request_fields((b"x", b"a\nb")),
    "blank at the end": request_fields((b"x", b"a ")),
    "blank in a name": request_fields((b"x y", b"a")),
    "empty name": request_fields((b"", b"a")),
    "content-length is no number": request_fields((b"content-length", b"five")),
    "two content-lengths": request_fields((b"content-length", b"5"), (b"content-length", b"6")),
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_b11_malformed_headers_are_a_stream_error_and_others_live_on(what: str) -> None:
    async with serving((CHAT, chat), (UNARY, echo)) as world:
        wire = world.connect()
        neighbour = wire.peer.open(to(CHAT))
        bad = wire.peer.open(MALFORMED[what])
        await wire.exchange()
        assert wire.peer.trace(bad) == ["RST(1)"]
        wire.peer.message(neighbour, b"alive", end=True)
        assert (await wire.exchange()).status(neighbour) == 0
        await still_works(wire)


async def test_b11_a_body_of_another_length_than_announced_is_a_stream_error() -> None:
    async with serving((UPLOAD, count), (UNARY, echo)) as world:
        wire = world.connect()
        for announced in (b"5", b"7"):
            stream_id = wire.peer.open(to(UPLOAD, (b"content-length", announced)))
            wire.peer.message(stream_id, b"x", end=True)  # six bytes
            await wire.exchange()
            assert wire.peer.trace(stream_id) == ["RST(1)"]
        right = wire.peer.open(to(UPLOAD, (b"content-length", b"6")))
        wire.peer.message(right, b"x", end=True)
        await wire.exchange()
        assert wire.peer.status(right) == 0
        await still_works(wire)


async def test_b11_malformed_trailers_are_a_stream_error() -> None:
    entered, left = trio.Event(), trio.Event()
    async with serving((UPLOAD, blocked(entered, left.set)), (UNARY, echo)) as world:
        wire = world.connect()
        wire.peer.open(to(UPLOAD))
        wire.peer.headers(1, [(b":path", b"/")], end=True)
        await wire.exchange()
        assert wire.peer.trace(1) == ["RST(1)"]
        assert left.is_set() or not entered.is_set()
        await still_works(wire)


# -- 12: neighbours ----------------------------------------------------------------------------------


async def test_b12_a_stalled_stream_does_not_stall_its_neighbours() -> None:
    entered = trio.Event()
    async with serving((UPLOAD, blocked(entered)), (CHAT, chat), (UNARY, echo)) as world:
        wire = world.connect()
        peer = wire.peer
        stalled = peer.open(to(UPLOAD))
        await wire.exchange()
        while peer.may_send(stalled):
            peer.data(stalled, bytes(min(16 * KIB, peer.may_send(stalled))))
            await wire.exchange()
        assert peer.windows[stalled] == 0
        assert peer.window > 0
        await still_works(wire)
        sink = peer.open(to(CHAT))
        for _ in range(200):  # 3 MiB past it
            peer.message(sink, bytes(16_000))
            await wire.exchange()
            peer.credit(0, 16_005)
            peer.credit(sink, 16_005)
        assert len(peer.body(sink)) > 3_000_000


async def test_b12_a_stalled_reader_does_not_stall_its_neighbours() -> None:
    async def big(call: ServerCall) -> None:
        await call.receive_message()
        for _ in range(100):
            await call.send_message(bytes(16_000))

    async with serving((DOWNLOAD, big), (UNARY, echo)) as world:
        wire = world.connect()
        wire.peer.credit(0, 1_000_000)
        stalled = wire.peer.open(to(DOWNLOAD))
        wire.peer.message(stalled, b"", end=True)
        await wire.exchange()
        assert len(wire.peer.body(stalled)) == 65_535
        await still_works(wire)
        wire.peer.credit(stalled, 2_000_000)
        wire.peer.credit(0, 2_000_000)
        peer = await wire.exchange()
        assert peer.status(stalled) == 0
        assert len(peer.body(stalled)) == 100 * 16_005


async def test_b12_stream_credit_returns_when_bytes_are_handed_on() -> None:
    take = trio.Event()

    async def careful(call: ServerCall) -> None:
        held = 0
        while parts := await call.receive_parts():
            held += sum(len(part) for part in parts if isinstance(part, bytes | memoryview))
            if held >= 60_000 and not take.is_set():
                await take.wait()
                call.hand_on(held)
                held = 0
        await call.send_message(b"")

    async with serving((UPLOAD, careful)) as world:
        wire = world.connect()
        peer = wire.peer
        peer.open(to(UPLOAD))
        await wire.exchange()
        window = peer.windows[1]
        peer.message(1, bytes(60_000))
        await wire.exchange()
        assert peer.windows[1] == window - 60_005
        take.set()
        await wire.exchange()
        assert peer.windows[1] >= window - 10


# -- 13: a blocked sender ----------------------------------------------------------------------------


async def test_b13_a_sender_without_credit_is_cancelled_by_a_reset() -> None:
    left = trio.Event()

    async def big(call: ServerCall) -> None:
        try:
            await call.send_message(bytes(1_000_000))
        finally:
            left.set()

    async with serving((CHAT, big), (UNARY, echo)) as world:
        wire = world.connect()
        wire.peer.credit(0, 1000)
        wire.peer.open(to(CHAT))
        await wire.exchange()
        assert not left.is_set()
        wire.peer.reset(1)
        await wire.exchange()
        assert left.is_set()
        await still_works(wire)


async def test_b13_a_peer_that_does_not_read_is_given_up_after_the_write_timeout(mock_clock: MockClock) -> None:
    left = trio.Event()

    async def big(call: ServerCall) -> None:
        try:
            while True:
                await call.send_message(bytes(100_000))
        finally:
            left.set()

    settings = ServerSettings(timeouts=ConnectionTimeouts(write=60))
    async with serving((CHAT, big), settings=settings) as world:
        wire = world.connect()
        await wire.exchange()
        wire.hold_writes()
        wire.peer.credit(0, 100_000_000)
        wire.peer.open(to(CHAT))
        wire.peer.credit(1, 100_000_000)
        await wire.exchange()
        mock_clock.jump(59)
        await wire.exchange()
        assert not left.is_set()
        assert not wire.closed
        mock_clock.jump(2)
        await wire.exchange()
        assert left.is_set()
        assert wire.closed


async def test_b13_what_is_queued_for_a_peer_that_does_not_read_is_bounded() -> None:
    sent: list[int] = []

    async def big(call: ServerCall) -> None:
        while True:
            await call.send_message(bytes(100_000))
            sent.append(100_000)

    async with serving((CHAT, big)) as world:
        wire = world.connect()
        await wire.exchange()
        released = wire.hold_writes()
        wire.peer.credit(0, 100_000_000)
        for _ in range(10):
            stream_id = wire.peer.open(to(CHAT))
            wire.peer.credit(stream_id, 10_000_000)
        await wire.exchange()
        assert sum(sent) <= 2 * 1024 * KIB  # one batch in the writer's hands, one queued
        released.set()
        wire.hang_up()


async def test_b13_the_reader_goes_on_while_the_writer_is_blocked() -> None:
    entered, left = trio.Event(), trio.Event()
    async with serving((UPLOAD, blocked(entered, left.set)), (UNARY, echo)) as world:
        wire = world.connect()
        await wire.exchange()
        released = wire.hold_writes()
        wire.peer.open(to(UNARY))
        wire.peer.message(1, b"x", end=True)
        wire.peer.open(to(UPLOAD))
        await wire.exchange()
        assert entered.is_set()
        wire.peer.reset(3)
        await wire.exchange()
        assert left.is_set()
        released.set()
        assert (await wire.exchange()).status(1) == 0
