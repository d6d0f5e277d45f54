"""What tests of downloads let the bytes run into."""

from __future__ import annotations


class Collected:
    """A sink that keeps what it got."""

    def __init__(self) -> None:
        self.content = b""

    async def __call__(self, piece: memoryview) -> None:
        self.content += piece
