"""The faults happen where they are asked for, and nowhere else."""

from __future__ import annotations

import pytest
import trio

from casproxy.digest import Digest
from casproxy.errors import BackendUnavailable
from casproxy.storage.api import NewResource
from casproxy.storage.memory import MemoryBackend
from casproxy_tests.conformance.traffic import get, put
from casproxy_tests.fakes.faulty_backend import Fault, FaultyBackend, Operation

DOWN = BackendUnavailable("down")
DATA = b"0123456789"


@pytest.mark.parametrize("operation", ["ingest", "write", "commit", "leave_ingest"])
async def test_an_upload_fails_once_where_it_is_told(operation: Operation) -> None:
    backend = FaultyBackend(MemoryBackend(), Fault(operation, error=DOWN))
    with pytest.raises(BackendUnavailable):
        await put(backend, DATA)
    assert backend.open_ingests == 0
    assert await get(backend, (await put(backend, DATA)).digest) == DATA


async def test_a_late_commit_fault_comes_after_the_artifact_is_visible() -> None:
    backend = FaultyBackend(MemoryBackend(), Fault("commit", error=DOWN, late=True))
    with pytest.raises(BackendUnavailable):
        await put(backend, DATA)
    assert await get(backend, Digest.of(DATA)) == DATA


async def test_a_write_fails_at_its_byte() -> None:
    backend = FaultyBackend(MemoryBackend(), Fault("write", after_bytes=7, error=DOWN))
    async with backend.ingest(NewResource(Digest.of(DATA), "a")) as ingest:
        await ingest.write(DATA[:6])
        with pytest.raises(BackendUnavailable):
            await ingest.write(DATA[6:])
    assert backend.calls == {"ingest": 1, "write": 2, "leave_ingest": 1}


async def test_a_read_stalls_until_it_is_cancelled() -> None:
    backend = FaultyBackend(MemoryBackend(), fault := Fault("receive", after_bytes=4, stall=True))
    digest = (await put(backend, DATA, piece_size=3)).digest
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, backend, digest)
        await fault.reached.wait()
        assert backend.open_readers == 1
        nursery.cancel_scope.cancel()
    assert backend.open_readers == 0
    assert backend.calls["receive"] == 2


async def test_a_flipped_byte_is_the_artifacts_byte_whatever_the_range() -> None:
    backend = FaultyBackend(MemoryBackend(), Fault("receive", flip=5))
    digest = (await put(backend, DATA)).digest
    assert await get(backend, digest, 6) == DATA[6:]
    assert await get(backend, digest, 4) == bytes([DATA[4], DATA[5] ^ 0xFF]) + DATA[6:]
    assert await get(backend, digest) == DATA
