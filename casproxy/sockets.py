"""Owns moving bytes through a socket: buffers that are used again, moves that do not wait, room to send in one go.

Refuses to know what the bytes mean.

``socket.recv(512 KiB)`` allocates 512 KiB, most of it pages that the kernel has to clear first, and cuts off what did
not arrive: the next read needs 512 KiB in one run, and the heap grows by holes that nothing fits into. So the kernel
fills one of a few buffers that each thread keeps. What fills half of it or more is given out as a view, without a
copy; less is copied out, so that nobody who holds a little keeps much alive. A buffer is used again when no view of
it is left: until then a ``bytearray`` refuses to change its size (decisions 0024 and 0029).

Trio has no call that moves bytes only if it need not wait. Without one, each read and write costs a scope for the
case that it has to, and a turn of the event loop: 20 µs.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final, TypeAlias

import trio

from casproxy.turns import give_way

READ_SIZE: Final = 512 * 1024
"""The most bytes of one read: fewer wake-ups per megabyte, and what is read still fits into a core's cache."""
KEPT_BUFFERS: Final = 16
"""Buffers that a thread keeps: 8 MiB, once that many were in use together."""

NEAR_SECONDS: Final = 0.0005
"""Round trip up to which a peer is near: on this machine, or in the same rack."""
NEAR_SEND_BUFFER: Final = 512 * 1024
"""Bytes (the kernel doubles it for its own books): at 0.5 ms enough for a gigabyte a second."""
_TCP_INFO_SIZE: Final = 72
_TCP_INFO_RTT: Final = struct.Struct("=I")
_TCP_INFO_RTT_OFFSET: Final = 68
"""Of ``tcpi_rtt``, microseconds, in ``struct tcp_info`` (linux/tcp.h)."""

GATHER: Final = 256
"""Buffers of one gathered write; Linux takes 1024 at most."""

Received: TypeAlias = bytes | memoryview
Buffer: TypeAlias = bytes | bytearray | memoryview


class _Buffers(threading.local):
    """A thread's own. ``current``: where the next read goes; no view of it is out."""

    def __init__(self) -> None:
        self._kept: list[bytearray] = []
        self.renew()

    def renew(self) -> None:
        """``current`` was given out: take another that is not, or a new one."""
        for buffer in self._kept:
            if _is_unused(buffer):
                break
        else:
            buffer = bytearray(READ_SIZE)
            if len(self._kept) < KEPT_BUFFERS:
                self._kept.append(buffer)
        self.current = buffer


def _is_unused(buffer: bytearray) -> bool:
    """No view of it is left, nor of a part of it: its size may be changed (and is not, in the end)."""
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True


_buffers = _Buffers()


async def receive_some(stream: trio.abc.ReceiveStream, max_bytes: int = READ_SIZE) -> Received:
    """What has arrived, at most ``min(max_bytes, READ_SIZE)`` bytes; ``b""`` at the end of the stream.

    It never changes afterwards, and keeps at most twice its size alive. Cancelled, nothing has been taken. Raises
    ``trio.BrokenResourceError`` and ``trio.ClosedResourceError`` as a ``trio.SocketStream`` does; any other stream is
    asked for the bytes itself.
    """
    if not isinstance(stream, trio.SocketStream):
        return bytes(await stream.receive_some(min(max_bytes, READ_SIZE)))
    while True:
        await wait_readable(stream)  # first: whoever believes that something is there asks ``receive_nowait``
        if (received := receive_nowait(stream, max_bytes)) is not None:
            return received


async def wait_readable(stream: trio.SocketStream) -> None:
    """Wait until a read has something to say. Errors as above."""
    if stream.socket.fileno() < 0:
        raise trio.ClosedResourceError("this socket was already closed")
    try:
        await trio.lowlevel.wait_readable(stream.socket)
    except OSError as error:
        raise _as_trio(error) from error


def receive_nowait(stream: trio.SocketStream, max_bytes: int = READ_SIZE) -> Received | None:
    """What has arrived, as ``receive_some`` would give it; None when that would have to wait."""
    room = scratch()[:max_bytes]
    size = read_into(stream, room)
    return None if size is None else given_out(room[:size])


def scratch() -> memoryview:
    """This thread's buffer of ``READ_SIZE`` bytes for one read: everybody else's as soon as one has to wait."""
    return memoryview(_buffers.current)


def read_into(stream: trio.SocketStream, room: memoryview) -> int | None:
    """Put what has arrived into ``room``; how many bytes, 0 at the end, None when one has to wait. Errors as above."""
    try:
        return os.readv(stream.socket.fileno(), [room])
    except BlockingIOError:
        return None
    except OSError as error:
        raise _as_trio(error) from error


def given_out(filled: memoryview) -> Received:
    """What was put into a part of ``scratch()``, to be kept: the view, if that is half of the buffer, or a copy."""
    if len(filled) * 2 < READ_SIZE:
        return bytes(filled)
    _buffers.renew()
    return filled


def send_nowait(stream: trio.SocketStream, buffers: Sequence[Buffer]) -> int:
    """Write of ``buffers``, at most ``GATHER``, in order what the kernel takes now; how many bytes. Errors as above."""
    try:
        return os.writev(stream.socket.fileno(), buffers)
    except BlockingIOError:
        return 0
    except OSError as error:
        raise _as_trio(error) from error


async def send_gathered(stream: trio.SocketStream, buffers: Sequence[Buffer], *, patience: float) -> bool:
    """Write all of ``buffers`` in order; whether the kernel took them at once. Cancelled, an unknown part is written.

    Raises ``trio.TooSlowError`` when the peer takes nothing for ``patience`` seconds; other errors as above.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    unsent = deque(buffer for buffer in buffers if len(buffer))  # an empty one at the end would never count as sent
    at_once = True
    while unsent:
        await give_way()
        sent = send_nowait(stream, list(islice(unsent, GATHER)))
        if not sent:
            at_once = False
            with trio.fail_after(patience):
                await trio.lowlevel.wait_writable(stream.socket)
        while sent:
            first = unsent.popleft()
            if len(first) > sent:
                unsent.appendleft(memoryview(first)[sent:])
                break
            sent -= len(first)
    return at_once


def make_room_for_near_peer(stream: trio.SocketStream) -> None:
    """Give the socket to a near peer a send buffer that takes half a mebibyte at once; leave any other to the kernel.

    The kernel begins with 16 KiB and grows with what is in flight. A near peer acknowledges so fast that hardly
    anything ever is: a piece of 1 MiB takes six writes and wakes the peer as often (measured on loopback: 570 MB/s and
    1.6 CPU s/GB, with the buffer 750 and 1.25). A fixed size switches that growth off, which a peer far away needs.
    """
    if stream.socket.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        info = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        (microseconds,) = _TCP_INFO_RTT.unpack_from(info, _TCP_INFO_RTT_OFFSET)
        if 0 < microseconds <= NEAR_SECONDS * 1e6:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NEAR_SEND_BUFFER)
    except OSError:
        pass  # it is closed already: whoever uses it next hears that


def _as_trio(error: OSError) -> Exception:
    if error.errno == errno.EBADF:
        return trio.ClosedResourceError("this socket was already closed")
    return trio.BrokenResourceError(f"socket connection broken: {error}")
