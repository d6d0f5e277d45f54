"""One upload: what is committed, what is refused and why, and that nothing else ever becomes visible."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from casproxy.digest import EMPTY_DIGEST, Digest
from casproxy.errors import (
    BackendBroken,
    BackendUnavailable,
    DigestMismatch,
    InvalidRequest,
    PeerGone,
    PeerTooSlow,
    SizeLimitExceeded,
)
from casproxy.pipeline.api import Expected, Limits, UploadSource
from casproxy.pipeline.upload import upload
from casproxy.storage.api import Backend, Ingest, NewResource, Piece, Resource
from casproxy.storage.memory import MemoryBackend
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.fakes.faulty_backend import Fault, FaultyBackend
from casproxy_tests.pipeline.sources import Sender, content

LIMITS = Limits(piece_size=64 * 1024)


async def put(
    source: UploadSource,
    backend: Backend,
    digest: Digest,
    *,
    size: int | None = None,
    max_bytes: int = 0,
    limits: Limits = LIMITS,
) -> Resource:
    expected = Expected(digest, size, max_bytes)
    return await upload(source, backend, NewResource(digest, "name", size), expected, limits)


async def stored(backend: Backend, digest: Digest) -> bytes:
    found = b""
    async with backend.read(digest) as reader:
        while piece := await reader.receive():
            found += piece
    return found


@pytest.mark.parametrize("size", [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 3_000_000])
@pytest.mark.parametrize("part", [1_000, 16 * 1024, 1 << 20])
async def test_the_bytes_committed_are_the_bytes_named(size: int, part: int) -> None:
    data = content(size)
    sender = Sender([data[start : start + part] for start in range(0, size, part)], window=100_000)
    backend = FaultyBackend(MemoryBackend())
    resource = await put(sender, backend, Digest.of(data))
    assert resource == Resource(Digest.of(data), "name", size)
    assert await stored(backend, Digest.of(data)) == data
    assert backend.calls["commit"] == 1
    assert sender.held == 0


async def test_an_empty_artifact_is_an_artifact() -> None:
    backend = MemoryBackend()
    resource = await put(Sender(), backend, EMPTY_DIGEST)
    assert resource.size == 0
    assert await stored(backend, EMPTY_DIGEST) == b""


async def test_another_digest_stores_nothing() -> None:
    backend = FaultyBackend(MemoryBackend())
    want, got = Digest.of(b"named"), Digest.of(b"sent")
    with pytest.raises(DigestMismatch) as caught:
        await put(Sender([b"sent"]), backend, want)
    assert str(caught.value) == f"digest mismatch: got={got.hex}, want={want.hex}"
    await assert_untouched(backend)


async def test_the_cap_is_enforced_before_the_sender_has_finished() -> None:
    backend = FaultyBackend(MemoryBackend())
    sender = Sender([bytes(10)], silent=True)
    with pytest.raises(SizeLimitExceeded) as caught:
        await put(sender, backend, Digest.of(bytes(10)), max_bytes=9)
    assert str(caught.value) == "max size of upload exceeded: want=10, max=9"
    await assert_untouched(backend)


async def test_the_cap_is_heard_and_not_the_echo_of_the_stage_before() -> None:
    """The sender fills all channels: when the second stage gives up, the first is in the middle of passing on."""
    for _ in range(50):  # the order of tasks is random
        sender = Sender([bytes(64 * 1024)] * 40, window=8 << 20)
        with pytest.raises(SizeLimitExceeded):
            await put(sender, MemoryBackend(), Digest.of(bytes(10)), max_bytes=1 << 20)


async def test_the_cap_itself_is_allowed() -> None:
    assert (await put(Sender([bytes(10)]), MemoryBackend(), Digest.of(bytes(10)), max_bytes=10)).size == 10


async def test_a_declared_size_over_the_cap_is_refused_before_anything_is_read() -> None:
    sender = Sender([bytes(10)])
    backend = FaultyBackend(MemoryBackend())
    with pytest.raises(SizeLimitExceeded, match=r"want=10, max=9"):
        await put(sender, backend, Digest.of(bytes(10)), size=10, max_bytes=9)
    assert sender.sent == 0
    assert not backend.calls


@pytest.mark.parametrize("declared", [9, 11])
async def test_another_size_than_declared_is_refused(declared: int) -> None:
    backend = FaultyBackend(MemoryBackend())
    with pytest.raises(InvalidRequest, match="size mismatch"):
        await put(Sender([bytes(10)]), backend, Digest.of(bytes(10)), size=declared)
    await assert_untouched(backend)


async def test_more_than_declared_is_refused_before_the_sender_has_finished() -> None:
    with pytest.raises(InvalidRequest, match="size mismatch"):
        await put(Sender([bytes(10)], silent=True), MemoryBackend(), EMPTY_DIGEST, size=9)


@pytest.mark.parametrize("error", [PeerGone("gone"), InvalidRequest("rule"), PeerTooSlow("slow"), ZeroDivisionError()])
async def test_a_senders_failure_is_heard_and_not_its_echo(error: Exception) -> None:
    """The stages behind the sender see their channel close: they must not take that for the end of the artifact."""
    backend = FaultyBackend(MemoryBackend())
    with pytest.raises(type(error)) as caught:
        await put(Sender([content(300_000)], error=error), backend, Digest.of(b"x"))
    assert caught.value is error
    await assert_untouched(backend)


@pytest.mark.parametrize("operation", ["ingest", "write", "commit", "leave_ingest"])
async def test_a_failing_store_is_heard(operation: str) -> None:
    data = content(300_000)
    error = BackendUnavailable("down")
    backend = FaultyBackend(MemoryBackend(), Fault(operation, error=error))  # type: ignore[arg-type]
    with pytest.raises(BackendUnavailable) as caught:
        await put(Sender([data]), backend, Digest.of(data))
    assert caught.value is error
    assert backend.open_ingests == 0


@pytest.mark.parametrize("operation", ["ingest", "write", "commit"])
@pytest.mark.parametrize("raw", [ConnectionResetError(), BrokenPipeError(), trio.BrokenResourceError()])
async def test_a_stores_reset_is_never_taken_for_a_client_that_left(operation: str, raw: Exception) -> None:
    data = content(300_000)
    backend = FaultyBackend(MemoryBackend(), Fault(operation, error=raw))  # type: ignore[arg-type]
    with pytest.raises(BackendBroken) as caught:
        await put(Sender([data]), backend, Digest.of(data))
    assert caught.value.__cause__ is raw
    await assert_untouched(backend)


async def test_a_store_that_fails_early_is_reported_while_the_client_is_idle() -> None:
    backend = FaultyBackend(MemoryBackend(), Fault("write", error=BackendUnavailable("down")))
    with pytest.raises(BackendUnavailable):
        await put(Sender([b"a"], silent=True), backend, EMPTY_DIGEST)
    await assert_untouched(backend)


class Waking(MemoryBackend):
    """A store that cancels whoever is idle inside an ingest once ``broken`` is set, and then says why."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = trio.Event()

    @asynccontextmanager
    async def ingest(self, resource: NewResource) -> AsyncIterator[Ingest]:
        async with super().ingest(resource) as ingest, trio.open_nursery() as nursery:
            nursery.start_soon(self._break, nursery.cancel_scope)
            yield ingest
        raise BackendUnavailable("the store broke")

    async def _break(self, scope: trio.CancelScope) -> None:
        await self.broken.wait()
        scope.cancel()


