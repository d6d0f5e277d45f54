"""Owns one call being served: ``ServerCall`` over a ``MessageStream``, and how it ends. Refuses to know methods.

The end of a call, in the order it goes out::

    handler returned       HEADERS  DATA…  trailers(0)          RST_STREAM(NO_ERROR) if the client is still sending
    RpcError, deadline     [HEADERS DATA…] trailers(code)       the same
    … in mid-message       the rest of the message first, if the peer takes it within MESSAGE_GRACE; else
                           RST_STREAM, its code for the status: a truncated message must not look like an end
    reset by the client    nothing
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import trio

from casproxy.rpc.api import Buffer, Handler, MethodInfo, MethodKind, Traffic
from casproxy.rpc.connection import Connection
from casproxy.rpc.errors import RpcError, StreamGone
from casproxy.rpc.stream import MessageStream
from casproxy.wire import headers
from casproxy.wire.errors import BrokenMessage
from casproxy.wire.framing import Part
from casproxy.wire.headers import RequestHead
from casproxy.wire.metadata import Metadata, Value, encode
from casproxy.wire.status import StatusCode

T = TypeVar("T")
log = logging.getLogger(__name__)

NO_ERROR = 0
INTERNAL_ERROR = 2
CANCEL = 8
_CANCELLED = (StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED)
MESSAGE_GRACE = 0.5
"""Seconds in which a cancelled call may finish the message it is sending; a drain gives it one second in all."""
SMALL_MESSAGE = 16 * 1024
"""Bytes of a request that is cheaper copied and looked at whole than taken in parts."""
GZIP_MINIMUM = 1024
"""Smaller unary answers are not worth compressing."""

_ONE_REQUEST = (MethodKind.UNARY, MethodKind.SERVER_STREAM)
_ONE_RESPONSE = (MethodKind.UNARY, MethodKind.CLIENT_STREAM)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Times in seconds, sizes in bytes."""

    unary_timeout: float
    request_timeout: float
    max_message_size: int


