"""The wrapper that times requests: it reports each of them, and changes nothing."""

from __future__ import annotations

import pytest
import trio

from casproxy.digest import Digest
from casproxy.errors import (
    ArtifactNotFound,
    BackendBroken,
    BackendNotFound,
    BackendRefused,
    BackendUnavailable,
    OffsetOutOfRange,
)
from casproxy.observe.timed import RESULTS, result_of
from casproxy.storage.api import Backend, NewResource, Resource, Tenant
from casproxy.storage.memory import MemoryBackend
from casproxy.storage.wrappers.observed import OPERATIONS, ObservedBackend, ObservedResolver
from casproxy_tests.cancellation.harness import Run, cancel_everywhere
from casproxy_tests.fakes.faulty_backend import Fault, FaultyBackend

DATA = b"observed"
DIGEST = Digest.of(DATA)


class Reports:
    """What was reported, as (operation, result)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def __call__(self, backend: str, operation: str, result: str, seconds: float) -> None:
        assert backend == "FS" and operation in OPERATIONS and result in RESULTS and seconds >= 0
        self.told.append((operation, result))


async def store(backend: Backend) -> Resource:
    async with backend.ingest(NewResource(DIGEST, "name", len(DATA))) as ingest:
        await ingest.write(DATA)
        return await ingest.commit(DIGEST, len(DATA))


async def load(backend: Backend, offset: int = 0) -> bytes:
    async with backend.read(DIGEST, offset) as reader:
        assert reader.resource.size == len(DATA)
        found = b""
        while piece := await reader.receive():
            found += piece
        return found


def test_no_method_is_forgotten() -> None:
    methods = {name for name in vars(Backend) if not name.startswith("_")}
    assert methods <= set(vars(ObservedBackend))


async def test_each_request_is_reported_and_passes_as_it_is() -> None:
    reports = Reports()
    backend = ObservedBackend(MemoryBackend(), "FS", reports)
    with pytest.raises(ArtifactNotFound):
        await backend.describe(DIGEST)
    assert await store(backend) == await backend.describe(DIGEST) == Resource(DIGEST, "name", len(DATA))
    assert await load(backend, 3) == DATA[3:]
    with pytest.raises(OffsetOutOfRange):
        await load(backend, 99)
    await backend.check_writable()
    assert reports.told == [
        *(("describe", "not_found"), ("commit", "ok"), ("ingest", "ok"), ("describe", "ok")),
        *(("open", "ok"), ("open", "error"), ("check", "ok")),
    ]


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (BackendRefused("no"), "refused"),
        (BackendUnavailable("down"), "unavailable"),
        (BackendBroken("nonsense"), "error"),
        (ValueError("a bug"), "error"),
        (ExceptionGroup("several", [BackendUnavailable("down")]), "error"),
        (None, "ok"),
    ],
)
def test_the_word_for_each_end(error: Exception | None, result: str) -> None:
    assert result_of(error) == result


async def test_a_cancellation_is_no_error(autojump_clock: object) -> None:
    reports = Reports()
    backend = ObservedBackend(FaultyBackend(MemoryBackend(), Fault("describe", stall=True)), "FS", reports)
    with trio.move_on_after(1):
        await backend.describe(DIGEST)
    assert reports.told == [("describe", "cancelled")]


async def test_cancelled_at_every_await_it_reports_what_it_began() -> None:
    async def live() -> list[tuple[str, str]]:
        reports = Reports()
        backend = ObservedBackend(MemoryBackend(), "FS", reports)
        begun.append(reports)
        await store(backend)
        await load(backend)
        return reports.told

    async def check(run: Run[list[tuple[str, str]]]) -> None:
        told = begun.pop().told
        expected = [("commit", "ok"), ("ingest", "ok"), ("open", "ok")]
        assert told == expected or [result for _, result in told][-1:] in (["cancelled"], ["ok"], [])

    begun: list[Reports] = []
    assert await cancel_everywhere(live, check) > 3


async def test_the_resolver_wraps_what_it_finds() -> None:
    class Resolver:
        def backend_types(self) -> list[str]:
            return ["FS"]

        async def resolve(self, tenant: Tenant) -> Backend:
            if tenant.backend_type != "FS":
                raise BackendNotFound(tenant.backend_type)
            return MemoryBackend()

    reports = Reports()
    resolver = ObservedResolver(Resolver(), reports)
    assert resolver.backend_types() == ["FS"]
    await store(await resolver.resolve(Tenant("FS", "id")))
    assert ("commit", "ok") in reports.told
    with pytest.raises(BackendNotFound):
        await resolver.resolve(Tenant("S3", "id"))
