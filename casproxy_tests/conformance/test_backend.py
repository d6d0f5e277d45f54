"""The contract of ``casproxy.storage.api``, sentence by sentence, for every store in ``backends.BACKENDS``."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

import pytest
import trio

from casproxy.digest import EMPTY_DIGEST, Digest
from casproxy.errors import ArtifactNotFound, BackendBroken, OffsetOutOfRange, StorageError
from casproxy.storage.api import Ingest, NewResource, Piece, Reader, Resource
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.conformance.store import Store
from casproxy_tests.conformance.traffic import MIB, content, get, put

SIZES = [0, 1, 511, 513, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 7]
NAMES = ["a.bin", "señal-日本語-🚀.tar.gz", 'a "b";c.bin', "<a>&\u2028b", ".", "../x/y", "x" * 1024]
UNKNOWN = Digest.of(b"never stored")


@pytest.mark.parametrize("size", SIZES)
async def test_round_trip(store: Store, size: int) -> None:
    data = content(size)
    stored = await put(store.backend, data)
    assert stored == Resource(Digest.of(data), "a.bin", size)
    assert await store.backend.describe(stored.digest) == stored
    assert await get(store.backend, stored.digest) == data


@pytest.mark.parametrize("name", NAMES)
async def test_file_name_comes_back(store: Store, name: str) -> None:
    stored = await put(store.backend, b"named", file_name=name)
    assert stored.file_name == name
    assert (await store.twin.describe(stored.digest)).file_name == name


@pytest.mark.parametrize("piece_size", [1, 7, 4096, MIB])
async def test_pieces_of_any_size_arrive_in_order(store: Store, piece_size: int) -> None:
    data = content(min(3 * MIB, 3000 * piece_size))
    stored = await put(store.backend, data, piece_size=piece_size)
    assert await get(store.backend, stored.digest) == data


async def test_pieces_of_any_type(store: Store) -> None:
    pieces: list[Piece] = [b"abc", bytearray(b"def"), memoryview(b"xxghixx")[2:5], b"", memoryview(bytearray(b"jkl"))]
    data = b"abcdefghijkl"
    async with store.backend.ingest(NewResource(Digest.of(data), "mixed")) as ingest:
        for piece in pieces:
            await ingest.write(piece)
        await ingest.commit(Digest.of(data), len(data))
    assert await get(store.backend, Digest.of(data)) == data


async def test_empty_artifact_needs_no_write(store: Store) -> None:
    assert await put(store.backend, b"") == Resource(EMPTY_DIGEST, "a.bin", 0)
    assert await get(store.twin, EMPTY_DIGEST) == b""


RANGE_SIZE = 2 * MIB + 3
POINTS = [0, 1, 255, 256 * 1024, MIB - 1, MIB, MIB + 1, RANGE_SIZE - 1, RANGE_SIZE]


async def test_every_range(store: Store) -> None:
    data = content(RANGE_SIZE)
    digest = (await put(store.backend, data)).digest
    for offset, limit in itertools.product(POINTS, [*POINTS, RANGE_SIZE + 1, 2**40]):
        want = data[offset : offset + limit] if limit else data[offset:]
        assert await get(store.backend, digest, offset, limit) == want, (offset, limit)


@pytest.mark.parametrize("offset", [-1, 6, 2**63 - 1])
async def test_offset_out_of_range(store: Store, offset: int) -> None:
    digest = (await put(store.backend, b"12345")).digest
    with pytest.raises(OffsetOutOfRange) as caught:
        await get(store.backend, digest, offset)
    assert (caught.value.offset, caught.value.size) == (offset, 5)


async def test_unknown_artifact(store: Store) -> None:
    await put(store.backend, b"something else")
    with pytest.raises(ArtifactNotFound):
        await store.backend.describe(UNKNOWN)
    with pytest.raises(ArtifactNotFound):
        await get(store.backend, UNKNOWN)


async def test_uncommitted_is_invisible(store: Store) -> None:
    data = content(2 * MIB)
    digest = Digest.of(data)
    async with store.backend.ingest(NewResource(digest, "a.bin", len(data))) as ingest:
        await ingest.write(data[:MIB])
        await ingest.write(data[MIB:])
        for backend in (store.backend, store.twin):
            with pytest.raises(ArtifactNotFound):
                await backend.describe(digest)
        await ingest.commit(digest, len(data))
        assert await get(store.twin, digest) == data


@pytest.mark.parametrize("written", [0, 1, MIB, 2 * MIB + 5])
async def test_leaving_without_commit_releases(store: Store, written: int) -> None:
    await put(store.backend, b"stays")
    before = store.snapshot()
    async with store.backend.ingest(NewResource(UNKNOWN, "a.bin")) as ingest:
        for start in range(0, written, MIB):
            await ingest.write(content(min(MIB, written - start)))
    assert store.snapshot() == before


async def test_leaving_by_an_error_releases_and_passes_it_on(store: Store) -> None:
    before = store.snapshot()

    async def upload() -> None:
        async with store.backend.ingest(NewResource(UNKNOWN, "a.bin")) as ingest:
            await ingest.write(content(MIB))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await upload()
    assert store.snapshot() == before


async def test_leaving_twice_is_harmless(store: Store) -> None:
    entered = store.backend.ingest(NewResource(UNKNOWN, "a.bin"))
    ingest = await entered.__aenter__()
    await ingest.write(b"x")
    before = store.snapshot()
    await entered.__aexit__(None, None, None)
    await entered.__aexit__(None, None, None)
    assert store.snapshot().keys() <= before.keys()


@pytest.mark.parametrize(("digest", "size"), [(Digest.of(b"12345"), 4), (Digest.of(b"12345"), 6), (UNKNOWN, 5)])
async def test_commit_of_something_else_is_refused(store: Store, digest: Digest, size: int) -> None:
    before = store.snapshot()
    async with store.backend.ingest(NewResource(Digest.of(b"12345"), "a.bin")) as ingest:
        await ingest.write(b"12345")
        with pytest.raises(BackendBroken):
            await ingest.commit(digest, size)
    assert store.snapshot() == before


async def _cancelled_write(ingest: Ingest) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await ingest.write(content(2 * MIB))
    assert scope.cancelled_caught


async def _cancelled_commit(ingest: Ingest) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await ingest.commit(UNKNOWN, 1)
    assert scope.cancelled_caught


async def _failed_commit(ingest: Ingest) -> None:
    with pytest.raises(BackendBroken):
        await ingest.commit(UNKNOWN, 77)


@pytest.mark.parametrize("spoil", [_cancelled_write, _cancelled_commit, _failed_commit])
async def test_after_a_failure_it_can_only_be_left(store: Store, spoil: Callable[[Ingest], Awaitable[None]]) -> None:
    before = store.snapshot()
    async with store.backend.ingest(NewResource(UNKNOWN, "a.bin")) as ingest:
        await ingest.write(b"x")
        await spoil(ingest)
        with pytest.raises(RuntimeError):
            await ingest.write(b"y")
        with pytest.raises(RuntimeError):
            await ingest.commit(UNKNOWN, 1)
    await store.settle()
    assert store.snapshot() == before


async def test_after_the_commit_it_can_only_be_left(store: Store) -> None:
    digest = Digest.of(b"x")
    async with store.backend.ingest(NewResource(digest, "a.bin")) as ingest:
        await ingest.write(b"x")
        await ingest.commit(digest, 1)
        after = store.snapshot()
        with pytest.raises(RuntimeError):
            await ingest.write(b"y")
        with pytest.raises(RuntimeError):
            await ingest.commit(digest, 1)
    assert store.snapshot() == after


async def test_committing_what_is_stored_leaves_the_good_copy(store: Store) -> None:
    first = await put(store.backend, b"again", file_name="first")
    before = store.snapshot()
    assert await put(store.twin, b"again", file_name="second") == first
    assert store.snapshot() == before


async def test_two_writers_of_one_artifact(store: Store) -> None:
    data = content(2 * MIB + 1)
    digest = Digest.of(data)
    new = NewResource(digest, "a.bin", len(data))
    async with store.backend.ingest(new) as one, store.twin.ingest(new) as two:
        for start in range(0, len(data), MIB):
            await one.write(data[start : start + MIB])
            await two.write(data[start : start + MIB])
        stored = await one.commit(digest, len(data))
        assert await two.commit(digest, len(data)) == stored
        before = store.snapshot()
    assert await get(store.backend, digest) == data
    assert store.snapshot().keys() <= before.keys()


async def test_many_writers_and_readers_at_once(store: Store) -> None:
    names = [content(300_000, seed) for seed in range(4)]

    async def upload(data: bytes, twin: bool) -> None:
        backend = store.twin if twin else store.backend
        await put(backend, data)
        assert await get(backend, Digest.of(data)) == data

    async with trio.open_nursery() as nursery:
        for data, twin, _ in itertools.product(names, [False, True], range(4)):
            nursery.start_soon(upload, data, twin)
    before = store.snapshot()
    for data in names:
        await put(store.backend, data)
    assert store.snapshot() == before


async def test_damaged_bytes_are_served_as_they_are(store: Store) -> None:
    """The pipeline verifies; a store that judged as well would have to read everything first."""
    data = content(3 * MIB)
    digest = (await put(store.backend, data)).digest
    store.flip(digest)
    read = await get(store.backend, digest)
    assert len(read) == len(data)
    assert read != data


async def test_a_store_that_ends_early_raises(store: Store) -> None:
    if store.cut is None:
        pytest.skip("this store cannot lose bytes")
    data = content(4 * MIB)
    digest = (await put(store.backend, data)).digest
    async with store.backend.read(digest) as reader:
        store.cut(digest)
        with pytest.raises(StorageError):
            await _receive_to_the_end(reader)


async def _receive_to_the_end(reader: Reader) -> None:
    while await reader.receive():
        pass


async def test_check_writable_leaves_nothing(store: Store) -> None:
    before = store.snapshot()
    await store.backend.check_writable()
    assert store.snapshot() == before


async def test_leaving_a_reader_early(store: Store) -> None:
    digest = (await put(store.backend, content(3 * MIB))).digest
    async with store.backend.read(digest) as reader:
        await reader.receive()
    async with store.backend.read(digest):
        pass


# Cancelled at every await


async def test_cancelled_upload(store: Store) -> None:
    """Complete or absent, and nothing else changed."""
    await put(store.backend, b"stays")
    seeds = itertools.count()
    data = b""
    before = store.snapshot()

    async def scenario() -> Resource:
        nonlocal data, before
        data = content(2 * MIB + 17, next(seeds))
        before = store.snapshot()
        return await put(store.backend, data, piece_size=700_000)

    async def check(run: Run[Resource]) -> None:
        digest = Digest.of(data)
        if run.cancelled and store.snapshot() == before:
            return
        assert await get(store.twin, digest) == data
        assert await store.backend.describe(digest) == Resource(digest, "a.bin", len(data))
        await put(store.backend, data)
        other = {name: kept for name, kept in store.snapshot().items() if digest.hex not in name}
        assert other.keys() - before.keys() <= {f"tenant/{digest.hex[:2]}"}, "more than the artifact"

    assert await cancel_everywhere(scenario, check, settle=store.settle, stride=store.stride) >= 3


async def test_cancelled_abort(store: Store) -> None:
    before = store.snapshot()

    async def scenario() -> None:
        async with store.backend.ingest(NewResource(UNKNOWN, "a.bin")) as ingest:
            await ingest.write(content(MIB))
            await ingest.write(content(MIB + 5)[:MIB])

    async def check(run: Run[None]) -> None:
        assert store.snapshot() == before

    await cancel_everywhere(scenario, check, settle=store.settle, stride=store.stride)


async def test_cancelled_writers_of_one_artifact(store: Store) -> None:
    seeds = itertools.count()
    data = b""

    async def scenario() -> None:
        nonlocal data
        data = content(MIB + 3, next(seeds))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, store.backend, data)
            nursery.start_soon(put, store.twin, data)

    async def check(run: Run[None]) -> None:
        await put(store.backend, data)
        assert await get(store.twin, Digest.of(data)) == data

    await cancel_everywhere(scenario, check, settle=store.settle, stride=store.stride)


async def test_cancelled_read(store: Store) -> None:
    data = content(2 * MIB + 9)
    digest = (await put(store.backend, data)).digest
    before = store.snapshot()

    async def scenario() -> bytes:
        return await get(store.backend, digest, 3)

    async def check(run: Run[bytes]) -> None:
        assert run.cancelled or run.value == data[3:]
        assert store.snapshot() == before

    await cancel_everywhere(scenario, check, settle=store.settle, stride=store.stride)


async def test_cancelled_describe(store: Store) -> None:
    stored = await put(store.backend, b"x")

    async def scenario() -> Resource:
        return await store.backend.describe(stored.digest)

    async def check(run: Run[Resource]) -> None:
        assert run.cancelled or run.value == stored

    await cancel_everywhere(scenario, check, settle=store.settle, stride=store.stride)


async def test_cancelled_check_writable(store: Store) -> None:
    before = store.snapshot()

    async def check(run: Run[None]) -> None:
        assert store.snapshot() == before

    await cancel_everywhere(store.backend.check_writable, check, settle=store.settle, stride=store.stride)