async def test_a_store_that_wakes_an_idle_transfer_is_heard() -> None:
    backend = Waking()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_break_when_idle, backend)
        with pytest.raises(BackendUnavailable, match="the store broke"):
            await put(Sender([b"a"], silent=True), backend, EMPTY_DIGEST)


async def _break_when_idle(backend: Waking) -> None:
    await trio.testing.wait_all_tasks_blocked()
    backend.broken.set()


async def test_a_cancel_from_outside_wins_over_what_the_store_then_says() -> None:
    backend = Waking()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_idle, scope)
            await put(Sender([b"a"], silent=True), backend, EMPTY_DIGEST)
    assert scope.cancelled_caught


async def _cancel_when_idle(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


class BadRelease(MemoryBackend):
    """A store whose abort does ``release``."""

    def __init__(self, release: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._release = release

    @asynccontextmanager
    async def ingest(self, resource: NewResource) -> AsyncIterator[Ingest]:
        async with super().ingest(resource) as ingest:
            try:
                yield ingest
            finally:
                await self._release()


async def test_a_failed_release_does_not_hide_the_reason() -> None:
    async def fail() -> None:
        raise BackendUnavailable("the abort failed")

    with pytest.raises(DigestMismatch):
        await put(Sender([b"sent"]), BadRelease(fail), EMPTY_DIGEST)


async def test_a_release_that_hangs_is_given_up(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    with pytest.raises(DigestMismatch):
        await put(Sender([b"sent"]), BadRelease(trio.sleep_forever), EMPTY_DIGEST)
    assert trio.current_time() - started == pytest.approx(LIMITS.abort_timeout)


async def test_two_writers_of_one_artifact_both_succeed() -> None:
    data = content(1_000_000)
    backend = FaultyBackend(MemoryBackend())
    senders = [Sender([data], window=100_000) for _ in range(2)]
    resources = []

    async def write(sender: Sender) -> None:
        resources.append(await put(sender, backend, Digest.of(data)))

    async with trio.open_nursery() as nursery:
        for sender in senders:
            nursery.start_soon(write, sender)
    assert resources == [Resource(Digest.of(data), "name", len(data))] * 2
    assert await stored(backend, Digest.of(data)) == data


# Pieces, credit and time


@pytest.mark.parametrize("window", [1, 100, 65_535])
async def test_a_window_smaller_than_a_piece_is_no_deadlock(window: int, autojump_clock: MockClock) -> None:
    data = content(min(window * 20, 300_000))
    started = trio.current_time()
    await put(Sender([data], window=window), MemoryBackend(), Digest.of(data), limits=Limits(piece_size=1 << 20))
    assert trio.current_time() == started  # a starved sender is not even lingered for


async def test_a_piece_is_handed_on_when_its_sender_pauses(autojump_clock: MockClock) -> None:
    """The sender's last byte waits ``linger`` and not for a full piece."""
    backend = FaultyBackend(MemoryBackend(), Fault("write"))
    sender = Sender([b"ab"], silent=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, sender, backend, Digest.of(b"abc"))
        await backend.faults[0].reached.wait()
        assert trio.current_time() == pytest.approx(LIMITS.linger)
        sender.send(b"c")
        sender.end()


async def test_parts_that_come_within_the_linger_share_a_piece(autojump_clock: MockClock) -> None:
    backend = FaultyBackend(MemoryBackend())
    sender = Sender([b"a"], silent=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, sender, backend, Digest.of(b"ab"))
        await trio.sleep(LIMITS.linger / 2)
        sender.send(b"b")
        sender.end()
    assert backend.calls["write"] == 1


@pytest.mark.parametrize("piece", [16 * 1024, 256 * 1024])
async def test_a_store_that_stalls_is_sent_no_more_than_the_senders_window(piece: int) -> None:
    """Whatever lies in stages and channels is in the sender's books: its credit comes back when it was written."""
    backend = FaultyBackend(MemoryBackend(), Fault("write", stall=True))
    sender = Sender([content(3_000_000)], window=200_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: put(sender, backend, EMPTY_DIGEST, limits=Limits(piece_size=piece)))
        await trio.testing.wait_all_tasks_blocked()
        assert sender.sent == sender.held == 200_000
        nursery.cancel_scope.cancel()


class _Forgetful:
    """An ``Ingest`` that keeps nothing; ``seen`` does not either."""

    def __init__(self) -> None:
        self.seen: list[weakref.ref[memoryview]] = []

    async def write(self, piece: Piece) -> None:
        await trio.lowlevel.checkpoint()
        assert isinstance(piece, memoryview)  # bytes cannot be watched
        self.seen.append(weakref.ref(piece))

    async def commit(self, digest: Digest, size: int) -> Resource:
        await trio.lowlevel.checkpoint()
        return Resource(digest, "name", size)


class _ForgetfulBackend(MemoryBackend):
    """Its only ingest is ``_Forgetful``."""

    def __init__(self) -> None:
        super().__init__()
        self.ingested = _Forgetful()

    @asynccontextmanager
    async def ingest(self, resource: NewResource) -> AsyncIterator[Ingest]:
        await trio.lowlevel.checkpoint()
        yield self.ingested


async def test_a_sender_that_pauses_has_nothing_held_that_the_store_took() -> None:
    """Its credit is back, so these bytes are on nobody's budget: no stage's variables may keep them alive."""
    backend = _ForgetfulBackend()
    sender = Sender([memoryview(content(LIMITS.piece_size)) for _ in range(3)], silent=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, sender, backend, EMPTY_DIGEST)
        await trio.testing.wait_all_tasks_blocked()
        assert sender.held == 0
        assert [watched() for watched in backend.ingested.seen] == [None, None, None]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("queued_pieces", [0, 1])
async def test_short_queues_are_no_deadlock(queued_pieces: int) -> None:
    data = content(500_000)
    sender, backend = Sender([data], window=100_000), MemoryBackend()
    await put(sender, backend, Digest.of(data), limits=Limits(piece_size=16 * 1024, queued_pieces=queued_pieces))
    assert await stored(backend, Digest.of(data)) == data


@pytest.mark.parametrize("queued_pieces", [0, 2])
async def test_memory_is_bounded_by_the_window_and_a_few_pieces(queued_pieces: int) -> None:
    """A store that stalls: what was sent and not yet written is the window, the channels, and a piece per stage."""
    piece, window = 64 * 1024, 200_000
    backend = FaultyBackend(MemoryBackend(), Fault("write", stall=True))
    sender = Sender([content(100 * piece)], window=window)
    limits = Limits(piece_size=piece, queued_pieces=queued_pieces)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: put(sender, backend, EMPTY_DIGEST, limits=limits))
        await trio.testing.wait_all_tasks_blocked()
        assert sender.most_held <= window
        most = window + (2 * queued_pieces + 2) * max(piece, window)
        assert 0 < sender.sent <= most
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("sent", [b"", b"abc", bytes(100)])
async def test_an_idle_sender_is_ended(sent: bytes, autojump_clock: MockClock) -> None:
    backend = FaultyBackend(MemoryBackend())
    started = trio.current_time()
    with pytest.raises(PeerTooSlow):
        await put(Sender([sent] if sent else [], silent=True), backend, EMPTY_DIGEST)
    assert trio.current_time() - started == pytest.approx(LIMITS.idle_timeout, abs=0.1)
    await assert_untouched(backend)


async def trickle(sender: Sender, data: bytes, step: int, pause: float) -> None:
    for start in range(0, len(data), step):
        await trio.sleep(pause)
        sender.send(data[start : start + step])
    sender.end()


async def test_a_sender_below_the_minimum_rate_is_ended(autojump_clock: MockClock) -> None:
    sender = Sender(silent=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle, sender, bytes(100), 1, 2.0)
        with pytest.raises(PeerTooSlow):
            await put(sender, MemoryBackend(), EMPTY_DIGEST)
        assert trio.current_time() == pytest.approx(LIMITS.idle_timeout, abs=2.0)
        nursery.cancel_scope.cancel()


async def test_progress_decides_and_not_total_time(autojump_clock: MockClock) -> None:
    data = content(2_000)
    sender = Sender(silent=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle, sender, data, 100, 50.0)
        await put(sender, MemoryBackend(), Digest.of(data))
    assert trio.current_time() >= 1_000.0


async def test_a_keepalive_keeps_alive(autojump_clock: MockClock) -> None:
    sender = Sender(silent=True)

    async def keep_alive() -> None:
        for _ in range(10):
            await trio.sleep(50)
            sender.send(b"")
        sender.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_alive)
        await put(sender, MemoryBackend(), EMPTY_DIGEST)
    assert trio.current_time() >= 500.0


async def test_a_sender_without_credit_is_not_too_slow(autojump_clock: MockClock) -> None:
    """Other streams use up the connection's credit for ten minutes: not this sender's fault."""
    sender = Sender([b"abc"])
    sender.withheld = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, sender, MemoryBackend(), Digest.of(b"abc"))
        await trio.sleep(600)
        sender.withheld = False
        sender.send()


