"""Owns one HTTP/1.1 connection, one exchange at a time. Refuses to know pools, credentials and what is carried.

Heads are written and parsed by h11. Bodies are not fed through it: what is sent leaves in the buffers it came in (one
``writev`` per buffer, chunk header included), what is received leaves in the buffers the socket filled, up to 512 KiB
each. A body in chunks is the exception; registries send manifests that way at most.

While a streamed body is sent, the answer is awaited as well: a server that refuses half way is heard at once, also
when the sender of the body pauses.

Source: RFC 9112.
"""

from __future__ import annotations

import select
from typing import Any, Final

import h11
import trio

from casproxy import streams
from casproxy.outbound.address import Origin
from casproxy.outbound.errors import AnswerBroken, ConnectionBroken, OutboundError, TimedOut
from casproxy.outbound.grace import outlast
from casproxy.outbound.message import Body, Buffer, Head, Request, Timeouts
from casproxy.sockets import READ_SIZE, Received
from casproxy.tls import socket_beneath

_HEAD_READ_SIZE: Final = 16 * 1024
_MAX_HEAD_BYTES: Final = 64 * 1024
_LAST_WORDS_SECONDS: Final = 1.0
"""How long an answer may take to arrive on a connection that takes no more of the body."""

_GOODBYE_SECONDS: Final = 1.0
"""The longest a cancelled upload may take to end in order: milliseconds, unless the server is slow or silent."""
_LONGEST_EXCHANGE_SECONDS: Final = 24 * 3600.0


