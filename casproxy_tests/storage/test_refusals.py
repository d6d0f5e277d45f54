"""Whoever keeps secrets hears of every refusal, from whichever method, and of nothing else."""

from __future__ import annotations

import pytest

from casproxy.digest import Digest
from casproxy.errors import ArtifactNotFound, BackendRefused, BackendUnavailable
from casproxy.storage.api import Backend, NewResource
from casproxy.storage.memory import MemoryBackend
from casproxy.storage.refusals import RefusalTeller
from casproxy_tests.conformance.traffic import get, put
from casproxy_tests.fakes.faulty_backend import Fault, FaultyBackend, Operation

BODY = b"an artifact"
DIGEST = Digest.of(BODY)


async def everything(backend: Backend) -> None:
    await backend.check_writable()
    await put(backend, BODY)
    await backend.describe(DIGEST)
    assert await get(backend, DIGEST) == BODY


async def test_what_goes_well_is_not_told() -> None:
    told: list[int] = []
    await everything(RefusalTeller(MemoryBackend(), lambda: told.append(1)))
    assert not told


@pytest.mark.parametrize(
    "operation", ["check_writable", "ingest", "write", "commit", "describe", "read", "receive", "leave_read"]
)
async def test_a_refusal_is_told_and_passed_on(operation: Operation) -> None:
    told: list[int] = []
    error = BackendRefused("no")
    backend = RefusalTeller(FaultyBackend(MemoryBackend(), Fault(operation, error)), lambda: told.append(1))
    with pytest.raises(BackendRefused) as caught:
        await everything(backend)
    assert caught.value is error and told


@pytest.mark.parametrize("error", [BackendUnavailable("down"), ArtifactNotFound(DIGEST)])
async def test_other_errors_are_not_told(error: Exception) -> None:
    told: list[int] = []
    backend = RefusalTeller(FaultyBackend(MemoryBackend(), Fault("describe", error)), lambda: told.append(1))
    with pytest.raises(type(error)):
        await backend.describe(DIGEST)
    assert not told


async def test_a_refusal_reaches_through_a_reader_and_an_ingest_that_are_used_elsewhere() -> None:
    """A nursery in between makes a group of the error, which the end of the block would not recognise."""
    told: list[int] = []
    faults = (Fault("write", BackendRefused("no")), Fault("receive", BackendRefused("no")))
    backend = RefusalTeller(FaultyBackend(MemoryBackend(), *faults), lambda: told.append(1))
    async with backend.ingest(NewResource(DIGEST, "name", len(BODY))) as ingest:
        with pytest.raises(BackendRefused):
            await ingest.write(BODY)
    assert len(told) == 1
    await put(backend, BODY)
    async with backend.read(DIGEST) as reader:
        assert reader.resource.size == len(BODY)
        with pytest.raises(BackendRefused):
            await reader.receive()
    assert len(told) == 2
