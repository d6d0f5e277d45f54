"""No exchange with a registry leaves garbage in a circle, however it ends."""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import pytest
import trio

from casproxy.digest import Digest
from casproxy.errors import CasproxyError
from casproxy.storage.api import Backend, NewResource
from casproxy.storage.oci.retry import RetrySettings
from casproxy_tests.fakes.oci import QUICK, open_process
from casproxy_tests.fakes.registry import Answer, FakeRegistry, Fault, Hangup, Phase, serve_registry
from casproxy_tests.garbage import circles_of, told

SMALL: Final = 50_000
LARGE: Final = 2_000_000
PIECE: Final = 500_000
STORED: Final = bytes(range(251)) * 8_000
NOWHERE: Final = Digest.of(b"nobody has stored this")


@dataclass(frozen=True, slots=True)
class World:
    registry: FakeRegistry
    store: Backend
    closed: Backend
    """A store at an address where nobody listens."""

    async def upload(self, size: int, store: Backend | None = None) -> None:
        data = os.urandom(size)
        async with (store or self.store).ingest(NewResource(Digest.of(data), "a", size)) as ingest:
            for start in range(0, size, PIECE):
                await ingest.write(data[start : start + PIECE])
            await ingest.commit(Digest.of(data), size)

    async def refused_upload(self, size: int, fault: Fault) -> None:
        self.registry.script(fault)
        with suppress(CasproxyError):
            await self.upload(size)

    async def read(self, digest: Digest) -> None:
        async with self.store.read(digest) as reader:
            while await reader.receive():
                pass


Road: TypeAlias = Callable[[World], Awaitable[None]]


class Lost(Exception):
    """The client of an upload is gone."""


async def small_upload(world: World) -> None:
    await world.upload(SMALL)


async def large_upload(world: World) -> None:
    await world.upload(LARGE)


async def large_upload_of_unknown_size(world: World) -> None:
    async with world.store.ingest(NewResource(Digest.of(STORED), "a")) as ingest:
        for start in range(0, len(STORED), PIECE):
            await ingest.write(STORED[start : start + PIECE])
        await ingest.commit(Digest.of(STORED), len(STORED))


async def upload_left_by_its_client(world: World) -> None:
    with suppress(Lost):
        async with world.store.ingest(NewResource(NOWHERE, "a", LARGE)) as ingest:
            await ingest.write(bytes(PIECE))
            raise Lost


async def upload_cancelled(world: World) -> None:
    with trio.CancelScope() as scope:
        async with world.store.ingest(NewResource(NOWHERE, "a", LARGE)) as ingest:
            await ingest.write(bytes(PIECE))
            scope.cancel()
            await ingest.write(bytes(PIECE))


async def small_upload_refused(world: World) -> None:
    await world.refused_upload(SMALL, Fault("post", Answer(403)))


async def small_upload_whose_put_is_lost(world: World) -> None:
    await world.refused_upload(SMALL, Fault("put", Hangup.RESET, Phase.BODY))


async def upload_whose_manifest_is_refused(world: World) -> None:
    await world.refused_upload(SMALL, Fault("manifest-put", Answer(403)))


async def large_upload_refused(world: World) -> None:
    await world.refused_upload(LARGE, Fault("patch", Answer(403), Phase.BODY, after_bytes=PIECE))


async def large_upload_refused_at_once(world: World) -> None:
    await world.refused_upload(LARGE, Fault("patch", Answer(403)))


async def large_upload_whose_connection_is_lost(world: World) -> None:
    await world.refused_upload(LARGE, Fault("patch", Hangup.RESET, Phase.BODY, after_bytes=PIECE))


async def upload_that_fails_while_nobody_writes(world: World) -> None:
    world.registry.script(Fault("patch", Hangup.RESET, Phase.BODY, after_bytes=PIECE // 2))
    with suppress(CasproxyError):
        async with world.store.ingest(NewResource(NOWHERE, "a", LARGE)) as ingest:
            await ingest.write(bytes(PIECE))
            await trio.sleep_forever()


async def upload_to_nobody(world: World) -> None:
    with suppress(CasproxyError):
        await world.upload(SMALL, world.closed)


async def look_up_of_nothing(world: World) -> None:
    with suppress(CasproxyError):
        await world.store.describe(NOWHERE)


async def download(world: World) -> None:
    await world.read(Digest.of(STORED))


async def download_of_nothing(world: World) -> None:
    with suppress(CasproxyError):
        await world.read(NOWHERE)


async def download_left(world: World) -> None:
    async with world.store.read(Digest.of(STORED)) as reader:
        await reader.receive()


async def download_that_breaks_off(world: World) -> None:
    world.registry.script(Fault("blob-get", Hangup.RESET, Phase.ANSWER_BODY, after_bytes=1000))
    with suppress(CasproxyError):
        await world.read(Digest.of(STORED))


@pytest.mark.parametrize(
    "road",
    [
        small_upload,
        large_upload,
        large_upload_of_unknown_size,
        upload_left_by_its_client,
        upload_cancelled,
        small_upload_refused,
        small_upload_whose_put_is_lost,
        upload_whose_manifest_is_refused,
        large_upload_refused,
        large_upload_refused_at_once,
        large_upload_whose_connection_is_lost,
        upload_that_fails_while_nobody_writes,
        upload_to_nobody,
        look_up_of_nothing,
        download,
        download_of_nothing,
        download_left,
        download_that_breaks_off,
    ],
)
async def test_an_exchange_leaves_no_circle(tmp_path: Path, road: Road) -> None:
    retry = RetrySettings(attempts=1, budget=math.inf)
    with trio.socket.socket() as nobody:
        await nobody.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{nobody.getsockname()[1]}"
        async with serve_registry() as registry, open_process(timeouts=QUICK, retry=retry) as process:
            world = World(registry, process.backend(registry.host), process.backend(closed))
            await large_upload_of_unknown_size(world)
            found = await circles_of(lambda: road(world))
    assert not found, told(found)
