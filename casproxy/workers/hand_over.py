"""Owns the way of a connection from one process to another. Refuses to know which one should get it, and gRPC.

A ``SOCK_SEQPACKET`` socket keeps messages apart: each is one byte, the door, with one descriptor beside it
(``SCM_RIGHTS``, unix(7)). The kernel holds what is on its way, so a connection is never without an owner; if the worker
dies before it takes one, the connection is closed.
"""

from __future__ import annotations

import array
import math
import socket
from collections.abc import Callable
from typing import Final

import structlog
import trio

from casproxy.workers.messages import DOORS

log = structlog.get_logger("casproxy.workers")

_ONE: Final = array.array("i", [0]).itemsize


class WorkerGone(Exception):
    """The worker has ended; the connection is still the caller's."""


def socket_pair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    """Two ends of a private Unix socket."""
    return socket.socketpair(socket.AF_UNIX, kind)


class Giver:
    """The supervisor's end. ``end`` belongs to the caller."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = trio.socket.from_stdlib_socket(end)

    async def give(self, door: str, connection: trio.socket.SocketType) -> None:
        """Hand over a connection; the caller closes its own copy afterwards. ``WorkerGone``."""
        rights = array.array("i", [connection.fileno()])
        try:
            await self._socket.sendmsg(
                [bytes([DOORS.index(door)])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights.tobytes())]
            )
        except ConnectionError as error:
            raise WorkerGone from error


class Door(trio.abc.Listener[trio.SocketStream]):
    """The worker's side of one port: a listener whose connections somebody else accepted."""

    def __init__(self) -> None:
        self._put, self._waiting = trio.open_memory_channel[trio.socket.SocketType](math.inf)
        self._live: list[trio.socket.SocketType] = []
        self._shut = False
        self.taken = 0
        """Connections that were ever handed to this door."""

    def put(self, connection: socket.socket) -> None:
        """Let ``connection`` be accepted; closed when the door is."""
        self.taken += 1
        if self._shut:
            connection.close()
            return
        handed = trio.socket.from_stdlib_socket(connection)
        self._live.append(handed)
        self._put.send_nowait(handed)

    def count_open(self) -> int:
        """Connections that were handed to this door and are not closed, accepted or not."""
        self._live = [one for one in self._live if one.fileno() != -1]
        return len(self._live)

    async def accept(self) -> trio.SocketStream:
        """The next connection. ``trio.ClosedResourceError`` once closed."""
        return trio.SocketStream(await self._waiting.receive())

    async def aclose(self) -> None:
        """Close the door, and what nobody has accepted yet."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """See ``aclose``."""
        self._shut = True
        while self._waiting.statistics().current_buffer_used:
            self._waiting.receive_nowait().close()
        self._waiting.close()


class Taker:
    """The worker's end. ``end`` belongs to the caller; ``on_take`` is called after each connection."""

    def __init__(self, end: socket.socket, on_take: Callable[[], None]) -> None:
        self._socket = trio.socket.from_stdlib_socket(end)
        self.doors = {name: Door() for name in DOORS}
        self._on_take = on_take

    async def run(self) -> None:
        """Take connections until the supervisor is gone."""
        while True:
            try:
                data, rights, _flags, _from = await self._socket.recvmsg(
                    1, socket.CMSG_SPACE(_ONE), socket.MSG_CMSG_CLOEXEC
                )
            except ConnectionError:
                return
            if not data:
                return
            self._take(self.doors[DOORS[data[0]]], rights)
            self._on_take()

    def close(self) -> None:
        """Close all doors."""
        for door in self.doors.values():
            door.close()

    def _take(self, door: Door, rights: list[tuple[int, int, bytes]]) -> None:
        descriptors = array.array("i")
        for _level, _kind, data in rights:
            descriptors.frombytes(data[: len(data) - len(data) % _ONE])
        for descriptor in descriptors:
            door.put(socket.socket(fileno=descriptor))
        if not descriptors:  # MSG_CTRUNC: the kernel had no free descriptor of this process for it, and closed it
            door.taken += 1
            log.error("a connection was lost: this worker has no free file descriptor; raise its limit (ulimit -n)")
