"""Owns a live HTTP/2 connection: one reader task, one writer task, the table of its streams. Refuses to know calls.

::

    transport ──bytes──▶ reader ──events──▶ MessageStream.on_…   (never waits for a stream's task)
    transport ◀─bytes─── writer ◀──wake──── Protocol.take_output (the only task that writes)

Server and client put their calls on top through ``ConnectionOwner``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol as TypingProtocol

import trio

from casproxy.rpc.credit_queue import CreditQueue
from casproxy.rpc.errors import StreamGone
from casproxy.rpc.patience import ConnectionTimeouts, Expired, Patience
from casproxy.rpc.stream import MessageStream
from casproxy.rpc.transport import Transport
from casproxy.sockets import Received
from casproxy.turns import give_way
from casproxy.waiter import Waiter
from casproxy.wire import events
from casproxy.wire.errors import ConnectionBroken
from casproxy.wire.protocol import Protocol

log = logging.getLogger(__name__)

OUTPUT_LIMIT = 4 * 1024 * 1024
"""Queued bytes at which the reader stops reading: a peer that does not take our answers gets no more of them."""
NOISY_WAIT = 64
"""Turns that a noisy peer lets pass after each step of work for it, so that others hardly notice it."""
KEEPALIVE_PING = b"alive?\0\0"
FLUSH_TIMEOUT = 1.0
"""Seconds for the last bytes (GOAWAY) when the peer is gone or broke the protocol."""
LAST_WORDS_TIMEOUT = 1.0
"""Seconds for reading what a peer that hung up said before: a status, or the TLS alert that tells why."""


class ConnectionOwner(TypingProtocol):
    """What the server or the client does with events that are not about an open stream's bytes. Nothing here waits."""

    def on_headers(self, event: events.HeadersReceived) -> None:
        """A request arrived (server), or the response of a call (client)."""

    def on_trailers(self, event: events.TrailersReceived) -> None:
        """The peer's last headers on a stream; ``on_end`` of the stream follows."""

    def on_reset(self, event: events.StreamReset) -> None:
        """The stream is gone; its ``MessageStream`` already knows."""

    def on_go_away(self, event: events.GoAwayReceived) -> None:
        """The peer takes no more streams."""

    def on_ping_acked(self, event: events.PingAcked) -> None:
        """The peer answered our PING."""


