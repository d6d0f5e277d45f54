"""The fast paths for DATA and for the headers of a call against h2 alone, on the same random frames.

They must mean the same and leave the same state. The oracle gets whole frames; the fast paths get the same bytes split
at random. Compared after every round: the error, the events, what goes out, both ends' windows and every stream's
state. One difference is wanted: DATA on a stream that we have reset is discarded without one more RST_STREAM; then only
the sum of credit is compared.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

import h2.events as he
import pytest
from h2.connection import H2Connection
from h2.exceptions import FlowControlError, FrameTooLargeError, H2Error, ProtocolError
from h2.stream import StreamClosedBy

from casproxy.wire import events
from casproxy.wire.h2_seam import H2
from casproxy.wire.inbound import FrameReader
from casproxy_tests.wire.frames import PREFACE, FrameSource, block, frame

SEQUENCES = 2_000_000 if os.environ.get("CASPROXY_SOAK") else 100_000
PARTS = 20
RST_STREAM, WINDOW_UPDATE = 3, 8
STREAM_CLOSED = b"\0\0\0\5"


def _ignore(kind: int, flags: int) -> None:
    """No limits on frames here."""


class Pair:
    """h2 alone and h2 behind the fast path, set up alike."""

    def __init__(self, rnd: random.Random) -> None:
        self.resets = rnd.random() < 0.5
        # where discarded DATA is credited at other moments, the window must be too large to matter
        credit = 1 << 24 if self.resets else rnd.choice([0, 0, 200_000])
        self.plain, self.fast = H2(client_side=False), H2(client_side=False)
        for side in (self.plain, self.fast):
            side.initiate_connection()
            if credit:
                side.increment_flow_control_window(credit)
            side.data_to_send()
        self.reader = FrameReader(self.fast, max_block=1 << 30, max_continuations=63)

    def send(self, frames: list[bytes], rnd: random.Random) -> bool:
        """One round; False when it ended the connection."""
        discarding = reset_by_us(self.fast)
        plain_events: list[object] = []
        fast_events: list[object] = []
        plain_error = fast_error = None
        for one in frames:
            try:
                plain_events += self.plain.receive_data(one)
            except ProtocolError as error:
                plain_error = error
                break
        wire, pos, whole = b"".join(frames), 0, rnd.random() < 0.3
        try:
            while pos < len(wire):
                size = len(wire) if whole else rnd.choice([1, 3, 9, 10, 50, 1000, 5000, 16_384, 40_000])
                fast_events += self.reader.feed(wire[pos : pos + size], _ignore)
                while self.reader.pending:
                    fast_events += self.reader.feed(b"", _ignore)
                pos += size
        except ProtocolError as error:
            fast_error = error
        if isinstance(fast_error, FrameTooLargeError) and plain_error is not None:
            return False  # two faults in one frame: which is found first may differ
        kept = self._credit_discarded(fast_events, discarding)
        discards = discarding or reset_by_us(self.plain)  # also since this round began
        if discards and FlowControlError in (type(plain_error), type(fast_error)):
            return False  # h2 credits what it discards at another moment, and here that mattered
        assert kind_of(plain_error) == kind_of(fast_error)
        if plain_error is not None:
            return False  # the connection is over; events of the last read may be lost on either side
        assert normal(plain_events) == normal(kept)
        self.compare()
        return True

    def _credit_discarded(self, received: list[object], discarding: set[int]) -> list[object]:
        kept: list[object] = []
        for event in received:
            if type(event) is events.DataReceived and event.stream_id in discarding:
                self.fast._inbound_flow_control_window_manager._bytes_processed += event.credit
            else:
                kept.append(event)
                if isinstance(event, he.StreamReset) and not event.remote_reset and event.stream_id is not None:
                    discarding.add(event.stream_id)
        return kept

    def act(self, rnd: random.Random) -> None:
        """Do the same thing locally on both sides."""
        if not self.plain.streams:
            return
        stream_id = rnd.choice(list(self.plain.streams))
        action = rnd.choice(["headers", "data", "trailers", "credit", *(["reset"] if self.resets else [])])
        assert self._do(self.plain, action, stream_id) == self._do(self.fast, action, stream_id)
        self.compare()

    @staticmethod
    def _do(side: H2Connection, action: str, stream_id: int) -> object:
        try:
            match action:
                case "headers":
                    side.send_headers(stream_id, [(b":status", b"200")])
                case "data":
                    side.send_data(stream_id, b"q" * 100)
                case "trailers":
                    side.send_headers(stream_id, [(b"grpc-status", b"0")], end_stream=True)
                case "credit":
                    side.increment_flow_control_window(1000, stream_id)
                case "reset":
                    side.reset_stream(stream_id)
        except H2Error as error:
            return type(error)
        return None

    def compare(self) -> None:
        assert outgoing(self.plain) == outgoing(self.fast)
        assert state(self.plain) == state(self.fast)


def reset_by_us(side: H2Connection) -> set[int]:
    ids = range(1, min(200, side.highest_inbound_stream_id + 1), 2)
    return {i for i in ids if side._stream_closed_by(i) is StreamClosedBy.SEND_RST_STREAM}


def kind_of(error: ProtocolError | None) -> tuple[object, object]:
    return type(error), getattr(error, "error_code", None)


def normal(received: Iterable[object]) -> list[object]:
    """Events of either side in one form: DATA of neighbouring frames joined."""
    out: list[object] = []
    for event in received:
        match event:
            case he.DataReceived(stream_id=stream_id, data=data, flow_controlled_length=credit):
                _join(out, stream_id, data, credit)
            case events.DataReceived(stream_id=stream_id, chunks=chunks, credit=credit):
                _join(out, stream_id, b"".join(chunks), credit)
            case he.StreamEnded(stream_id=stream_id) | events.StreamEnded(stream_id=stream_id):
                out.append(("ended", stream_id))
            case he.RequestReceived(stream_id=stream_id) | events.HeadersReceived(stream_id=stream_id):
                out.append(("request", stream_id, list(event.headers)))
            case he.TrailersReceived(stream_id=stream_id):
                out.append((type(event), stream_id, event.headers))
            case he.StreamReset(stream_id=stream_id, error_code=code, remote_reset=remote):
                out.append(("reset", stream_id, code, remote))
            case _:
                out.append(type(event))
    return out


def _join(out: list[object], stream_id: int, data: bytes, credit: int) -> None:
    last = out[-1] if out else None
    if isinstance(last, list) and last[0] == stream_id:
        last[1] += data
        last[2] += credit
    elif credit:
        out.append([stream_id, data, credit])


def outgoing(side: H2Connection) -> list[bytes]:
    """Frames that went out, less what a discard changes."""
    wire, pos, out = side.data_to_send(), 0, []
    while pos < len(wire):
        end = pos + 9 + int.from_bytes(wire[pos : pos + 3], "big")
        one = wire[pos:end]
        pos = end
        closed = one[3] == RST_STREAM and one[9:] == STREAM_CLOSED
        connection_credit = one[3] == WINDOW_UPDATE and one[5:9] == b"\0\0\0\0"
        if not closed and not connection_credit:
            out.append(one)
    return out


def state(side: H2Connection) -> object:
    window = side._inbound_flow_control_window_manager
    return (
        side.state_machine.state,
        window.current_window_size + window._bytes_processed,
        side.outbound_flow_control_window,
        side.highest_inbound_stream_id,
        {
            stream_id: (
                stream.state_machine.state,
                stream.state_machine.stream_closed_by,
                stream.state_machine.client,
                stream.state_machine.headers_received,
                stream.state_machine.trailers_received,
                stream._inbound_window_manager.current_window_size,
                stream.outbound_flow_control_window,
                stream._actual_content_length,
                stream._expected_content_length,
            )
            for stream_id, stream in side.streams.items()
        },
    )


def one_sequence(seed: int) -> None:
    rnd = random.Random(seed)
    pair = Pair(rnd)
    source = FrameSource(rnd, evil=rnd.choice([0, 0, 0.02, 0.1, 0.3]))
    frames = [PREFACE, frame(4, 0, 0)]
    for _ in range(rnd.randint(1, 4)):
        for _ in range(rnd.randint(1, 6)):
            frames += source.step()
        if not pair.send(frames, rnd):
            return
        for _ in range(rnd.randint(0, 2)):
            pair.act(rnd)
        frames = []


def run_part(part: int) -> int:
    count = SEQUENCES // PARTS
    for seed in range(part * count, (part + 1) * count):
        try:
            one_sequence(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
    return count


@pytest.mark.timeout(3600)
def test_the_fast_path_is_h2_on_random_frames() -> None:
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        assert sum(pool.map(run_part, range(PARTS))) == SEQUENCES


@pytest.mark.parametrize("ended", [0, 1])
@pytest.mark.parametrize(
    "extra",
    [
        [(b"content-length", b"five")],
        [(b"content-length", b"5"), (b"content-length", b"6")],
        [(b"content-length", b"5")],
        [(b":status", b"103")],
        [(b":status", b"200")],
    ],
    ids=str,
)
def test_headers_of_a_call_that_h2_objects_to_are_objected_to(extra: list[tuple[bytes, bytes]], ended: int) -> None:
    pair = Pair(random.Random(0))
    if pair.send([PREFACE, frame(4, 0, 0), frame(1, 4, 1, block())], random.Random(0)):
        pair.send([frame(1, 4 | ended, 3, block(*extra)), frame(6, 0, 0, bytes(8))], random.Random(1))
    else:
        raise AssertionError("the first call is a good one")
