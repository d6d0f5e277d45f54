"""What the suites send to a store and fetch from it."""

from __future__ import annotations

import hashlib

from casproxy.digest import Digest
from casproxy.storage.api import Backend, NewResource, Resource

MIB = 1024 * 1024


def content(size: int, seed: int = 0) -> bytes:
    """``size`` bytes that are the same in each run and differ by ``seed``."""
    return hashlib.shake_256(f"{size}/{seed}".encode()).digest(size)


async def put(backend: Backend, data: bytes, *, file_name: str = "a.bin", piece_size: int = 256 * 1024) -> Resource:
    """Store ``data`` under its digest."""
    digest = Digest.of(data)
    async with backend.ingest(NewResource(digest, file_name, len(data))) as ingest:
        for start in range(0, len(data), piece_size):
            await ingest.write(data[start : start + piece_size])
        return await ingest.commit(digest, len(data))


async def get(backend: Backend, digest: Digest, offset: int = 0, limit: int = 0) -> bytes:
    """Read a range, checking the rules for pieces."""
    pieces = []
    async with backend.read(digest, offset, limit) as reader:
        assert reader.resource == await backend.describe(digest)
        while piece := await reader.receive():
            assert 1 <= len(piece) <= MIB
            pieces.append(bytes(piece))
        assert await reader.receive() == b"", "the end stays the end"
    return b"".join(pieces)
