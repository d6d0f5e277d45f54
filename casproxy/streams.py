"""Owns moving buffers through a byte stream of any kind: a socket, TLS on one, or what tests have instead.

Refuses to know what the bytes mean. Buffers that are used again, moves that do not wait and gathered writes are for
sockets and TLS on them (``casproxy.sockets``, ``casproxy.tls``); every other stream is asked as Trio's interface says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from casproxy import sockets
from casproxy.sockets import READ_SIZE, Buffer, Received
from casproxy.tls import TlsStream

JOINED_WRITE: Final = 64 * 1024
"""Bytes joined for one ``send_all`` where gathering is not to be had."""


async def receive(stream: trio.abc.Stream, max_bytes: int = READ_SIZE) -> Received:
    """What has arrived, at most ``min(max_bytes, READ_SIZE)`` bytes; ``b""`` at the end of the stream.

    It never changes afterwards, and keeps at most twice its size alive. Cancelled, nothing is lost. Raises
    ``trio.BrokenResourceError`` and ``trio.ClosedResourceError``.
    """
    if isinstance(stream, TlsStream):
        return await stream.receive(max_bytes)
    return await sockets.receive_some(stream, max_bytes)


def receive_nowait(stream: trio.abc.Stream, max_bytes: int = READ_SIZE) -> Received | None:
    """What has arrived, as ``receive`` would give it; None when that would have to wait, or cannot be told."""
    if isinstance(stream, trio.SocketStream):
        return sockets.receive_nowait(stream, max_bytes)
    return stream.receive_nowait(max_bytes) if isinstance(stream, TlsStream) else None


async def send(stream: trio.abc.Stream, buffers: Sequence[Buffer], *, patience: float) -> None:
    """Write all of ``buffers`` in order. Cancelled, an unknown part of them has been written.

    Raises ``trio.TooSlowError`` when the peer takes nothing for ``patience`` seconds (64 KiB at once where gathering
    is not to be had); other errors as above.
    """
    if isinstance(stream, trio.SocketStream):
        await sockets.send_gathered(stream, buffers, patience=patience)
    elif isinstance(stream, TlsStream):
        await stream.send_gathered(buffers, patience=patience)
    else:
        await _send_joined(stream, buffers, patience)


async def _send_joined(stream: trio.abc.Stream, buffers: Sequence[Buffer], patience: float) -> None:
    batch: list[Buffer] = []
    size = 0
    for buffer in buffers:
        batch.append(buffer)
        size += len(buffer)
        if size >= JOINED_WRITE:
            with trio.fail_after(patience):
                await stream.send_all(b"".join(batch))
            batch, size = [], 0
    if batch:
        with trio.fail_after(patience):
            await stream.send_all(b"".join(batch))
