"""Owns one TCP stream whose writes give up on a peer that takes too little. Refuses to know what is written.

It lies below TLS where there is any, so that what counts as progress is what the peer's kernel has confirmed.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import Any

import structlog
import trio

from casproxy.sockets import READ_SIZE, receive_some
from casproxy.web.pace import Pace, PaceLimits

log = structlog.get_logger("casproxy.web")

_LOOK_SECONDS = 5.0
"""How often the progress of a peer is looked at while it takes nothing."""


class PacedStream(trio.abc.HalfCloseableStream):
    """``stream`` with a least pace. One task receives, one task sends."""

    def __init__(self, stream: trio.SocketStream, limits: PaceLimits) -> None:
        self._stream = stream
        self._limits = limits

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; ``trio.BrokenResourceError`` when the peer is gone, or takes less than it must."""
        left, pace, waiting = memoryview(data), Pace(self._limits), _unacknowledged(self._stream.socket)
        while left:
            began, sent = trio.current_time(), 0
            with trio.move_on_after(min(pace.left, _LOOK_SECONDS)):
                try:
                    sent = await self._stream.socket.send(left)
                except (OSError, trio.ClosedResourceError) as error:
                    raise trio.BrokenResourceError("the peer is gone") from error
            before, waiting = waiting, _unacknowledged(self._stream.socket)
            pace.waited(trio.current_time() - began, max(sent, before + sent - waiting))
            if pace.exhausted:
                log.info("a client reads too slowly", idle_timeout=self._limits.idle_timeout)
                raise trio.BrokenResourceError("the peer reads too slowly")
            left = left[sent:]

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Part of ``trio.abc.ReceiveStream``."""
        return bytes(await receive_some(self._stream, max_bytes or READ_SIZE))

    async def wait_send_all_might_not_block(self) -> None:
        """Part of ``trio.abc.SendStream``."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Part of ``trio.abc.HalfCloseableStream``."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Part of ``trio.abc.AsyncResource``."""
        await self._stream.aclose()


def _unacknowledged(connection: Any) -> int:
    """Bytes that the kernel has of us and the peer's has not confirmed (tcp(7), SIOCOUTQ); 0 where nobody can tell."""
    try:
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # ValueError: closed meanwhile, its number is -1
        return 0
    return int(struct.unpack("i", answer)[0])
