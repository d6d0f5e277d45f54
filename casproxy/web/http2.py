"""Owns what Hypercorn's HTTP/2 leaves undone. Refuses to know applications. Source: RFC 9113.

* A response that an application gives up is reset, so that nobody takes it for complete (it was left hanging).
* A stream without credit holds its application (it was buffered without bound), and a peer that gives no credit for
  too long loses its stream.
* Credit for a request's body goes back when the application took it: a slow store slows its own client only.
* Data for a stream that has ended is discarded and its credit given back (it broke the connection); a request that was
  answered before its end is then reset with NO_ERROR (RFC 9113, section 8.1).
* CONNECT, and a path that is not ASCII, cost their sender its stream (they broke the connection).
* When the connection ends, nobody waits for its buffers any more.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import h2.events
import trio
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.events import Closed, Event
from hypercorn.protocol.events import Body, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import H2Protocol

from casproxy.web.inbox import Inbox
from casproxy.web.pace import Pace, PaceLimits

_FRAME_BYTES = 16 * 1024
_LINGER_SECONDS = 1.0


class Http2(H2Protocol):
    """One HTTP/2 connection: a mended ``H2Protocol``."""

    def __init__(self, *args: object, pace: PaceLimits) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._pace = pace
        self._requests_open: set[int] = set()

    async def handle(self, event: Event) -> None:
        await super().handle(event)
        if isinstance(event, Closed):
            for buffer in self.stream_buffers.values():
                await buffer.close()

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Body):
            await self._send_body(event)
            return
        if isinstance(event, StreamClosed):
            await self._give_up_unless_complete(event.stream_id)
        await super().stream_send(event)

    async def _send_body(self, event: Body) -> None:
        """Frame by frame, as fast as the peer gives credit, but no slower than allowed."""
        pace, view = Pace(self._pace), memoryview(event.data)
        for start in range(0, len(view), _FRAME_BYTES):
            began = trio.current_time()
            with trio.move_on_after(pace.left) as patience:
                frame = Body(event.stream_id, bytes(view[start : start + _FRAME_BYTES]))
                await super().stream_send(frame)
            pace.waited(trio.current_time() - began, len(frame.data))
            if patience.cancelled_caught or pace.exhausted:
                await self._reset(event.stream_id, ErrorCodes.CANCEL)
                await self._close_stream(event.stream_id)
                return

    async def _give_up_unless_complete(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        if buffer is not None and not buffer._complete:
            await self._reset(stream_id, ErrorCodes.INTERNAL_ERROR)

    async def _reset(self, stream_id: int, code: ErrorCodes) -> None:
        with suppress(ProtocolError):  # the peer may have been faster
            self.connection.reset_stream(stream_id, code)
        self._requests_open.discard(stream_id)
        buffer = self.stream_buffers.get(stream_id)
        if buffer is not None:
            await buffer.close()
            self.priority.unblock(stream_id)  # the sending task removes it
            await self.has_data.set()
        await self._flush()

    async def _send_data(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        if buffer is not None and buffer.buffer and not self._has_credit(stream_id):
            self.priority.block(stream_id)
            return
        await super()._send_data(stream_id)
        if stream_id not in self.stream_buffers and stream_id in self._requests_open:
            self.task_group.spawn(self._end_request, stream_id)

    async def _end_request(self, stream_id: int) -> None:
        """Stop a client that goes on sending after its answer. Not at once: some (curl 7) would lose the answer."""
        await trio.sleep(_LINGER_SECONDS)
        if stream_id in self._requests_open and not self.closed:
            await self._reset(stream_id, ErrorCodes.NO_ERROR)

    def _has_credit(self, stream_id: int) -> bool:
        try:
            return bool(self.connection.local_flow_control_window(stream_id) > 0)
        except ProtocolError:
            return True  # the stream is gone, which the base class finds out by trying to send

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                await self._take(event)
                continue
            if isinstance(event, h2.events.RequestReceived):
                self._requests_open.add(event.stream_id)
                if not _can_be_served(event):
                    await self._reset(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
                    continue
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                self._requests_open.discard(event.stream_id)
            await super()._handle_events([event])
        await self._flush()

    async def _take(self, event: h2.events.DataReceived) -> None:
        stream = self.streams.get(event.stream_id)
        size = event.flow_controlled_length or 0
        held = len(event.data or b"") if stream is not None else 0
        self._give_back(event.stream_id, size - held)  # padding, or data for nobody
        if stream is not None:
            await stream.handle(Body(stream_id=event.stream_id, data=event.data or b""))

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        await super()._create_stream(request)
        inbox: Any = getattr(self.streams.get(request.stream_id), "app_put", None)
        if isinstance(inbox, Inbox):  # before its application had a chance to run
            inbox.taken = partial(self._taken, request.stream_id)

    async def _taken(self, stream_id: int, size: int) -> None:
        if size:
            self._give_back(stream_id, size)
            await self._flush()

    def _give_back(self, stream_id: int, size: int) -> None:
        if size:
            self.connection.acknowledge_received_data(size, stream_id)


def _can_be_served(request: h2.events.RequestReceived) -> bool:
    headers = dict(request.headers or [])
    return headers.get(b":method") != b"CONNECT" and headers.get(b":path", b"\xff").isascii()
