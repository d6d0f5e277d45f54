"""Many cheap frames: each kind has a bucket or a queue that ends it, and the neighbour goes on meanwhile.

Time stands still (``mock_clock``), or a slow machine would refill the buckets while the attack is worked off.
"""

from __future__ import annotations

import struct

import pytest
import trio
from trio.testing import MockClock

from casproxy.rpc.api import ServerCall
from casproxy.rpc.server import ServerSettings
from casproxy.wire.budget import Budget
from casproxy.wire.errors import ConnectionBroken
from casproxy.wire.guard import AbuseLimits
from casproxy.wire.protocol import Protocol, WireSettings
from casproxy_tests.abuse.arena import PASSES_PER_CALL, Attacker, arena, passes
from casproxy_tests.rpc.world import CHAT, UPLOAD, blocked, to
from casproxy_tests.wire.frames import frame
from casproxy_tests.wire.peer import RawPeer, message

ENHANCE_YOUR_CALM = 11
FRAMES_PER_STEP = 16
"""What the reader takes of an expensive flood before it lets others run."""
PASSES_PER_STEP = 64
"""How often it lets them, once the peer has been noisy."""
PRIORITY = frame(2, 0, 3, struct.pack(">IB", 0, 5))


def limited(**limits: float) -> ServerSettings:
    return ServerSettings(wire=WireSettings(abuse=AbuseLimits(**limits)))  # type: ignore[arg-type]


def ended_by(attacker: Attacker, text: bytes) -> bool:
    return attacker.closed and attacker.goaway() == (ENHANCE_YOUR_CALM, text)


def credit(stream_id: int, increment: int) -> bytes:
    return frame(8, 0, stream_id, struct.pack(">I", increment))


# -- rapid reset, CVE-2023-44487 ------------------------------------------------------------------------


def _opened_and_reset(peer: RawPeer, count: int) -> None:
    for _ in range(count):
        peer.reset(peer.open(to(UPLOAD)))


