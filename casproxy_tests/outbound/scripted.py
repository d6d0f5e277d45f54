"""A server that is a script: it hears bytes and says bytes, on memory streams, by whichever clock there is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import trio
import trio.testing

from casproxy.outbound.address import Origin, Url
from casproxy.outbound.connection import Connection
from casproxy.outbound.message import Buffer, Head, Timeouts

ORIGIN = Origin("http", "registry.example", 80)
TIMEOUTS = Timeouts(connect=1.0, write=2.0, answer=3.0, read=4.0)


class Line:
    """The server's end of a connection."""

    def __init__(self, stream: trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]):
        self.stream = stream
        self.heard = b""

    async def hear(self, until: bytes) -> bytes:
        """Everything up to and with ``until``."""
        while until not in self.heard:
            data = await self.stream.receive_some()
            assert data, f"closed before {until!r}; heard {self.heard!r}"
            self.heard += data
        found, _, self.heard = self.heard.partition(until)
        return found + until

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def hang_up(self) -> None:
        await self.stream.aclose()

    async def closed(self) -> None:
        """Wait until the client has closed."""
        while data := await self.stream.receive_some():
            self.heard += data


Script: TypeAlias = Callable[[Line], Awaitable[None]]


@dataclass
class Server:
    """A ``Dial`` whose connections follow ``scripts``, one after another, in ``nursery``."""

    nursery: trio.Nursery
    scripts: list[Script]
    dialled: list[Origin] = field(default_factory=list)

    async def __call__(self, origin: Origin) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.dialled.append(origin)
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.scripts.pop(0), Line(theirs))
        return ours

    async def connect(self) -> Connection:
        return Connection(await self(ORIGIN), ORIGIN, TIMEOUTS)


class Pieces:
    """A ``Body`` of ``pieces``; after them it ends, or waits for ever."""

    def __init__(self, *pieces: bytes, size: int | None = None, silent: bool = False) -> None:
        self.size = size
        self.answers: list[Head] = []
        self._pieces = list(pieces)
        self._silent = silent

    async def receive(self) -> Buffer:
        await trio.lowlevel.checkpoint()
        if not self._pieces and self._silent:
            await trio.sleep_forever()
        return self._pieces.pop(0) if self._pieces else b""

    def answered(self, answer: Head) -> None:
        self.answers.append(answer)


def url(target: str) -> Url:
    return Url(ORIGIN, target)