class StreamCall:
    """Implements ``rpc.api.ServerCall``; its contract is there."""

    __slots__ = (
        "_answer",
        "_attached",
        "_connection",
        "_deadline",
        "_head",
        "_headers_sent",
        "_info",
        "_protocol",
        "_request_timeout",
        "_scope",
        "_shutdown",
        "_stream",
        "_trailing",
    )

    def __init__(
        self, info: MethodInfo, head: RequestHead, stream: MessageStream, connection: Connection, limits: CallLimits
    ) -> None:
        self._info = info
        self._head = head
        self._stream = stream
        self._connection = connection
        self._protocol = connection.protocol
        self._request_timeout = limits.request_timeout
        self._deadline = _deadline(head, info, limits.unary_timeout)
        self._attached: dict[type, Any] = {Traffic: stream.traffic}
        self._trailing: tuple[tuple[str, Value], ...] = ()
        self._headers_sent = False
        self._answer: tuple[Buffer, ...] | None = None  # the one response, kept back until the handler is done
        self._scope = trio.CancelScope(deadline=self._deadline)
        self._shutdown = False

    @property
    def info(self) -> MethodInfo:
        return self._info

    @property
    def metadata(self) -> Metadata:
        return self._head.metadata

    @property
    def peer(self) -> str:
        return self._connection.transport.peer

    @property
    def deadline(self) -> float:
        return self._deadline

    def attach(self, value: object) -> None:
        self._attached[type(value)] = value

    def attached(self, kind: type[T]) -> T:
        value = self.find(kind)
        if value is None:
            raise LookupError(f"no {kind.__name__} is attached to this call")
        return value

    def find(self, kind: type[T]) -> T | None:
        return self._attached.get(kind)

    def charge_to(self, payer: str) -> None:
        self._protocol.charge_to(payer)

    def add_trailing_metadata(self, key: str, value: Value) -> None:
        encode(key, value)  # refused here, where the handler is, and not when the call ends
        self._trailing += ((key, value),)

    # -- receiving ------------------------------------------------------------------------------------

    async def receive_message(self) -> bytes | None:
        if self._info.kind not in _ONE_REQUEST:
            return await self._stream.receive_message()
        await trio.lowlevel.checkpoint_if_cancelled()
        if (message := self.receive_only_message_nowait()) is not None:
            self.hand_on(len(message))
            return message
        with trio.move_on_after(self._request_timeout):
            return await self._receive_only_message()
        self._connection.limit_reached("slow_request")
        raise RpcError(StatusCode.DEADLINE_EXCEEDED, f"no request within {self._request_timeout:g} s")

    async def _receive_only_message(self) -> bytes:
        message = await self._stream.receive_message()
        if message is None or await self._stream.receive_message() is not None:
            raise RpcError(StatusCode.UNIMPLEMENTED, f"{self._info.name} takes exactly one message")
        return message

    def receive_parts(self) -> Coroutine[Any, Any, list[Part]]:
        return self._stream.receive_parts()  # not one more coroutine for each call that waits

    def receive_parts_nowait(self) -> list[Part] | None:
        return self._stream.receive_parts_nowait()

    def receive_only_message_nowait(self) -> bytes | None:
        return self._stream.receive_only_message_nowait(SMALL_MESSAGE)

    def hand_on(self, size: int) -> None:
        self._stream.hand_on(size)

    def starved(self) -> bool:
        return self._stream.starved()

    # -- sending --------------------------------------------------------------------------------------

    async def send_message(self, *buffers: Buffer) -> None:
        if self._info.kind in _ONE_RESPONSE:
            if self._answer is not None:
                raise RuntimeError(f"{self._info.name} answers with exactly one message")
            self._answer = buffers
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            self._send_headers()
            await self._stream.send_message(buffers, grace=MESSAGE_GRACE)
        self._stream.traffic.messages_sent += 1
        self._stream.traffic.bytes_sent += sum(map(len, buffers))

    def _send_headers(self, *, gzip: bool = False) -> None:
        if not self._headers_sent:
            self._headers_sent = True
            self._protocol.send_headers(self._stream.id, headers.response_headers(gzip=gzip))

    async def _send_answer(self) -> None:
        if self._answer is None:
            if self._info.kind in _ONE_RESPONSE:
                raise RuntimeError(f"the handler of {self._info.path} sent no answer")
            return
        gzip = self._head.gzip and self._head.accepts_gzip and sum(map(len, self._answer)) >= GZIP_MINIMUM
        await trio.lowlevel.checkpoint_if_cancelled()  # an answer that comes after the deadline is not sent
        if gzip or self._trailing or not self._stream.send_answer_nowait(headers.RESPONSE, self._answer, headers.OK):
            self._send_headers(gzip=gzip)
            await self._stream.send_message(self._answer, gzip=gzip, grace=MESSAGE_GRACE)

    # -- the life of the call -------------------------------------------------------------------------

    def cancel(self) -> None:
        """The peer is gone."""
        self._scope.cancel()

    def shut_down(self) -> None:
        """A drain's grace is over: end with UNAVAILABLE, which clients retry elsewhere."""
        self._shutdown = True
        self._scope.cancel()

    async def run(self, handler: Handler, ended: Callable[[int], None]) -> None:
        """Run the handler in the call's scope and end the stream; leaves nothing behind, whatever happens.

        ``ended`` is told the stream's id at last.
        """
        try:
            with self._scope:
                try:
                    await handler(self)
                    await self._send_answer()
                except RpcError as error:
                    self._end(error.code, error.message, error.details)
                except BrokenMessage as error:
                    self._end(error.code, error.message)
                except StreamGone:
                    pass  # nobody to answer
                else:
                    self._end(StatusCode.OK)
            if self._scope.cancelled_caught:
                self._end_cancelled()
        except Exception:
            log.exception("unexpected error in %s", self._info.path)
            self._end(StatusCode.INTERNAL, "internal error")
        finally:
            self._connection.close_stream(self._stream)
            ended(self._stream.id)

    def _end_cancelled(self) -> None:
        if self._stream.mid_message:
            self._protocol.reset(self._stream.id, CANCEL)
        elif self._shutdown:
            self._end(StatusCode.UNAVAILABLE, "the server is shutting down")
        else:
            self._end(StatusCode.DEADLINE_EXCEEDED, "deadline exceeded")

    def _end(self, code: StatusCode, message: str = "", details: bytes = b"") -> None:
        """Queue the status; then, if the client still sends, RST_STREAM(NO_ERROR) so that it stops (RFC 9113, 8.1)."""
        if self._stream.gone is not None or not self._protocol.can_send(self._stream.id):
            return
        if self._stream.mid_message:
            self._protocol.reset(self._stream.id, CANCEL if code in _CANCELLED else INTERNAL_ERROR)
            return
        status = headers.trailers(code, message, details, self._trailing)
        if not self._headers_sent:
            status = headers.response_headers() + status
            self._headers_sent = True
        self._protocol.send_headers(self._stream.id, status, end=True)
        if not self._protocol.peer_ended(self._stream.id):
            self._protocol.reset(self._stream.id, NO_ERROR)


def _deadline(head: RequestHead, info: MethodInfo, unary_timeout: float) -> float:
    """When a call must be over, on Trio's clock: the client's deadline, and the server's own for unary calls."""
    timeout = min(head.timeout, unary_timeout) if info.kind is MethodKind.UNARY else head.timeout
    return math.inf if math.isinf(timeout) else trio.current_time() + timeout
