"""One download: what is sent, what is verified, and that no corrupt artifact is ever complete."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from casproxy.digest import EMPTY_DIGEST, Digest
from casproxy.errors import (
    ArtifactCorrupt,
    ArtifactNotFound,
    BackendBroken,
    BackendUnavailable,
    InvalidRequest,
    OffsetOutOfRange,
    PeerGone,
)
from casproxy.pipeline.api import Limits
from casproxy.pipeline.download import Delivery, Wanted, download
from casproxy.storage.api import NewResource
from casproxy.storage.memory import MemoryBackend
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.fakes.faulty_backend import Fault, FaultyBackend
from casproxy_tests.pipeline.sources import Receiver, content

LIMITS = Limits()
PIECE = 1_000
DATA = content(10 * PIECE + 1)
DIGEST = Digest.of(DATA)


async def store(data: bytes, *faults: Fault, digest: Digest | None = None, piece: int = PIECE) -> FaultyBackend:
    """A store that holds ``data``, in pieces; under another name when ``digest`` says so."""
    memory = MemoryBackend()
    digest = digest or Digest.of(data)
    async with memory.ingest(NewResource(digest, "name")) as ingest:
        for start in range(0, len(data), piece):
            await ingest.write(data[start : start + piece])
        await ingest.commit(digest, len(data))
    return FaultyBackend(memory, *faults)


async def get(
    backend: FaultyBackend, receiver: Receiver, *, offset: int = 0, limit: int = 0, verify_resume: bool = True
) -> int:
    wanted = Wanted(DIGEST, offset, limit)
    return (await download(backend, receiver, wanted, LIMITS, verify_resume=verify_resume)).sent


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 10 * PIECE])
async def test_a_whole_artifact(size: int) -> None:
    backend, receiver = await store(content(size)), Receiver()
    sent = await download(backend, receiver, Wanted(Digest.of(content(size))), LIMITS)
    assert sent == Delivery(size, size, complete=True)
    assert receiver.content == content(size)
    assert backend.calls["describe"] == 0  # one request for the artifact, none about it
    assert backend.open_readers == 0


EDGES = [0, 1, PIECE - 1, PIECE, PIECE + 1, len(DATA) - 1, len(DATA)]


@pytest.mark.parametrize("offset", EDGES)
@pytest.mark.parametrize("limit", [0, 1, PIECE, len(DATA) - 1, len(DATA), 10**12])
@pytest.mark.parametrize("verify_resume", [True, False])
async def test_ranges(offset: int, limit: int, verify_resume: bool) -> None:
    backend, receiver = await store(DATA), Receiver()
    sent = await get(backend, receiver, offset=offset, limit=limit, verify_resume=verify_resume)
    expected = DATA[offset : offset + limit if limit else None]
    assert receiver.content == expected
    assert sent == len(expected)


@pytest.mark.parametrize("offset", [-1, len(DATA) + 1])
async def test_an_offset_outside_the_artifact(offset: int) -> None:
    with pytest.raises(OffsetOutOfRange):
        await get(await store(DATA), Receiver(), offset=offset)


async def test_a_negative_limit() -> None:
    with pytest.raises(InvalidRequest, match="read_limit"):
        await get(await store(DATA), Receiver(), limit=-1)


@pytest.mark.parametrize("offset", [0, 1])
async def test_an_unknown_artifact(offset: int) -> None:
    with pytest.raises(ArtifactNotFound):
        await get(await store(b"another"), Receiver(), offset=offset)


@pytest.mark.parametrize("offset", [0, 1])
async def test_another_size_than_the_caller_names(offset: int) -> None:
    backend, receiver = await store(DATA), Receiver()
    with pytest.raises(ArtifactNotFound):
        await download(backend, receiver, Wanted(DIGEST, offset, size=len(DATA) + 1), LIMITS)
    assert receiver.content == b""
    sent = await download(backend, receiver, Wanted(DIGEST, offset, size=len(DATA)), LIMITS)
    assert sent == Delivery(len(DATA) - offset, len(DATA), complete=True)


@pytest.mark.parametrize(
    ("offset", "limit", "complete"),
    [(0, 0, True), (1, 0, True), (0, len(DATA), True), (0, len(DATA) - 1, False), (len(DATA), 0, False)],
)
async def test_a_delivery_is_complete_when_the_last_byte_was_in_it(offset: int, limit: int, complete: bool) -> None:
    backend = await store(DATA)
    assert (await download(backend, Receiver(), Wanted(DIGEST, offset, limit), LIMITS)).complete == complete


@pytest.mark.parametrize("flip", [0, PIECE, len(DATA) - 1])
async def test_a_corrupt_artifact_is_never_complete(flip: int) -> None:
    backend, receiver = await store(DATA, Fault("receive", flip=flip)), Receiver()
    with pytest.raises(ArtifactCorrupt) as caught:
        await get(backend, receiver)
    wrong = bytearray(DATA)
    wrong[flip] ^= 0xFF
    assert str(caught.value) == f"checksum mismatch: got={Digest.of(bytes(wrong)).hex}, want={DIGEST.hex}"
    assert len(receiver.content) < len(DATA)


async def test_a_corrupt_artifact_of_one_piece_sends_nothing() -> None:
    backend, receiver = await store(b"x", digest=DIGEST), Receiver()
    with pytest.raises(ArtifactCorrupt):
        await get(backend, receiver)
    assert receiver.pieces == []


async def test_bytes_missing_at_the_end_are_corruption() -> None:
    backend, receiver = await store(DATA[:-1], digest=DIGEST), Receiver()
    with pytest.raises(ArtifactCorrupt):
        await get(backend, receiver)


@pytest.mark.parametrize("flip", [0, 5 * PIECE + 1, len(DATA) - 1])
async def test_a_resumed_download_is_verified_with_what_came_before(flip: int) -> None:
    backend, receiver = await store(DATA, Fault("receive", flip=flip)), Receiver()
    with pytest.raises(ArtifactCorrupt):
        await get(backend, receiver, offset=5 * PIECE + 1)
    assert len(receiver.content) < len(DATA) - 5 * PIECE - 1


async def test_a_resumed_download_unverified() -> None:
    backend, receiver = await store(DATA, Fault("receive", flip=len(DATA) - 1)), Receiver()
    await get(backend, receiver, offset=5 * PIECE, verify_resume=False)
    assert receiver.content[:-1] == DATA[5 * PIECE : -1]


async def test_an_inner_range_is_passed_on_unverified() -> None:
    backend, receiver = await store(DATA, Fault("receive", flip=PIECE)), Receiver()
    await get(backend, receiver, offset=PIECE, limit=2 * PIECE)
    assert receiver.content[1:] == DATA[PIECE + 1 : 3 * PIECE]


async def test_pieces_are_never_larger_than_a_mebibyte() -> None:
    data = content(3_000_000)
    backend, receiver = await store(data, piece=len(data)), Receiver()
    await download(backend, receiver, Wanted(Digest.of(data)), LIMITS)
    assert receiver.content == data
    assert max(map(len, receiver.pieces)) == 1024 * 1024


async def test_the_first_byte_leaves_before_the_last_has_arrived() -> None:
    backend, receiver = await store(DATA, Fault("receive", after_bytes=3 * PIECE, stall=True)), Receiver()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, backend, receiver)
        await backend.faults[0].reached.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert receiver.content == DATA[:PIECE]  # two pieces have arrived, the last of them is held back
        nursery.cancel_scope.cancel()
    assert backend.open_readers == 0


# Broken connections


@pytest.mark.parametrize("after_bytes", [PIECE + 1, 5 * PIECE, len(DATA)])
async def test_a_broken_connection_is_reopened_where_it_broke(after_bytes: int) -> None:
    broken = Fault("receive", after_bytes=after_bytes, error=BackendUnavailable("reset"))
    backend, receiver = await store(DATA, broken), Receiver()
    assert await get(backend, receiver) == len(DATA)
    assert receiver.content == DATA
    assert backend.calls["read"] == 2


async def test_an_inner_range_is_reopened_where_it_broke() -> None:
    broken = Fault("receive", after_bytes=PIECE + 1, error=BackendUnavailable("reset"))
    backend, receiver = await store(DATA, broken), Receiver()
    await get(backend, receiver, offset=7, limit=4 * PIECE)
    assert receiver.content == DATA[7 : 7 + 4 * PIECE]


async def test_a_connection_that_keeps_breaking_is_given_up() -> None:
    error = BackendUnavailable("reset")
    broken = Fault("receive", after_bytes=PIECE + 1, error=error, times=100)
    backend, receiver = await store(DATA, broken), Receiver()
    with pytest.raises(BackendUnavailable) as caught:
        await get(backend, receiver)
    assert caught.value is error
    assert backend.calls["read"] <= 1 + LIMITS.resume_attempts
    assert backend.open_readers == 0


async def test_a_connection_that_breaks_at_once_is_not_reopened() -> None:
    backend = await store(DATA, Fault("receive", error=BackendUnavailable("reset")))
    with pytest.raises(BackendUnavailable):
        await get(backend, Receiver())
    assert backend.calls["read"] == 1


async def test_a_raw_reset_is_the_stores() -> None:
    reset = ConnectionResetError()
    backend = await store(DATA, Fault("receive", after_bytes=PIECE + 1, error=reset))
    with pytest.raises(BackendBroken) as caught:
        await get(backend, Receiver())
    assert caught.value.__cause__ is reset


async def test_a_receiver_that_left_is_heard() -> None:
    gone = PeerGone("gone")
    backend = await store(content(100 * PIECE))
    with pytest.raises(PeerGone) as caught:
        await download(backend, Receiver(error=gone), Wanted(Digest.of(content(100 * PIECE))), LIMITS)
    assert caught.value is gone
    assert backend.open_readers == 0


# Bounds


async def test_a_stalled_receiver_holds_a_few_pieces_only() -> None:
    data = content(1_000 * PIECE)
    backend, receiver = await store(data), Receiver(stalled=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(download, backend, receiver, Wanted(Digest.of(data)), LIMITS)
        await trio.testing.wait_all_tasks_blocked()
        assert backend.calls["receive"] <= 2 * LIMITS.queued_pieces + 4
        receiver.resume()
    assert receiver.content == data


async def test_a_look_up_has_a_deadline(autojump_clock: MockClock) -> None:
    backend = await store(DATA, Fault("describe", stall=True))
    with pytest.raises(BackendUnavailable, match="did not answer"):
        await get(backend, Receiver(), offset=1)
    assert trio.current_time() == pytest.approx(LIMITS.lookup_timeout)


@pytest.mark.parametrize("offset", [0, 5 * PIECE])
async def test_a_cancel_at_every_await_leaves_nothing(offset: int) -> None:
    backend = await store(DATA)

    async def scenario() -> bytes:
        receiver = Receiver()
        await get(backend, receiver, offset=offset)
        return receiver.content

    async def check(run: Run[bytes]) -> None:
        assert backend.open_readers == 0
        assert run.value in (None, DATA[offset:])

    assert await cancel_everywhere(scenario, check) > 10


async def test_the_empty_artifact_is_verified_too() -> None:
    receiver = Receiver()
    with pytest.raises(ArtifactCorrupt):
        await download(await store(b"x", digest=EMPTY_DIGEST), receiver, Wanted(EMPTY_DIGEST), LIMITS)
    assert receiver.pieces == []
