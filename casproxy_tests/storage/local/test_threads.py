"""A stalled disk: cancelled calls return, threads keep what they use, and everything is released in the end."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from casproxy.digest import Digest
from casproxy.errors import ArtifactNotFound, BackendUnavailable
from casproxy.storage.api import NewResource
from casproxy.storage.local import workspace as workspace_module
from casproxy.storage.local.root import LocalRoot, open_local_root
from casproxy.storage.local.workspace import Workspace
from casproxy_tests.cancellation import open_files
from casproxy_tests.conformance.backends import tree
from casproxy_tests.conformance.traffic import MIB, content, get, put
from casproxy_tests.storage.local.conftest import Gate, gate_at

DATA = content(2 * MIB)
DIGEST = Digest.of(DATA)


async def reached(gate: Gate) -> None:
    await trio.to_thread.run_sync(gate.reached.wait)


async def test_a_stalled_read_can_be_left_and_closes_its_file_later(root: LocalRoot) -> None:
    backend = root.backend("tenant")
    await put(backend, DATA)
    before = open_files()
    with gate_at("pread") as gate:
        async with backend.read(DIGEST) as reader, trio.open_nursery() as nursery:
            nursery.start_soon(reader.receive)
            await reached(gate)
            nursery.cancel_scope.cancel()
        assert len(open_files() - before) == 1, "the thread still reads from it"
    await root.threads.wait_idle()
    assert open_files() == before


async def test_a_stalled_open_closes_its_file_later(root: LocalRoot) -> None:
    backend = root.backend("tenant")
    await put(backend, DATA)
    before = open_files()
    with gate_at("fstat") as gate:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(get, backend, DIGEST)
            await reached(gate)
            nursery.cancel_scope.cancel()
    await root.threads.wait_idle()
    assert open_files() == before


@pytest.mark.parametrize("call", ["writev", "fsync", "mkdir"])
async def test_a_stalled_write_holds_its_caller_no_longer_than_the_shield(
    root: LocalRoot, place: Path, mock_clock: MockClock, call: str
) -> None:
    backend = root.backend("tenant")
    before, files = tree(place), open_files()
    scope = trio.CancelScope()

    async def upload() -> None:
        with scope:
            await put(backend, DATA)

    with gate_at(call) as gate:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            await reached(gate)
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(5)
    await root.threads.wait_idle()
    assert tree(place) == before
    assert open_files() == files


async def test_a_cancel_during_the_rename_waits_for_it(root: LocalRoot) -> None:
    backend = root.backend("tenant")
    scope = trio.CancelScope()
    committed: list[Digest] = []

    async def upload() -> None:
        with scope:
            committed.append((await put(backend, DATA)).digest)

    with gate_at("rename") as gate:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            await reached(gate)
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
    assert committed == [DIGEST], "the commit was told to its caller"
    assert await get(backend, DIGEST) == DATA


async def test_a_stalled_rename_is_given_up_and_may_still_end_well(
    root: LocalRoot, place: Path, mock_clock: MockClock
) -> None:
    backend = root.backend("tenant")
    before = tree(place / ".staging")

    async def upload() -> None:
        with pytest.raises(BackendUnavailable, match="within 5 s"):
            await put(backend, DATA)

    with gate_at("rename") as gate:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            await reached(gate)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(5)  # the commit's shield
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(5)  # the clean-up's
        with pytest.raises(ArtifactNotFound):
            await backend.describe(DIGEST)
    await root.threads.wait_idle()
    assert await get(backend, DIGEST) == DATA
    assert tree(place / ".staging") == before


async def test_clean_up_needs_no_free_thread(
    root: LocalRoot, place: Path, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every thread for short steps is stuck: the upload is removed all the same."""
    before, files = tree(place), open_files()
    written, discarded = trio.Event(), threading.Event()
    discard = Workspace.discard

    def observed(workspace: Workspace) -> None:
        discard(workspace)
        discarded.set()

    monkeypatch.setattr(Workspace, "discard", observed)
    stuck = [object() for _ in range(int(root.threads.steps.total_tokens))]

    async def upload() -> None:
        async with root.backend("tenant").ingest(NewResource(DIGEST, "a")) as ingest:
            await ingest.write(DATA)
            for borrower in stuck:
                root.threads.steps.acquire_on_behalf_of_nowait(borrower)
            written.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(upload)
        await written.wait()
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(5)
    await trio.to_thread.run_sync(discarded.wait)
    for borrower in stuck:
        root.threads.steps.release_on_behalf_of(borrower)
    assert tree(place) == before
    assert open_files() == files


async def test_closing_waits_for_abandoned_threads(place: Path) -> None:
    files = open_files()
    async with open_local_root(place) as root:
        backend = root.backend("tenant")
        await put(backend, DATA)
        with gate_at("pread") as gate:
            async with backend.read(DIGEST) as reader, trio.open_nursery() as nursery:
                nursery.start_soon(reader.receive)
                await reached(gate)
                nursery.cancel_scope.cancel()
    assert open_files() == files


async def test_a_thread_carries_a_mebibyte(root: LocalRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    writev = os.writev

    def counted(fd: int, pieces: list[bytes]) -> int:
        calls.append(sum(map(len, pieces)))
        return writev(fd, pieces)

    monkeypatch.setattr(os, "writev", counted)
    backend = root.backend("tenant")
    data = content(4 * MIB + 100)
    digest = (await put(backend, data, piece_size=64 * 1024)).digest
    assert calls == [MIB] * 4 + [100]
    async with backend.read(digest) as reader:
        assert len(await reader.receive()) == MIB


@given(st.lists(st.binary(max_size=5), max_size=8), st.data())
def test_a_short_write_goes_on_where_it_stopped(pieces: list[bytes], data: st.DataObject) -> None:
    written = bytearray()

    def short(fd: int, rest: list[bytes]) -> int:
        joined = b"".join(rest)
        size = data.draw(st.integers(1, len(joined)))
        written.extend(joined[:size])
        return size

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "writev", short)
        workspace_module._write_all(0, pieces)
    assert bytes(written) == b"".join(pieces)
