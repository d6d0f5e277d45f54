"""A real registry is killed in the middle of a transfer, and comes back: by the real clock, with little patience."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from casproxy.digest import Digest
from casproxy.errors import BackendUnavailable
from casproxy.pipeline.api import Limits
from casproxy.pipeline.download import Wanted, download
from casproxy.storage.api import NewResource, Piece
from casproxy.storage.oci.retry import RetrySettings
from casproxy_tests.conformance.traffic import MIB, content, get, put
from casproxy_tests.fakes.oci import QUICK, OciProcess, open_process
from casproxy_tests.real.registry import Access, RealRegistry, running_registry

DATA = content(24 * MIB)
DIGEST = Digest.of(DATA)
HASTY = RetrySettings(attempts=3, first_wait=0.01, longest_pause=0.05)


@asynccontextmanager
async def hasty(directory: Path) -> AsyncIterator[tuple[RealRegistry, OciProcess]]:
    async with (
        running_registry(directory / "registry") as registry,
        open_process(timeouts=QUICK, retry=HASTY) as process,
    ):
        yield registry, process


async def test_killed_in_the_middle_of_an_upload(tmp_path: Path) -> None:
    async with (
        running_registry(tmp_path / "registry") as registry,
        open_process(timeouts=QUICK, retry=HASTY) as process,
    ):
        backend = process.backend(registry.host)
        await put(backend, b"stays")
        before = registry.visible()

        async def upload() -> None:
            async with backend.ingest(NewResource(DIGEST, "a.bin", len(DATA))) as ingest:
                for start in range(0, len(DATA), MIB):
                    if start == len(DATA) // 2:
                        registry.kill()
                    await ingest.write(DATA[start : start + MIB])
                await ingest.commit(DIGEST, len(DATA))

        with pytest.raises(BackendUnavailable), trio.fail_after(60):
            await upload()
        assert process.lent == 0
        with pytest.raises(BackendUnavailable):
            await backend.describe(DIGEST)
        await registry.start()
        left = {name: kept for name, kept in registry.visible().items() if kept != "session"}
        assert left == before, "a session of the dead process may stay, nothing else"
        await put(backend, DATA)
        assert await get(backend, DIGEST) == DATA


async def test_killed_and_back_in_the_middle_of_a_download(tmp_path: Path) -> None:
    """The download goes on from the byte it had reached, and is verified as a whole."""
    async with (
        running_registry(tmp_path / "registry") as registry,
        open_process(timeouts=QUICK, retry=HASTY) as process,
    ):
        backend = process.backend(registry.host)
        await put(backend, DATA)
        received = bytearray()

        class Sink:
            async def send(self, piece: Piece) -> None:
                if not received:
                    registry.kill()
                    await registry.start()
                received.extend(piece)

        await download(backend, Sink(), Wanted(DIGEST), Limits(resume_attempts=100))  # it may take a while to start
        assert received == DATA
        assert process.lent == 0


async def test_tokens_of_a_registry_that_forgot_them(tmp_path: Path) -> None:
    """Five seconds are all that a token lives here: a longer upload outlives several."""
    directory = tmp_path / "registry"
    async with (
        running_registry(directory, Access.BEARER_TLS, token_lifetime=5) as registry,
        open_process(tls=registry.tls) as process,
    ):
        backend = process.backend(registry.host, "alice", "alices-password")
        assert registry.tokens is not None
        async with backend.ingest(NewResource(DIGEST, "a.bin", None)) as ingest:
            for start in range(0, len(DATA), MIB):
                await ingest.write(DATA[start : start + MIB])
                if start == len(DATA) // 2:
                    await trio.sleep(5.5)  # the only way to age a token that a real registry judges by real time
            await ingest.commit(DIGEST, len(DATA))
        assert await get(backend, DIGEST) == DATA
        assert registry.tokens.issued >= 3
        assert not registry.sessions()
