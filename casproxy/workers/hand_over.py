"""Owns the way of a connection from one process to another. Refuses to know which one should get it, and gRPC.

A ``SOCK_SEQPACKET`` socket keeps messages apart: each is one byte, the door, with one descriptor beside it
(``SCM_RIGHTS``, unix(7)). The kernel holds what is on its way, so a connection is never without an owner; what a worker
had not taken when it ended, its supervisor takes back.
"""

from __future__ import annotations

import array
import math
import socket
from collections.abc import Callable
from typing import Final, TypeAlias

import structlog
import trio

from casproxy.workers.messages import DOORS

log = structlog.get_logger("casproxy.workers")

_ONE: Final = array.array("i", [0]).itemsize
_ROOM: Final = socket.CMSG_SPACE(_ONE)
_Rights: TypeAlias = list[tuple[int, int, bytes]]


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
                data, rights, _flags, _from = await self._socket.recvmsg(1, _ROOM, socket.MSG_CMSG_CLOEXEC)
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

    def _take(self, door: Door, rights: _Rights) -> None:
        connections = _connections(rights)
        for connection in connections:
            door.put(connection)
        if not connections:
            door.taken += 1


def take_back(end: socket.socket) -> list[tuple[str, socket.socket]]:
    """Door and connection of all that a worker has not taken, once it has ended.

    ``end``: where it took them from; nothing more comes that way (``shutdown`` of the other end).
    """
    untaken: list[tuple[str, socket.socket]] = []
    while True:
        data, rights, _flags, _from = end.recvmsg(1, _ROOM, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
        if not data:
            return untaken
        untaken += [(DOORS[data[0]], connection) for connection in _connections(rights)]


def _connections(rights: _Rights) -> list[socket.socket]:
    """What came beside one message: one connection, and none when it was lost."""
    descriptors = array.array("i")
    for _level, _kind, data in rights:
        descriptors.frombytes(data[: len(data) - len(data) % _ONE])
    if not descriptors:  # MSG_CTRUNC: the kernel had no free descriptor of this process for it, and closed it
        log.error("a connection was lost: this process has no free file descriptor; raise its limit (ulimit -n)")
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]