class Connection:
    """One connection. ``run`` until it ends; ``streams`` holds those with a task of their own."""

    def __init__(
        self,
        transport: Transport,
        protocol: Protocol,
        timeouts: ConnectionTimeouts,
        *,
        on_limit: Callable[[str], None] = lambda limit: None,
    ) -> None:
        self.protocol = protocol
        self.transport = transport
        self.streams: dict[int, MessageStream] = {}
        self.closed = False
        self.output_drained = trio.lowlevel.ParkingLot()
        self._timeouts = timeouts
        self._patience = Patience(timeouts, trio.current_time())
        self._on_limit = on_limit
        self._credit_queue = CreditQueue(protocol)
        self._reader_waits = Waiter()
        self._writer_parked = trio.lowlevel.ParkingLot()
        self._closing = False
        self._reader_done = False

    def wake_writer(self) -> None:
        """Something may have been queued; if nothing was, the writer goes on waiting."""
        if self._writer_parked and (self._closing or self.protocol.has_output):
            self._writer_parked.unpark()

    def limit_reached(self, limit: str) -> None:
        """The peer ran into the limit of this name."""
        self._on_limit(limit)

    def open_stream(self, stream_id: int) -> MessageStream:
        """A stream with a task of its own; ``close_stream`` when that task is done."""
        stream = MessageStream(
            stream_id,
            self.protocol,
            wake_writer=self.wake_writer,
            output_drained=self.output_drained,
            credit_queue=self._credit_queue,
        )
        self.streams[stream_id] = stream
        return stream

    def close_stream(self, stream: MessageStream) -> None:
        """Its unread bytes are credited, whether or not anybody ran (leaking them starves the connection)."""
        del self.streams[stream.id]
        self._credit_queue.leave(stream)
        self.protocol.close_stream(stream.id)
        if not self.streams:
            self._patience.busy(trio.current_time())
        self.wake_writer()

    def close_soon(self) -> None:
        """Write what is queued, then end ``run``."""
        self._closing = True
        self.wake_writer()

    async def run(self, owner: ConnectionOwner) -> None:
        """Read and write until the peer is gone, broke the protocol, or ``close_soon``; then close the transport.

        Every stream learns of the end (``StreamGone``). Cancelled: closes at once.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, owner)
                hung_up = await self._write()
                self.closed = True
                nursery.cancel_scope.deadline = trio.current_time() + (LAST_WORDS_TIMEOUT if hung_up else 0)
        finally:
            self.closed = True
            for stream in list(self.streams.values()):
                stream.on_gone(StreamGone(None))
            self.output_drained.unpark_all()
            self.protocol.close()
            await self.transport.aclose()

    async def _read(self, owner: ConnectionOwner) -> None:
        while data := await self._receive():
            try:
                await self._digest(data, owner)
            except ConnectionBroken as error:
                log.info("connection of %s ended: %s", self.transport.peer, error)
                self.limit_reached(error.limit or "protocol_error")
                break
        self._reader_done = True
        self.close_soon()

    async def _digest(self, data: Received, owner: ConnectionOwner) -> None:
        """Act on what arrived, in steps of bounded work: a read full of expensive frames makes nobody else wait."""
        now = trio.current_time()
        while True:
            for event in self.protocol.receive(data, now):
                self._dispatch(event, owner)
            self.wake_writer()
            while self.protocol.congested or self.protocol.output_size > OUTPUT_LIMIT:
                await self._reader_waits.wait()
            for _ in range(NOISY_WAIT if self.protocol.noisy else int(self.protocol.pending)):
                await trio.lowlevel.checkpoint()
            if not self.protocol.pending:
                break
            data = b""
        self._patience.received(now, greeted=self.protocol.greeted, unfinished=self.protocol.unfinished)

    async def _receive(self) -> Received:
        """The next bytes; ``b""`` at the end, or when the peer was waited for long enough."""
        if (data := self.transport.receive_nowait()) is not None:
            await trio.lowlevel.checkpoint()
            await give_way()  # or readers get ahead of who hashes, and what was read leaves the core's cache
            return data
        while True:
            deadline, why = self._patience.deadline(has_streams=bool(self.streams))
            with trio.CancelScope(deadline=deadline):
                return await self.transport.receive()
            if why is Expired.KEEPALIVE:
                self._patience.pinged(trio.current_time())
                self.protocol.ping(KEEPALIVE_PING)
                self.wake_writer()
            elif why is not Expired.IDLE or not self.streams:  # a stream may have come from our side meanwhile
                log.info("connection of %s ended: %s", self.transport.peer, why.value)
                self.limit_reached(why.value)
                self.protocol.go_away(self.protocol.last_peer_stream, text=why.value.encode())
                return b""

    def _dispatch(self, event: events.Event, owner: ConnectionOwner) -> None:
        match event:
            case events.DataReceived(stream_id=stream_id, chunks=chunks, credit=credit):
                stream = self.streams.get(stream_id)
                if stream is None:
                    self.protocol.hand_on(stream_id, credit)
                else:
                    stream.on_data(chunks, credit)
            case events.HeadersReceived():
                owner.on_headers(event)
            case events.TrailersReceived():
                owner.on_trailers(event)
            case events.StreamEnded(stream_id=stream_id):
                if (stream := self.streams.get(stream_id)) is not None:
                    stream.on_end()
            case events.StreamReset(stream_id=stream_id, code=code):
                if (stream := self.streams.get(stream_id)) is not None:
                    stream.on_gone(StreamGone(code))
                    owner.on_reset(event)
            case events.CreditReceived(stream_id=stream_id):
                self._on_credit(stream_id)
            case events.SettingsReceived():
                for stream in self.streams.values():
                    stream.on_credit()
            case events.LimitReached(limit=limit):
                self.limit_reached(limit)
            case events.PingAcked():
                owner.on_ping_acked(event)
            case events.GoAwayReceived():
                owner.on_go_away(event)

    def _on_credit(self, stream_id: int) -> None:
        if stream_id == 0:
            self._credit_queue.pass_on()
        elif (stream := self.streams.get(stream_id)) is not None:
            stream.on_credit()

    async def _write(self) -> bool:
        """The only task that writes; ends when the connection is closing and everything is out, or the peer is gone.

        True when the peer hung up while there was something to write: what it said before may not have been read.
        """
        while True:
            buffers = self.protocol.take_output()
            if not buffers:
                if self._closing:
                    return False
                await self._writer_parked.park()
                continue
            limit = FLUSH_TIMEOUT if self._reader_done else self._timeouts.write
            try:
                await self.transport.send(buffers, patience=limit)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return True
            except trio.TooSlowError:
                if not self._reader_done:
                    self.limit_reached("slow_reader")
                return False
            self.protocol.written()
            self.output_drained.unpark()  # the first who waits; it wakes the next when there is room left
            self._reader_waits.wake()