class Connection:
    """A connection to ``origin`` over ``stream``. Whatever raises leaves it fit for ``close`` only."""

    def __init__(self, stream: trio.abc.Stream, origin: Origin, timeouts: Timeouts) -> None:
        self.origin = origin
        self._stream = stream
        self._timeouts = timeouts
        beneath = socket_beneath(stream)
        self._socket = None if beneath is None else beneath.socket
        self._body_sent = False
        self._received = 0
        self._cut = False
        self._receiving = trio.CancelScope()

    def close(self) -> None:
        """Give the connection up at once, without a word; idempotent."""
        if self._socket is not None:
            self._socket.close()
        else:
            _close_in_memory(self._stream)

    def is_quiet(self) -> bool:
        """True when nothing has come since the last exchange; the server's goodbye is something."""
        if self._socket is None or self._socket.fileno() < 0:
            return self._socket is None
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return not poll.poll(0)

    async def exchange(self, request: Request) -> Response:
        """Send a request; the answer, once its head is there. Read its body before the next exchange.

        A final answer may come before the whole body is sent: then ``Response.early``. Errors: ``TimedOut``,
        ``ConnectionBroken``, ``AnswerBroken``, what the body's ``receive`` raises.
        """
        machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        head = _request_head(machine, request)
        patience = self._timeouts.answer if request.answer_timeout is None else request.answer_timeout
        self._body_sent, self._received = False, 0
        if isinstance(request.body, bytes | bytearray | memoryview):
            answer = await self._send_whole(machine, head, request.body, patience)
        elif request.body.size is None:
            answer = await self._send_cuttable(machine, head, request.body, patience)
        else:
            answer = await self._send_streamed(machine, head, request.body, patience)
        return Response(self, machine, answer, request.method, early=not self._body_sent)

    async def _send_whole(self, machine: h11.Connection, head: bytes, body: Buffer, patience: float) -> Head:
        try:
            await self._send(head, body)
        except ConnectionBroken:
            return await self._last_words(machine)
        self._body_sent = True
        return await self._receive_head(machine, patience)

    async def _send_streamed(self, machine: h11.Connection, head: bytes, body: Body, patience: float) -> Head:
        """Send the body and listen, side by side; whichever fails or answers first ends both."""
        answer: Head | None = None
        failure: OutboundError | None = None
        listening, sending = trio.CancelScope(), trio.CancelScope()

        async def listen() -> None:
            nonlocal answer, failure
            try:
                with listening:
                    answer = await self._next_head(machine)
            except OutboundError as error:
                failure = failure or error
            sending.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                with sending:
                    try:
                        await self._send_body(head, body)
                        self._body_sent = True
                    except (ConnectionBroken, TimedOut) as error:
                        failure = failure or error
                        patience = _LAST_WORDS_SECONDS
                    listening.deadline = trio.current_time() + patience
            if answer is not None:
                return answer
            raise failure or TimedOut("answer", patience)
        finally:
            del failure

    async def _send_cuttable(self, machine: h11.Connection, head: bytes, body: Body, patience: float) -> Head:
        """``_send_streamed`` for a body in chunks: cancelled, it ends after the chunk at hand, as if that were all.

        What a server has half received it may not let go: docker-registry signs the offset into the upload's address,
        and only a PATCH that ended tells the address by which the upload can be deleted.
        """
        answer: Head | None = None

        async def step() -> None:
            nonlocal answer
            answer = await self._send_streamed(machine, head, body, patience)
            body.answered(answer)

        def cut() -> None:
            self._cut = True
            self._receiving.cancel()

        await outlast(_GOODBYE_SECONDS, _LONGEST_EXCHANGE_SECONDS, step, on_cancel=cut)
        if answer is None:
            raise TimedOut("write", _LONGEST_EXCHANGE_SECONDS)
        return answer

    async def _send_body(self, head: bytes, body: Body) -> None:
        await self._send(head)
        if body.size is None:
            await self._send_chunks(body)
            return
        left = body.size
        while left:  # and not until the body says so: the server answers as soon as it has counted to the end
            piece = await body.receive()
            if not 0 < len(piece) <= left:
                raise ValueError("a body of another size than it declared")
            await self._send(piece)
            left -= len(piece)

    async def _send_chunks(self, body: Body) -> None:
        while not self._cut:
            piece: Buffer = b""
            with trio.CancelScope() as self._receiving:
                piece = await body.receive()
            if not piece:
                break
            await self._send(b"%x\r\n" % len(piece), piece, b"\r\n")
        await self._send(b"0\r\n\r\n")

    async def _last_words(self, machine: h11.Connection) -> Head:
        """The answer that a server may have sent before it stopped taking the body."""
        try:
            return await self._receive_head(machine, _LAST_WORDS_SECONDS)
        except OutboundError as error:
            raise ConnectionBroken("the connection takes no more bytes", answered=False) from error

    async def _receive_head(self, machine: h11.Connection, patience: float) -> Head:
        with trio.move_on_after(patience):
            return await self._next_head(machine)
        raise TimedOut("answer", patience)

    async def _next_head(self, machine: h11.Connection) -> Head:
        while True:
            try:
                event = machine.next_event()
            except h11.RemoteProtocolError as error:
                raise AnswerBroken("the answer is not HTTP/1.1") from error
            if isinstance(event, h11.Response):
                return _head_of(event)
            if event is h11.NEED_DATA:
                data = await self.receive(_HEAD_READ_SIZE)
                if not data:
                    raise ConnectionBroken("closed before an answer", answered=self._received > 0)
                machine.receive_data(bytes(data))

    async def receive(self, max_bytes: int = READ_SIZE) -> Received:
        """What has arrived; ``b""`` when the server has closed. No deadline of its own."""
        try:
            data = await streams.receive(self._stream, max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionBroken("the connection was reset", answered=self._received > 0) from error
        self._received += len(data)
        return data

    async def receive_in_time(self, max_bytes: int = READ_SIZE) -> Received:
        """Like ``receive``, within the read timeout."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if (data := self._receive_nowait(max_bytes)) is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return data
        with trio.move_on_after(self._timeouts.read):
            return await self.receive(max_bytes)
        raise TimedOut("read", self._timeouts.read)

    def _receive_nowait(self, max_bytes: int) -> Received | None:
        try:
            data = streams.receive_nowait(self._stream, max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ConnectionBroken("the connection was reset", answered=self._received > 0) from error
        self._received += len(data or b"")
        return data

    async def _send(self, *buffers: Buffer) -> None:
        """Send all of it; ``TimedOut`` when the server takes nothing for the write timeout."""
        try:
            await streams.send(self._stream, buffers, patience=self._timeouts.write)
        except trio.TooSlowError:
            raise TimedOut("write", self._timeouts.write) from None
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise ConnectionBroken("the connection takes no more bytes", answered=self._received > 0) from error


class Response:
    """An answer whose head is there. Read ``receive`` to its end, or give the connection up."""

    def __init__(
        self, connection: Connection, machine: h11.Connection, head: Head, method: str, *, early: bool
    ) -> None:
        self.status = head.status
        self.headers = head.headers
        self.early = early
        """The server answered before it had the whole request body."""
        self._connection = connection
        self._machine = machine
        self._ended = False
        self._machine_empty = False  # of a counted body: what came with the head has been handed out
        length = head.headers.get("content-length")
        bodiless = method == "HEAD" or head.status in (204, 304)
        chunked = "transfer-encoding" in head.headers
        self.size = 0 if bodiless else int(length) if length is not None and not chunked else None
        """Bytes of the body, None when the server does not say beforehand."""
        self._keep_alive = head.keep_alive and not early and (self.size is not None or chunked)
        self._left = self.size

    @property
    def reusable(self) -> bool:
        """The connection may carry another exchange: this one has ended as HTTP/1.1 wants it."""
        return self._ended and self._keep_alive and not self._machine.trailing_data[0]

    async def receive(self, max_bytes: int = READ_SIZE) -> Received:
        """The next bytes of the body, 1 byte to 512 KiB; ``b""`` once it is complete.

        No more than ``max_bytes`` are read from the connection, beside what came with the head.

        Errors: ``ConnectionBroken`` for a body that ends early, ``TimedOut``, ``AnswerBroken``.
        """
        if self._ended:
            return b""
        data = await (
            self._receive_parsed(max_bytes) if self._left is None else self._receive_counted(self._left, max_bytes)
        )
        self._ended = not data
        return data

    async def read(self, max_bytes: int) -> bytes:
        """The whole body; ``AnswerBroken`` when it has more than ``max_bytes``."""
        parts: list[Received] = []
        size = 0
        while data := await self.receive():
            size += len(data)
            if size > max_bytes:
                raise AnswerBroken(f"an answer of more than {max_bytes} bytes")
            parts.append(data)
        return b"".join(parts)

    async def _receive_counted(self, left: int, max_bytes: int) -> Received:
        """Past h11: only what came together with the head is in its buffer."""
        data: Received = b"" if self._machine_empty else self._from_machine()
        self._machine_empty = not data
        if not data and left:
            data = await self._connection.receive_in_time(min(READ_SIZE, left, max_bytes))
            if not data:
                raise ConnectionBroken(f"the answer ends {left} bytes early", answered=True)
        self._left = left - len(data)
        return data

    def _from_machine(self) -> bytes:
        event = self._next_event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _receive_parsed(self, max_bytes: int) -> bytes:
        while True:
            event = self._next_event()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if event is h11.NEED_DATA:
                self._machine.receive_data(bytes(await self._connection.receive_in_time(min(READ_SIZE, max_bytes))))
            else:
                return b""

    def _next_event(self) -> object:
        try:
            return self._machine.next_event()
        except h11.RemoteProtocolError as error:
            raise ConnectionBroken("the answer ends early or is malformed", answered=True) from error


def _request_head(machine: h11.Connection, request: Request) -> bytes:
    body = request.body
    headers = [("Host", request.url.origin.authority), *request.headers, ("Accept-Encoding", "identity")]
    size = len(body) if isinstance(body, bytes | bytearray | memoryview) else body.size
    if size is None:
        headers.append(("Transfer-Encoding", "chunked"))
    elif size or request.method not in ("GET", "HEAD", "DELETE"):
        headers.append(("Content-Length", str(size)))
    head = machine.send(h11.Request(method=request.method, target=request.url.target, headers=headers))
    assert head is not None  # noqa: S101 - only ConnectionClosed has no bytes
    return head


def _head_of(event: h11.Response) -> Head:
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise AnswerBroken("the answer is encoded, though only identity was accepted")
    kept = event.http_version == b"1.1" and "close" not in headers.get("connection", "").lower()
    return Head(event.status_code, headers, kept)


def _close_in_memory(stream: trio.abc.Stream) -> None:
    """Close a stream that is no socket, as tests have them: both halves, without a checkpoint."""
    halves: tuple[Any, ...] = (getattr(stream, "send_stream", stream), getattr(stream, "receive_stream", stream))
    for half in halves:
        half.close()
