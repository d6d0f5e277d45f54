"""Owns a look at every socket that Trio opens in a test: which addresses were connected to, or that none was."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio


@dataclass(slots=True)
class Connecting(trio.abc.SocketFactory):
    """``addresses``: what somebody tried to connect to. Nothing is connected; it fails as a closed port does."""

    addresses: list[tuple[str, int]] = field(default_factory=list)

    def socket(
        self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
    ) -> trio.socket.SocketType:
        return _Socket(self.addresses)


class _Socket(trio.socket.SocketType):
    def __init__(self, addresses: list[tuple[str, int]]) -> None:
        self._addresses = addresses

    async def connect(self, address: object) -> None:
        await trio.lowlevel.checkpoint()
        assert isinstance(address, tuple)
        self._addresses.append((address[0], address[1]))
        raise ConnectionRefusedError

    def close(self) -> None:
        pass


@contextmanager
def watched_sockets() -> Iterator[Connecting]:
    """Every socket made by Trio in the block is a dead one that tells where it was to go."""
    watcher = Connecting()
    before = trio.socket.set_custom_socket_factory(watcher)
    try:
        yield watcher
    finally:
        trio.socket.set_custom_socket_factory(before)
