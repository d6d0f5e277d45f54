"""A paced stream ends in the ways that its users expect of any stream."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
import trio

from casproxy.web.pace import PaceLimits
from casproxy.web.paced import PacedStream


@pytest.fixture
async def stream() -> AsyncIterator[PacedStream]:
    ours, peers = socket.socketpair()
    with peers:
        async with PacedStream(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), PaceLimits(60.0, 1.0)) as paced:
            yield paced


async def test_nothing_can_be_sent_once_it_is_closed(stream: PacedStream) -> None:
    """A probe that leaves as soon as it has its answer closes it between two writes of ours."""
    await stream.aclose()
    await stream.send_all(b"")
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"more")
