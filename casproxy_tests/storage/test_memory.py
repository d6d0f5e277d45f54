"""What the store in memory promises beyond the contract: its cap, and no joins."""

from __future__ import annotations

import pytest

from casproxy.digest import Digest
from casproxy.errors import StorageFull
from casproxy.storage.api import NewResource
from casproxy.storage.memory import MemoryBackend
from casproxy_tests.conformance.traffic import get, put


async def test_the_cap_counts_what_is_stored_and_what_is_coming_in() -> None:
    backend = MemoryBackend(max_bytes=10)
    await put(backend, b"123456")
    async with backend.ingest(NewResource(Digest.of(b"abcd"), "a")) as ingest:
        await ingest.write(b"abcd")
        assert backend.held_bytes == 10
        with pytest.raises(StorageFull):
            await put(backend, b"x")
        await backend.check_writable()
    assert backend.held_bytes == 6
    assert await get(backend, (await put(backend, b"abcd")).digest) == b"abcd"


async def test_a_second_copy_is_not_counted() -> None:
    backend = MemoryBackend(max_bytes=10)
    for _ in range(3):
        await put(backend, b"12345")
    assert backend.held_bytes == 5


async def test_pieces_are_handed_out_as_they_came() -> None:
    backend = MemoryBackend()
    pieces = [b"a" * 1000, b"b" * 1000]
    digest = Digest.of(b"".join(pieces))
    async with backend.ingest(NewResource(digest, "a")) as ingest:
        for piece in pieces:
            await ingest.write(piece)
        await ingest.commit(digest, 2000)
    async with backend.read(digest) as reader:
        assert await reader.receive() is pieces[0]
        assert await reader.receive() is pieces[1]