async def test_rapid_reset(mock_clock: MockClock) -> None:
    """A burst passes, as a busy client may well cancel many calls; one more is told to calm down."""
    entered = 0

    async def handler(call: ServerCall) -> None:
        nonlocal entered
        entered += 1
        await trio.sleep_forever()

    async with arena((UPLOAD, handler), settings=limited(reset_burst=200)) as ring:
        attacker = await ring.attacker()
        _opened_and_reset(attacker.peer, 200)
        await attacker.send(b"", passes=200 // 3 * PASSES_PER_STEP)
        assert not ring.limits and not attacker.closed
        _opened_and_reset(attacker.peer, 1)
        await attacker.send(b"")
        assert ring.limits == ["resets"]
        assert ended_by(attacker, b"too many streams reset")
        assert entered <= 200
        assert ring.calls_at_limit >= 140 // 4 * PASSES_PER_STEP // PASSES_PER_CALL


async def test_resets_are_forgiven_at_33_a_second(mock_clock: MockClock) -> None:
    settings = limited(reset_burst=100)
    async with arena((UPLOAD, blocked(trio.Event())), settings=settings, neighbour=False) as ring:
        attacker = await ring.attacker()
        for _ in range(3):
            _opened_and_reset(attacker.peer, 100)
            await attacker.send(b"", passes=100 // 3 * PASSES_PER_STEP)
            assert not ring.limits
            mock_clock.jump(100 / 33 + 0.1)


async def test_a_reset_call_keeps_its_slot_until_its_handler_has_ended(mock_clock: MockClock) -> None:
    """Resetting must not be a way round the limit on concurrent calls."""
    running = 0
    let_go = trio.Event()

    async def handler(call: ServerCall) -> None:
        nonlocal running
        running += 1
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(5, shield=True):
                await let_go.wait()
            running -= 1

    settings = ServerSettings(wire=WireSettings(max_concurrent_streams=10))
    async with arena((UPLOAD, handler), settings=settings) as ring:
        attacker = await ring.attacker()
        for _ in range(5):
            _opened_and_reset(attacker.peer, 10)
            await attacker.send(b"")
        refused = attacker.peer.open(to(UPLOAD))
        await attacker.send(b"")
        most, limits = running, set(ring.limits)
        let_go.set()
        await passes(20)
        assert (most, running) == (10, 0)
        assert attacker.peer.trace(refused) == ["RST(7)"]  # REFUSED_STREAM
        assert limits == {"concurrent_streams"}
        assert not attacker.closed


# -- MadeYouReset, CVE-2025-8671 ------------------------------------------------------------------------

MADE_US_RESET = {
    "window overflow": lambda stream_id: credit(stream_id, 2**31 - 1),
    "data after the end": lambda stream_id: frame(0, 1, stream_id) + frame(0, 0, stream_id, b"x"),
    "headers after the end": lambda stream_id: frame(0, 1, stream_id) + frame(1, 5, stream_id, b"\x82"),
    "body longer than announced": lambda stream_id: frame(0, 0, stream_id, b"12345678"),
    "malformed trailers": lambda stream_id: frame(1, 5, stream_id, b"\x00\x01A\x01b"),
}


@pytest.mark.parametrize("how", MADE_US_RESET)
async def test_made_you_reset(how: str, mock_clock: MockClock) -> None:
    """Whoever makes us reset a stream has reset it: the handler is cancelled, and the bucket is the same."""
    entered = cancelled = 0

    async def handler(call: ServerCall) -> None:
        nonlocal entered, cancelled
        entered += 1
        try:
            await trio.sleep_forever()
        finally:
            cancelled += 1

    async with arena((CHAT, handler), settings=limited(reset_burst=50, reset_rate=0.001)) as ring:
        attacker = await ring.attacker()
        streams = 0
        while not attacker.closed:
            streams += 1
            stream_id = attacker.peer.open(to(CHAT, (b"content-length", b"5")))
            await attacker.send(b"", passes=PASSES_PER_STEP + 10)
            await attacker.send(MADE_US_RESET[how](stream_id), passes=PASSES_PER_STEP + 10)
            assert cancelled == entered == streams
        assert any(text.startswith("RST(") for text in attacker.peer.trace(1))
        assert 25 < streams <= 51  # h2 says it twice in one case
        assert ring.limits == ["resets"]
        assert ended_by(attacker, b"too many streams reset")


async def test_malformed_requests_count_as_resets(mock_clock: MockClock) -> None:
    async with arena(settings=limited(reset_burst=50, reset_rate=0.001)) as ring:
        attacker = await ring.attacker()
        for _ in range(60):
            attacker.peer.open([(b":method", b"POST")], end=True)
        await attacker.send(b"")
        assert ring.limits == ["resets"] and ended_by(attacker, b"too many streams reset")
        assert attacker.peer.trace(1) == ["RST(1)"]


async def test_frames_on_a_stream_that_was_reset_count_as_resets(mock_clock: MockClock) -> None:
    """Each is answered with RST_STREAM(STREAM_CLOSED), which is work for one more small frame."""
    async with arena((UPLOAD, blocked(trio.Event())), settings=limited(reset_burst=50, reset_rate=0.001)) as ring:
        attacker = await ring.attacker()
        stream_id = attacker.peer.open([(b":method", b"POST")])
        await attacker.send(b"")
        await attacker.send(frame(1, 5, stream_id, b"\x82") * 60)
        assert ring.limits == ["resets"]
        assert attacker.closed


# -- glitches -------------------------------------------------------------------------------------------

GLITCHES = {
    "empty DATA": frame(0, 0, 1),
    "PRIORITY": PRIORITY,
    "unknown frame": frame(0x55, 0, 0, b"x"),
    "GOAWAY": frame(7, 0, 0, bytes(8)),
    "SETTINGS ACK": frame(4, 1, 0),
    "PING ACK": frame(6, 1, 0, bytes(8)),
    "credit for the connection": credit(0, 1),
    "credit for a stream": credit(1, 1),
}


@pytest.mark.parametrize("kind", GLITCHES)
async def test_frames_without_content(kind: str, mock_clock: MockClock) -> None:
    """A burst is tolerated, in one go; the neighbour calls on while it is worked off."""
    async with arena((UPLOAD, blocked(trio.Event())), settings=limited(glitch_burst=1000)) as ring:
        attacker = await ring.attacker()
        attacker.peer.open(to(UPLOAD))
        await attacker.send(b"")
        before = ring.calls
        await attacker.send(GLITCHES[kind] * 990, passes=990 // FRAMES_PER_STEP * PASSES_PER_STEP + 100)
        assert not ring.limits and not attacker.closed
        assert ring.calls - before >= 900 // FRAMES_PER_STEP * PASSES_PER_STEP // PASSES_PER_CALL
        await attacker.send(GLITCHES[kind] * 20)
        assert ring.limits == ["glitches"]
        assert ended_by(attacker, b"too many frames without content")


async def test_glitches_are_forgiven_at_330_a_second(mock_clock: MockClock) -> None:
    async with arena(neighbour=False) as ring:
        attacker = await ring.attacker()
        for _ in range(2):
            await attacker.send(PRIORITY * 9_900, passes=9_900 // FRAMES_PER_STEP * (PASSES_PER_STEP + 1))
            mock_clock.jump(31)
        assert not ring.limits


async def test_settings_cost_as_much_as_the_streams_they_concern(mock_clock: MockClock) -> None:
    """Each may change the window of a thousand streams."""
    small, large = (frame(4, 0, 0, struct.pack(">HI", 4, size)) for size in (0, 1))
    async with arena((UPLOAD, blocked(trio.Event()))) as ring:
        attacker = await ring.attacker()
        for _ in range(800):
            attacker.peer.open(to(UPLOAD))
        await attacker.send(b"", passes=800 // 4 * PASSES_PER_STEP)
        await attacker.send((small + large) * 48, passes=8 * PASSES_PER_STEP)
        assert not ring.limits
        await attacker.send((small + large) * 3)
        assert ring.limits == ["glitches"]


# -- answers nobody reads -------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "one"), [("PING", frame(6, 0, 0, bytes(8))), ("SETTINGS", frame(4, 0, 0))])
async def test_answers_that_are_not_read_stop_the_reader(kind: str, one: bytes, mock_clock: MockClock) -> None:
    """At a hundred owed the server stops reading; what it owes stays bounded however much is sent."""
    async with arena(settings=limited(ping_strikes=10**9)) as ring:
        attacker = await ring.attacker()
        await attacker.send_unread(one * 50_000, passes=200)
        owed = max(live._protocol._guard.replies for live in ring.world.server._live)
        assert 100 < owed <= 100 + FRAMES_PER_STEP
        queued = max(live._protocol.output_size for live in ring.world.server._live)
        assert queued <= owed * 17


async def test_a_peer_that_reads_nothing_is_closed_in_time(mock_clock: MockClock) -> None:
    async with arena(settings=limited(ping_strikes=10**9), neighbour=False) as ring:
        attacker = await ring.attacker()
        await attacker.send_unread(frame(6, 0, 0, bytes(8)) * 50_000, passes=200)
        assert not ring.limits
        mock_clock.jump(61)
        await passes(50)
        assert ring.limits == ["slow_reader"]


def test_answers_owed_end_a_connection_that_cannot_pause() -> None:
    """A shell that feeds on regardless of ``congested`` is stopped at a thousand."""
    settings = WireSettings(abuse=AbuseLimits(ping_strikes=10**9))
    protocol = Protocol(client_side=False, settings=settings, budget=Budget(0))
    protocol.receive(bytes(RawPeer().output), 0.0)
    with pytest.raises(ConnectionBroken) as broken:
        for _ in range(1001):
            protocol.receive(frame(6, 0, 0, bytes(8)), 0.0)
    assert (broken.value.code, broken.value.limit) == (ENHANCE_YOUR_CALM, "replies")


# -- credit in crumbs -----------------------------------------------------------------------------------


async def test_credit_that_our_bytes_paid_for_costs_nothing(mock_clock: MockClock) -> None:
    """A client that reads gives credit back; however long that goes on, it is no glitch."""

    async def chat(call: ServerCall) -> None:
        while await call.receive_message() is not None:
            await call.send_message(bytes(4096))

    async with arena((CHAT, chat), settings=limited(glitch_burst=20, glitch_rate=0.001)) as ring:
        attacker = await ring.attacker()
        stream_id = attacker.peer.open(to(CHAT))
        for _ in range(100):
            attacker.peer.message(stream_id, b"more")
            await attacker.send(credit(0, 2048) * 2 + credit(stream_id, 2048) * 2, passes=20)
        assert not ring.limits


async def test_a_byte_of_credit_wakes_one_stream_and_not_all(mock_clock: MockClock) -> None:
    """A thousand stalled answers, and 13 bytes that could wake each of them."""
    sent = 0

    async def pour(call: ServerCall) -> None:
        nonlocal sent
        await call.send_message(bytes(1000))
        sent += 1

    async with arena((CHAT, pour)) as ring:
        attacker = await ring.attacker(settings={4: 2**20})
        for _ in range(900):
            attacker.peer.open(to(CHAT))
        await attacker.send(b"", passes=900 // 4 * PASSES_PER_STEP)
        assert sent == 65_535 // 1005
        steps = _Steps()
        trio.lowlevel.add_instrument(steps)
        try:
            for _ in range(100):
                await attacker.send(credit(0, 1), passes=10)
        finally:
            trio.lowlevel.remove_instrument(steps)
        assert steps.of_calls <= 200
        await attacker.send(credit(0, 1_000_000), passes=1500)
        assert sent == 900


class _Steps(trio.abc.Instrument):
    """Counts how often a task of an attacked call ran."""

    def __init__(self) -> None:
        self.of_calls = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of_calls += task.name == CHAT.path


async def test_a_body_in_crumbs_is_held_in_lumps(mock_clock: MockClock) -> None:
    """One byte per read, none of them taken: forty times their size in memory, if each were kept by itself."""
    async with arena((CHAT, blocked(trio.Event())), neighbour=False) as ring:
        attacker = await ring.attacker()
        stream_id = attacker.peer.open(to(CHAT))
        await attacker.send(b"")
        for byte in message(bytes(3000)):
            await attacker.send(frame(0, 0, stream_id, bytes([byte])), passes=3)
        (held,) = [
            stream._decoder
            for live in ring.world.server._live
            for stream in live._connection.streams.values()
            if stream._decoder is not None
        ]
        assert sum(map(len, held._raw)) == 3005
        assert len(held._raw) == 1
