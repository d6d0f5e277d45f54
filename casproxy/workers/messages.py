"""Owns what supervisor and worker say to each other, and how it travels: lengths and MessagePack on a Unix socket.

::

    supervisor                                              worker
        │ Orders: number, configuration, addresses ──────────▶ │  first, once
        │ ◀───────────────────── State: what it serves and has │  on change, and once a second
        │ Scrape ────────────────────────────────────────────▶ │
        │ ◀──────────────────────────────── Snapshot: metrics  │  on request, and last
        │ Drain ─────────────────────────────────────────────▶ │
        │ ◀──────────────────────────── Failed: why it gave up │
        │ end of stream: the other process is gone             │

The socket is private to the two processes, and so are the secrets of the configuration that go over it. A worker that
is started again gets the configuration that the supervisor read at its own start, whatever the files say by then.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import trio

from casproxy.config import Config
from casproxy.config.kinds import SecretStr
from casproxy.workers.merge import Family

GRPC, HTTP = "grpc", "http"
DOORS: Final = (GRPC, HTTP)

_LENGTH: Final = struct.Struct(">I")
_READ_BYTES: Final = 256 * 1024


class Orders(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """All that a worker is told at its start. ``ports``: what nobody may make it connect to.

    ``version``: the supervisor's; files that were replaced under a running service must not make a mixture of two.
    """

    number: int
    version: str
    config: Config
    addresses: dict[str, str]
    ports: tuple[int, ...]


class Scrape(msgspec.Struct, frozen=True, tag=True):
    """Send a ``Snapshot`` with this serial number."""

    serial: int


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Take nothing new, let what is in flight end, then exit."""


class State(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """How a worker is. ``taken``: connections it was ever handed, by door; ``open``: those still open, by door.

    ``started``: its start-up is over. ``not_ready``: why it should get no traffic, empty when it should.
    """

    started: bool = False
    draining: bool = False
    not_ready: str = ""
    taken: dict[str, int] = {}
    open: dict[str, int] = {}
    calls: int = 0


class Snapshot(msgspec.Struct, frozen=True, tag=True):
    """The metrics of a worker now; ``serial`` as it was asked, 0 for the last one, unasked, before it exits."""

    serial: int
    families: list[Family]


class Failed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A worker gives up. ``kind``: ``config`` for a ``ConfigError``, ``os`` for an ``OSError``, else ``unexpected``."""

    kind: str
    text: str
    errno: int = 0
    file: str = ""


Message: TypeAlias = Orders | Scrape | Drain | State | Snapshot | Failed


class Link:
    """One end of the messages' way. Any number of tasks may send; one receives."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._sending = trio.Lock()
        self._unread = bytearray()

    async def send(self, message: Message) -> None:
        """Send one message. ``trio.BrokenResourceError``: the other process is gone. Cancelled: the link is broken."""
        body = _encoder.encode(message)
        async with self._sending:
            await self._stream.send_all(_LENGTH.pack(len(body)) + body)

    async def receive(self) -> Message | None:
        """The next message; None when the other process is gone. Cancelled: nothing is lost."""
        while (message := self._next()) is None:
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data:
                return None
            self._unread += data
        return message

    def _next(self) -> Message | None:
        if len(self._unread) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._unread)[0]
        if len(self._unread) < end:
            return None
        message: Message = _decoder.decode(memoryview(self._unread)[_LENGTH.size : end].tobytes())
        del self._unread[:end]
        return message


def _plain(value: Any) -> Any:
    """What MessagePack has no form for, of all that a configuration holds."""
    if isinstance(value, SecretStr):
        return value.reveal()
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value).__name__)


def _made(kind: type, value: Any) -> Any:
    if kind is SecretStr or issubclass(kind, Path):
        return kind(value)
    raise NotImplementedError(kind.__name__)


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=_plain)
_decoder: Final = msgspec.msgpack.Decoder(Message, dec_hook=_made)
