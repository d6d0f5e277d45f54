"""Many uploads of one artifact at once: one goes to the store, and every one of them ends well."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from casproxy.digest import Digest
from casproxy.errors import AlreadyStored, BackendUnavailable, DigestMismatch, InvalidRequest
from casproxy.pipeline.api import Expected, Limits
from casproxy.pipeline.upload import upload
from casproxy.storage.api import NewResource, Resource
from casproxy.storage.memory import MemoryBackend
from casproxy.storage.wrappers.flights import STALL_SECONDS, SharedBackend
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.fakes.faulty_backend import Fault, FaultyBackend
from casproxy_tests.pipeline.sources import Sender, content

DATA = content(300_000)
DIGEST = Digest.of(DATA)
STORED = Resource(DIGEST, "name", len(DATA))
LIMITS = Limits(piece_size=64 * 1024)


async def put(shared: SharedBackend, sender: Sender, size: int | None = None) -> Resource:
    return await upload(sender, shared, NewResource(DIGEST, "name", size), Expected(DIGEST, size), LIMITS)


async def test_a_hundred_uploads_cost_one() -> None:
    store = FaultyBackend(MemoryBackend())
    shared = SharedBackend(store)
    senders = [Sender([DATA], window=50_000) for _ in range(100)]
    stored = []

    async def one(sender: Sender) -> None:
        stored.append(await put(shared, sender))

    async with trio.open_nursery() as nursery:
        for sender in senders:
            nursery.start_soon(one, sender)
    assert stored == [STORED] * 100
    assert store.calls["ingest"] == store.calls["commit"] == 1
    assert sorted(sender.sent for sender in senders)[:-1] == [0] * 99, "a follower sends nothing while it waits"


async def test_another_artifact_does_not_wait() -> None:
    shared = SharedBackend(MemoryBackend())
    async with shared.ingest(NewResource(DIGEST, "name")), shared.ingest(NewResource(Digest.of(b"other"), "name")):
        pass


async def test_a_follower_takes_over_when_the_leader_fails() -> None:
    store = FaultyBackend(MemoryBackend(), Fault("write", error=BackendUnavailable("down")))
    shared = SharedBackend(store)
    leader_sender = Sender([DATA])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_fails, shared, leader_sender, BackendUnavailable)
        await trio.testing.wait_all_tasks_blocked()
        assert await put(shared, Sender([DATA])) == STORED
    assert store.calls["commit"] == 1


async def test_a_liar_leads_nobody_astray() -> None:
    shared = SharedBackend(MemoryBackend())
    liar = Sender([b"something else"], silent=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_fails, shared, liar, DigestMismatch)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(_succeeds, shared)
        await trio.testing.wait_all_tasks_blocked()
        liar.end()


async def test_a_follower_takes_over_when_the_leaders_sender_is_silent(autojump_clock: MockClock) -> None:
    shared = SharedBackend(MemoryBackend())
    silent = Sender([DATA], silent=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, shared, silent)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await _succeeds(shared)
        assert trio.current_time() - began == pytest.approx(STALL_SECONDS, abs=0.1)
        silent.end()  # the one that was replaced ends well too


async def test_a_slow_store_is_waited_for(autojump_clock: MockClock) -> None:
    store = FaultyBackend(MemoryBackend(), Fault("commit", stall=True))
    shared = SharedBackend(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, shared, Sender([DATA]))
        await store.faults[0].reached.wait()
        with trio.move_on_after(100 * STALL_SECONDS) as patience:
            await put(shared, Sender([DATA]))
        assert patience.cancelled_caught
        assert store.calls["ingest"] == 1
        nursery.cancel_scope.cancel()


async def test_another_size_than_stored_is_the_followers_fault() -> None:
    shared = SharedBackend(MemoryBackend())
    leader = Sender([DATA], silent=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, shared, leader)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(_refused_for_its_size, shared)
        await trio.testing.wait_all_tasks_blocked()
        leader.end()


async def test_a_cancel_at_every_await_strands_nobody() -> None:
    shared = SharedBackend(MemoryBackend())

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(put, shared, Sender([DATA], window=100_000))

    async def check(run: Run[None]) -> None:
        with trio.fail_after(5):
            assert await put(shared, Sender([DATA])) == STORED

    await cancel_everywhere(scenario, check)


async def _succeeds(shared: SharedBackend) -> None:
    assert await put(shared, Sender([DATA])) == STORED


async def _fails(shared: SharedBackend, sender: Sender, error: type[Exception]) -> None:
    with pytest.raises(error):
        await put(shared, sender)


async def _refused_for_its_size(shared: SharedBackend) -> None:
    with pytest.raises(InvalidRequest, match="size mismatch") as caught:
        await put(shared, Sender(), size=5)
    assert isinstance(caught.value.__cause__, AlreadyStored)
