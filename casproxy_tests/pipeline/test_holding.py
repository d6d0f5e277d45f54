"""Transfers that no window bounds: what they hold is counted, bounded by a share, and never too little to go on."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from casproxy.digest import Digest
from casproxy.errors import MemoryShort
from casproxy.pipeline.api import Limits
from casproxy.pipeline.download import Wanted, download
from casproxy.pipeline.holding import FLOOR, LEAST, MOVING, MOVING_MOST, PROVEN, Account, holding
from casproxy.storage.api import NewResource
from casproxy.storage.memory import MemoryBackend
from casproxy.wire.budget import Budget
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.fakes.faulty_backend import FaultyBackend
from casproxy_tests.pipeline.sources import Receiver, content

MIB = 1024 * 1024
DATA = content(6 * MIB)
DIGEST = Digest.of(DATA)
TENANT = "tenant"


@pytest.fixture(scope="module")
def stored() -> MemoryBackend:
    async def fill() -> MemoryBackend:
        memory = MemoryBackend()
        async with memory.ingest(NewResource(DIGEST, "name")) as ingest:
            for start in range(0, len(DATA), MIB):
                await ingest.write(DATA[start : start + MIB])
            await ingest.commit(DIGEST, len(DATA))
        return memory

    return trio.run(fill)


@pytest.fixture
def backend(stored: MemoryBackend) -> FaultyBackend:
    return FaultyBackend(stored)


async def read(backend: FaultyBackend, receiver: Receiver, account: Account, *, offset: int = 0) -> None:
    await download(backend, receiver, Wanted(DIGEST, offset), Limits(), account=account)


@pytest.mark.parametrize("offset", [0, 4 * MIB + 1])
async def test_what_is_read_is_charged_and_given_back(backend: FaultyBackend, offset: int) -> None:
    budget, receiver = Budget(256 * MIB), Receiver(stalled=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: read(backend, receiver, budget.account(TENANT), offset=offset))
        await wait_all_tasks_blocked()
        assert FLOOR <= budget.exposed <= 8 * MIB
        receiver.resume()
    assert receiver.content == DATA[offset:]
    assert budget.exposed == 0


async def test_readers_that_sleep_hold_no_more_than_their_tenants_share(backend: FaultyBackend) -> None:
    """A thousand of them would be 8 GB. The other tenant still reads at full length, and those that sleep wake up."""
    budget = Budget(32 * MIB)
    receivers = [Receiver(stalled=True) for _ in range(200)]
    refused = 0

    async def sleeper(receiver: Receiver) -> None:
        nonlocal refused
        try:
            await read(backend, receiver, budget.account(TENANT))
        except MemoryShort:
            refused += 1
        else:
            assert receiver.content == DATA

    async with trio.open_nursery() as nursery:
        for receiver in receivers:
            nursery.start_soon(sleeper, receiver)
            await wait_all_tasks_blocked()
        assert 0 < refused < len(receivers)
        assert budget.exposed <= budget.total // 2 + MIB
        neighbour = Receiver()
        await read(backend, neighbour, budget.account("neighbour"))
        assert neighbour.content == DATA
        for receiver in receivers:
            receiver.resume()
    assert budget.exposed == 0


async def test_without_room_a_download_goes_on_in_small_steps(backend: FaultyBackend) -> None:
    budget, receiver = Budget(4 * MIB), Receiver(stalled=True)
    others = budget.account("others")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, backend, receiver, budget.account(TENANT))
        await wait_all_tasks_blocked()
        others.charge(2 * budget.total)  # more than there is: nothing that is let go makes room
        before = budget.account(TENANT).exposed
        receiver.resume()
        await wait_all_tasks_blocked()
    assert receiver.content == DATA
    assert max(len(piece) for piece in receiver.pieces[-8:]) <= LEAST
    assert before <= 2 * MIB
    others.charge(-others.exposed)
    assert budget.exposed == 0


def test_where_there_is_no_room_at_all_nothing_begins() -> None:
    budget = Budget(2 * FLOOR - 1)
    with pytest.raises(MemoryShort), holding(budget.account(TENANT)):
        raise AssertionError("it began")
    assert budget.exposed == 0


async def test_who_waits_is_woken_by_what_leaves() -> None:
    budget = Budget(30 * LEAST)
    with holding(budget.account(TENANT)) as held:
        for _ in range(4):
            assert held.may_take >= LEAST
            held.took(LEAST)
        assert held.may_take == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(held.wait)
            await wait_all_tasks_blocked()
            held.let_go(3 * LEAST)
        assert await held.wait() >= LEAST
    assert budget.exposed == 0


async def test_room_is_given_to_one_at_a_time() -> None:
    """Five hundred that begin to read together do not each get the room that there was for one."""
    budget = Budget(256 * MIB)
    account = budget.account(TENANT)
    with ExitStack() as stack:
        many = [stack.enter_context(holding(account)) for _ in range(500)]
        sizes = [await held.reserve() for held in many]
        assert sum(sizes) <= 256 * MIB // 8 + 500 * FLOOR
        assert account.room >= 256 * MIB // 4
        for held, size in zip(many, sizes, strict=True):
            held.took(size // 2)
        assert account.exposed == sum(max(FLOOR, size // 2) for size in sizes)
    assert budget.exposed == 0


def test_who_moves_is_not_held_back_by_those_who_sleep() -> None:
    budget = Budget(64 * MIB)
    account = budget.account(TENANT)
    with holding(account) as sleeper, holding(account) as mover:
        while (size := sleeper.may_take) and account.room_ahead >= LEAST:
            sleeper.took(size)
        mover.took(LEAST)
        assert mover.may_take == LEAST
        for _ in range(MOVING // LEAST):
            mover.took(LEAST)
            mover.let_go(LEAST)
        taken = 0
        while (size := mover.may_take) == MIB:
            mover.took(size)
            taken += size
        assert 0 < taken <= MOVING_MOST
        assert sleeper.may_take == 0
    assert budget.exposed == 0


@pytest.mark.parametrize(
    ("moved", "may"), [(0, LEAST), (LEAST * PROVEN, LEAST), (2 * MIB, MIB // 4), (4 * MIB, MIB // 2)]
)
def test_without_room_a_transfer_may_read_an_eighth_of_what_it_has_moved(moved: int, may: int) -> None:
    account = Budget(64 * MIB).account(TENANT)
    with holding(account) as sleeper, holding(account) as mover:
        while (size := sleeper.may_take) and account.room_ahead >= LEAST:
            sleeper.took(size)
        mover.took(moved)
        mover.let_go(moved)
        assert mover.may_take == may
        mover.took(may)
        mover.took(LEAST)
        assert mover.may_take == 0


async def test_a_cancel_at_every_await_gives_everything_back(backend: FaultyBackend) -> None:
    budget = Budget(4 * MIB)

    async def scenario() -> bytes:
        receiver = Receiver()
        await read(backend, receiver, budget.account(TENANT))
        return receiver.content

    async def check(run: Run[bytes]) -> None:
        assert backend.open_readers == 0
        assert budget.exposed == 0
        assert run.value in (None, DATA)

    assert await cancel_everywhere(scenario, check) > 10