async def test_a_slow_store_is_not_the_senders_fault(autojump_clock: MockClock) -> None:
    class Slow(FaultyBackend):
        async def meet(self, operation: str, bytes_after: int = 0, *, late: bool = False) -> None:
            if operation == "write":
                await trio.sleep(100)

    data = content(500_000)
    await put(Sender([data], window=64 * 1024), Slow(MemoryBackend()), Digest.of(data))


# Cancellation


async def test_a_cancel_at_every_await_leaves_nothing() -> None:
    data = content(300_000)
    digest = Digest.of(data)
    state: list[tuple[FaultyBackend, MemoryBackend, Sender]] = []

    async def scenario() -> Resource:
        memory = MemoryBackend()
        backend = FaultyBackend(memory)
        sender = Sender([data[start : start + 50_000] for start in range(0, len(data), 50_000)], window=120_000)
        state.append((backend, memory, sender))
        return await put(sender, backend, digest)

    async def check(run: Run[Resource]) -> None:
        backend, memory, _ = state[-1]
        assert backend.open_ingests == 0
        if run.value is not None:
            assert run.value.size == len(data)
            assert await stored(memory, digest) == data
        elif digest in memory:
            assert await stored(memory, digest) == data  # cancelled after the commit: complete, or nothing
        else:
            assert memory.held_bytes == 0

    assert await cancel_everywhere(scenario, check) > 10


@pytest.mark.parametrize("operation", ["ingest", "write", "commit"])
async def test_a_cancel_while_the_store_stalls(operation: str, autojump_clock: MockClock) -> None:
    data = content(300_000)
    memory = MemoryBackend()
    backend = FaultyBackend(memory, Fault(operation, stall=True))  # type: ignore[arg-type]
    with trio.move_on_after(1) as scope:
        await put(Sender([data]), backend, Digest.of(data))
    assert scope.cancelled_caught
    await assert_untouched(backend)


async def assert_untouched(backend: FaultyBackend) -> None:
    """Nothing visible, nothing held, no ingest open."""
    memory = backend.inner
    assert isinstance(memory, MemoryBackend)
    assert len(memory) == 0
    assert memory.held_bytes == 0
    assert backend.open_ingests == 0
