"""Owns one HTTP/2 stream as its task sees it: messages in, messages out, both under flow control.

Refuses to know whether it is a call served or a call made (``server_call``, ``client_call``) and what is in a message.
The connection's reader calls the ``on_…`` methods; they never wait. The stream's task calls the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from casproxy.rpc.api import Traffic
from casproxy.rpc.credit_queue import CreditQueue
from casproxy.rpc.errors import StreamGone
from casproxy.waiter import Waiter
from casproxy.wire.framing import MESSAGE_END, PREFIX, Buffer, MessageDecoder, MessageStart, Part, encode_message
from casproxy.wire.protocol import Protocol
from casproxy.wire.ready_headers import ReadyHeaders

PULL_SIZE = 1024 * 1024
"""Payload bytes taken out of the decoder at once."""
SMALL_ANSWER = 16 * 1024
"""Bytes of an answer that is cheaper copied than sent in three frames of its own."""
OUTPUT_HIGH_WATER = 1024 * 1024
"""Bytes a connection may have queued for its writer before senders wait."""


class MessageStream:
    """Both directions of one stream.

    ``wake_writer`` tells the connection that output is queued; ``output_drained`` is where senders wait until it was
    written, woken one after the other; ``credit_queue`` is where streams wait for the connection's window.
    """

    __slots__ = (
        "_assembled",
        "_credit_queue",
        "_decoder",
        "_held",
        "_output_drained",
        "_parts",
        "_protocol",
        "_receivable",
        "_sendable",
        "_wake_writer",
        "gone",
        "id",
        "mid_message",
        "peer_ended",
        "send_stopped",
        "traffic",
    )

    def __init__(
        self,
        stream_id: int,
        protocol: Protocol,
        *,
        wake_writer: Callable[[], None],
        output_drained: trio.lowlevel.ParkingLot,
        credit_queue: CreditQueue,
    ) -> None:
        self.id = stream_id
        self.gone: StreamGone | None = None
        self.peer_ended = False
        self.send_stopped = False
        self.mid_message = False
        self.traffic = Traffic()
        self._protocol = protocol
        self._wake_writer = wake_writer
        self._output_drained = output_drained
        self._credit_queue = credit_queue
        self._decoder: MessageDecoder | None = None
        self._parts: list[Part] | None = None  # decoded and not taken yet
        self._assembled: list[bytes | memoryview] | None = None  # of a message that is not complete yet
        self._held = 0  # bytes of uncompressed payload given out and not yet handed on
        self._receivable = Waiter()
        self._sendable = Waiter()

    # -- called by the connection's reader ----------------------------------------------------------

    def start_receiving(self, decoder: MessageDecoder) -> None:
        """The headers told how messages are encoded."""
        self._decoder = decoder

    def on_data(self, chunks: list[bytes | memoryview], credit: int) -> None:
        """Body bytes arrived, for ``credit`` bytes of credit (more than the data when a frame was padded)."""
        if self._decoder is None:
            self._protocol.hand_on(self.id, credit)
            return
        size = 0
        for chunk in chunks:
            self._decoder.push(chunk)
            size += len(chunk)
        if credit > size:
            self._protocol.hand_on(self.id, credit - size)
        self._receivable.wake()

    def on_end(self) -> None:
        """The peer half-closed."""
        self.peer_ended = True
        self._receivable.wake()

    def on_gone(self, reason: StreamGone) -> None:
        """The stream was reset or the connection died."""
        self.gone = self.gone or reason
        self._receivable.wake()
        self.stop_sending()

    def _gone(self) -> StreamGone:
        """A new one for each raise: one that is kept holds the frames it went through, and they this stream."""
        return StreamGone(0 if self.gone is None else self.gone.code)

    def stop_sending(self) -> None:
        """The peer wants no more: senders see ``StreamGone``, what was received can still be read."""
        self.send_stopped = True
        self._sendable.wake()

    def on_credit(self) -> None:
        """More may be sent on this stream."""
        self._sendable.wake()

    def wake_sender(self) -> bool:
        """The connection has credit, and it is this stream's turn."""
        return self._sendable.wake()

    # -- receiving ------------------------------------------------------------------------------------

    def _decode(self) -> list[Part]:
        """Parts of what has arrived; framing and compressed bytes are credited here, payload when handed on."""
        decoder = self._decoder
        if decoder is None:
            return []
        before = decoder.consumed
        parts = decoder.pull(PULL_SIZE)
        consumed = decoder.consumed - before
        payload = 0
        for part in parts:
            if part is not MESSAGE_END and not isinstance(part, MessageStart):
                payload += len(part)
        self.traffic.bytes_received += payload
        held = min(consumed, payload)
        self._held += held
        self._hand_on(consumed - held)
        return parts

    def receive_parts_nowait(self) -> list[Part] | None:
        """Parts that are already there, ``[]`` at the end, None when there is nothing yet.

        Raises ``StreamGone``, or ``BrokenMessage`` for a stream that is not made of messages.
        """
        parts, self._parts = self._parts or self._decode(), None
        if parts:
            self.traffic.messages_received += parts.count(MESSAGE_END)
            return parts
        if self.peer_ended:
            if self._decoder is not None:
                self._decoder.check_complete()
            return []
        if self.gone is not None:
            raise self._gone()
        return None

    async def receive_parts(self) -> list[Part]:
        """Like ``receive_parts_nowait``, but waits; cancellation loses nothing."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while (parts := self.receive_parts_nowait()) is None:
            await self._receivable.wait()
        return parts

    async def receive_message(self) -> bytes | None:
        """The next whole message, None at the end; its credit is given back as it is assembled.

        Cancellation loses nothing.
        """
        while True:
            parts = await self.receive_parts()
            if not parts:
                return None
            for index, part in enumerate(parts):
                if part is MESSAGE_END:
                    self.traffic.messages_received -= parts[index + 1 :].count(MESSAGE_END)
                    self._parts = parts[index + 1 :]
                    message, self._assembled = b"".join(self._assembled or ()), None
                    return message
                if not isinstance(part, MessageStart):
                    if self._assembled is None:
                        self._assembled = []
                    self._assembled.append(part)
                    self.hand_on(len(part))

    def receive_only_message_nowait(self, most: int) -> bytes | None:
        """The one message of a stream that has ended, to be handed on; None, and nothing is lost, where it is not that.

        ``most``: bytes it may have.
        """
        decoder = self._decoder
        if decoder is None or not self.peer_ended or self._parts or self._assembled:
            return None
        message = decoder.take_only_message(most)
        if message is not None:
            self.traffic.messages_received += 1
            self.traffic.bytes_received += len(message)
            self._held += len(message)
            self._hand_on(PREFIX.size)
        return message

    async def receive_end(self) -> None:
        """Wait until the peer has ended its side; what it sends until then is dropped. Raises ``StreamGone``."""
        while not self.peer_ended:
            if self.gone is not None:
                raise self._gone()
            await self._receivable.wait()

    def hand_on(self, size: int) -> None:
        """``size`` bytes of received payload are no longer held by this stream's task."""
        size = min(size, self._held)  # inflated bytes were credited when they were inflated
        self._held -= size
        self._hand_on(size)

    def _hand_on(self, size: int) -> None:
        self._protocol.hand_on(self.id, size)
        self._wake_writer()

    def starved(self) -> bool:
        """The peer has no credit to send even one byte."""
        return self._protocol.starved(self.id)

    # -- sending --------------------------------------------------------------------------------------

    async def send_message(self, buffers: Sequence[Buffer], *, gzip: bool = False, grace: float = 0.0) -> None:
        """Send one message; returns when all of it is queued within the peer's credit. Raises ``StreamGone``.

        Cancelled in mid-message, the rest has ``grace`` seconds to go out all the same: behind a whole message there
        is room for a status, behind a part only for a reset.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        unsent = [memoryview(buffer) for buffer in encode_message(buffers, gzip=gzip)]
        try:
            await self._send(unsent)
        except trio.Cancelled:
            if self.mid_message and grace:
                with trio.move_on_after(grace, shield=True):
                    await self._send(unsent)
            raise

    def send_answer_nowait(self, headers: ReadyHeaders, buffers: Sequence[Buffer], trailers: ReadyHeaders) -> bool:
        """Queue a whole answer of one small message if nothing has to be waited for; False: nothing was done."""
        size = sum(map(len, buffers))
        if self.send_stopped or size > SMALL_ANSWER or self._protocol.output_size >= OUTPUT_HIGH_WATER:
            return False
        framed = encode_message(buffers)
        if not self._protocol.send_answer(self.id, headers, framed, PREFIX.size + size, trailers):
            return False
        self._wake_writer()
        return True

    async def send(self, buffers: Sequence[Buffer]) -> None:
        """Send ``buffers`` as they are, under flow control. Raises ``StreamGone``."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._send([memoryview(buffer) for buffer in buffers])

    async def _send(self, unsent: list[memoryview]) -> None:
        """Send and take away what is in ``unsent``, under flow control."""
        left = sum(map(len, unsent))
        try:
            while left:
                size = min(left, await self._wait_for_room())
                self._protocol.send_data(self.id, _split(unsent, size), size)
                left -= size
                self.mid_message = left > 0
                self._wake_writer()
        finally:
            self._credit_queue.pass_on()
            self._wake_next_sender()

    async def _wait_for_room(self) -> int:
        """How much may be queued now: what the output has room for or a frame, as far as the peer gave credit."""
        protocol = self._protocol
        while True:
            if self.send_stopped or not protocol.can_send(self.id):
                raise self._gone()
            if (room := self._output_room()) <= 0:
                await self._output_drained.park()
                continue
            capacity = protocol.capacity(self.id)
            if capacity > 0:
                return min(capacity, max(room, protocol.frame_size))
            if protocol.connection_capacity <= 0:
                self._credit_queue.join(self)
            else:
                self._credit_queue.pass_on()
            self._wake_next_sender()
            await self._sendable.wait()

    def _output_room(self) -> int:
        return min(OUTPUT_HIGH_WATER - self._protocol.output_size, self._protocol.output_room)

    def _wake_next_sender(self) -> None:
        """Room that this stream leaves is for one that waits: woken all at once, most would only go to wait again."""
        if self._output_drained and self._output_room() > 0:
            self._output_drained.unpark()


def _split(views: list[memoryview], size: int) -> list[Buffer]:
    """Take ``size`` bytes off the front of ``views``, in place, without copying."""
    taken: list[Buffer] = []
    while size:
        first = views[0]
        if len(first) > size:
            taken.append(first[:size])
            views[0] = first[size:]
            break
        taken.append(first)
        size -= len(first)
        del views[0]
    return taken
