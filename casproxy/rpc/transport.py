"""Owns moving buffers through a byte stream: gathered writes, the peer's name. Refuses to know HTTP/2."""

from __future__ import annotations

from typing import Final

import trio

from casproxy import streams
from casproxy.sockets import Received, make_room_for_near_peer
from casproxy.tls import socket_beneath
from casproxy.wire.framing import Buffer

SMALL: Final = 1024
"""Bytes of a buffer that is joined with its small neighbours: a place of its own in a gathered write costs more."""
DRAINED: Final = 4 * 1024
"""A read of fewer bytes found the end of what had arrived: another at once would most likely find nothing."""


class Transport:
    """A ``trio.abc.Stream`` as this package uses it. One task receives, one task sends.

    Cancelled in ``send``: an unknown part has been sent; the transport can only be closed.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._drained = False
        self.peer = peer_name(stream)
        if (beneath := socket_beneath(stream)) is not None:
            make_room_for_near_peer(beneath)

    async def receive(self) -> Received:
        """The next bytes; ``b""`` at the end of the stream or when it broke."""
        try:
            data = await streams.receive(self._stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""
        self._drained = len(data) < DRAINED
        return data

    def receive_nowait(self) -> Received | None:
        """What is there already, ``b""`` at the end of the stream or when it broke; None when one may have to wait."""
        if self._drained:
            self._drained = False
            return None
        try:
            return streams.receive_nowait(self._stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    async def send(self, buffers: list[Buffer], *, patience: float) -> None:
        """Write all buffers in order.

        Raises ``trio.BrokenResourceError`` when the peer is gone, and ``trio.TooSlowError`` when it takes nothing for
        ``patience`` seconds (64 KiB at once where gathering is not to be had).
        """
        await streams.send(self._stream, _joined(buffers), patience=patience)

    async def aclose(self) -> None:
        """Close without ceremony: HTTP/2 said its goodbye already."""
        await trio.aclose_forcefully(self._stream)


def _joined(buffers: list[Buffer]) -> list[Buffer]:
    """The same bytes, runs of small buffers as one: frame headers, prefixes, and many small answers at once."""
    joined: list[Buffer] = []
    run: list[Buffer] = []
    for buffer in buffers:
        if len(buffer) < SMALL:
            run.append(buffer)
            continue
        if run:
            joined.append(run[0] if len(run) == 1 else b"".join(run))
            run = []
        joined.append(buffer)
    if run:
        joined.append(b"".join(run))
    return joined


def peer_name(stream: trio.abc.Stream) -> str:
    """``host:port`` of the other end, ``[host]:port`` for IPv6, the kind of stream when it has no address."""
    beneath = socket_beneath(stream)
    if beneath is None:
        return type(stream).__name__
    try:
        host, port = beneath.socket.getpeername()[:2]
    except OSError:
        return "gone"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
