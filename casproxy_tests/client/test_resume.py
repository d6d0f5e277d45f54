"""A download that goes on where an earlier one ended, and is verified whole all the same."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from casproxy.client import (
    ArtifactCorrupt,
    Client,
    Phase,
    Retry,
    RpcError,
    StatusCode,
    TargetExists,
    TargetUnusable,
    open_client,
)
from casproxy.client.part import part_path
from casproxy.client.target import open_target
from casproxy.digest import Digest
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.client.settle import settled
from casproxy_tests.fakes.artifact_server import READ_PIECE, ArtifactServer, serve

CONTENT = os.urandom(4 * READ_PIECE + 5)
DIGEST = Digest.of(CONTENT)
HERE = 2 * READ_PIECE + 7
"""Bytes of the part that is there before."""


class Seen:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.all: list[tuple[Phase, int, int | None]] = []

    def __call__(self, phase: Phase, done: int, total: int | None) -> None:
        self.all.append((phase, done, total))

    def phases(self) -> list[Phase]:
        return [phase for phase, _, _ in self.all]


def stored(**settings: object) -> ArtifactServer:
    server = ArtifactServer(**settings)  # type: ignore[arg-type]
    server.put("stored.bin", CONTENT)
    return server


def a_part(directory: Path, content: bytes = CONTENT[:HERE]) -> Path:
    part = part_path(directory / "out", DIGEST)
    part.write_bytes(content)
    return part


@asynccontextmanager
async def connected(server: ArtifactServer, retry: Retry = Retry(times=0)) -> AsyncIterator[Client]:  # noqa: B008
    async with serve(server) as address, open_client(address, insecure=True, retry=retry) as client:
        yield client


async def resume(server: ArtifactServer, directory: Path, seen: Seen | None = None) -> Path:
    async with connected(server) as client:
        return await client.download_file(DIGEST, directory / "out", resume=True, progress=seen or Seen())


async def test_only_the_rest_is_fetched(tmp_path: Path) -> None:
    a_part(tmp_path)
    server, seen = stored(), Seen()
    assert (await resume(server, tmp_path, seen)).read_bytes() == CONTENT
    assert server.offsets == [HERE]
    assert os.listdir(tmp_path) == ["out"]
    assert seen.all[0] == (Phase.HASH, HERE, HERE)
    assert seen.all[1] == (Phase.RECEIVE, HERE + READ_PIECE, len(CONTENT))


async def test_a_part_is_found_under_the_stored_name_too(tmp_path: Path) -> None:
    part_path(tmp_path / "stored.bin", DIGEST).write_bytes(CONTENT[:HERE])
    server = stored()
    async with connected(server) as client:
        assert await client.download_file(DIGEST, tmp_path, resume=True) == tmp_path / "stored.bin"
    assert server.offsets == [HERE]


async def test_a_whole_part_needs_no_read(tmp_path: Path) -> None:
    a_part(tmp_path, CONTENT)
    server = stored()
    assert (await resume(server, tmp_path)).read_bytes() == CONTENT
    assert server.offsets == []


@pytest.mark.parametrize(
    ("part", "offsets"),
    [(b"x" * HERE, [HERE, 0]), (b"x" * len(CONTENT), [0]), (CONTENT + b"more", [0])],
    ids=["other bytes", "as long", "too long"],
)
async def test_a_part_that_is_wrong_is_told_and_everything_fetched(
    tmp_path: Path, part: bytes, offsets: list[int]
) -> None:
    a_part(tmp_path, part)
    server, seen = stored(), Seen()
    assert (await resume(server, tmp_path, seen)).read_bytes() == CONTENT
    assert server.offsets == offsets
    assert (Phase.RESTART, 0, len(CONTENT)) in seen.all
    assert os.listdir(tmp_path) == ["out"]


async def test_a_server_that_always_begins_at_the_start(tmp_path: Path) -> None:
    a_part(tmp_path)
    server = stored(ignores_offset=True)
    assert (await resume(server, tmp_path)).read_bytes() == CONTENT
    assert server.offsets == [HERE, 0]


async def test_what_the_server_damaged_is_not_kept(tmp_path: Path) -> None:
    a_part(tmp_path)
    with pytest.raises(ArtifactCorrupt):
        await resume(stored(corrupt=True), tmp_path)
    assert os.listdir(tmp_path) == []
    a_part(tmp_path)
    with pytest.raises(RpcError):
        await resume(stored(refuse_read=RpcError(StatusCode.DATA_LOSS, "checksum mismatch")), tmp_path)
    assert os.listdir(tmp_path) == []


async def test_what_arrived_before_a_failure_is_kept_and_told(tmp_path: Path) -> None:
    server, seen = stored(fail_read_after=3), Seen()
    with pytest.raises(RpcError, match="the store went away"):
        await resume(server, tmp_path, seen)
    part = part_path(tmp_path / "out", DIGEST)
    assert part.read_bytes() == CONTENT[: 2 * READ_PIECE]  # the last piece was not verified, and so never written
    assert seen.all[-1] == (Phase.KEPT, 2 * READ_PIECE, len(CONTENT))
    assert (await resume(server, tmp_path)).read_bytes() == CONTENT
    assert server.offsets == [0, 2 * READ_PIECE]


async def test_nothing_arrived_nothing_is_kept(tmp_path: Path) -> None:
    with pytest.raises(RpcError):
        await resume(stored(failures={"Read": 1}), tmp_path)
    assert os.listdir(tmp_path) == []


async def test_without_resume_nothing_is_kept_nor_used(tmp_path: Path) -> None:
    part, server = a_part(tmp_path), stored(fail_read_after=3)
    async with connected(server) as client:
        with pytest.raises(RpcError):
            await client.download_file(DIGEST, tmp_path / "out")
    assert server.offsets == [0]
    assert os.listdir(tmp_path) == [part.name]


async def test_retries_and_parts_together(tmp_path: Path) -> None:
    a_part(tmp_path)
    server = stored(fail_read_after=1)
    async with connected(server, Retry(times=1, first_wait=0.001)) as client:
        path = await client.download_file(DIGEST, tmp_path / "out", resume=True)
    assert path.read_bytes() == CONTENT
    assert server.offsets == [HERE, HERE + READ_PIECE]


async def test_an_existing_file_is_kept_and_so_is_the_part(tmp_path: Path) -> None:
    part = a_part(tmp_path)
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(TargetExists):
        await resume(server := stored(), tmp_path)
    assert part.read_bytes() == CONTENT[:HERE]
    async with connected(server) as client:
        await client.download_file(DIGEST, tmp_path / "out", resume=True, force=True)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["out"]


async def test_two_downloads_to_one_name_do_not_write_one_file(tmp_path: Path) -> None:
    async with open_target(tmp_path / "out", force=False, resume=DIGEST):
        with pytest.raises(TargetUnusable, match="another download"):
            await resume(stored(), tmp_path)
    assert os.listdir(tmp_path) == []


async def test_cancelled_anywhere_the_file_is_whole_or_the_part_is_a_true_one(tmp_path: Path) -> None:
    server, content = ArtifactServer(), CONTENT[: READ_PIECE + 5]
    digest = Digest(server.put("f", content))
    async with serve(server) as address:

        async def scenario() -> Path:
            part_path(tmp_path / "out", digest).write_bytes(content[:3])
            async with open_client(address, insecure=True) as client:
                return await client.download_file(digest, tmp_path / "out", resume=True)

        async def check(run: Run[Path]) -> None:
            [name] = os.listdir(tmp_path)
            found = (tmp_path / name).read_bytes()
            assert run.cancelled or name == "out"
            assert found == content if name == "out" else content.startswith(found) and len(found) >= 3
            (tmp_path / name).unlink()

        assert await cancel_everywhere(scenario, check, settle=settled) > 5


async def test_the_server_sees_the_cancel_and_the_part_stays(tmp_path: Path) -> None:
    a_part(tmp_path)
    server = stored(stall=True)
    async with connected(server) as client:
        async with trio.open_nursery() as nursery:

            async def cancel_when_reading() -> None:
                await server.reading.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(cancel_when_reading)
            await client.download_file(DIGEST, tmp_path / "out", resume=True)
        await server.cancelled.wait()
    [part] = os.listdir(tmp_path)
    assert part == part_path(tmp_path / "out", DIGEST).name
