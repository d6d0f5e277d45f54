"""What an upload reads from."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from casproxy.client.progress import Phase, no_progress
from casproxy.client.source import Source, UploadData, open_source
from casproxy.client.worker_file import PIECE_SIZE
from casproxy.digest import EMPTY_DIGEST, Digest

SIZES = [0, 1, PIECE_SIZE, 8 * PIECE_SIZE, 8 * PIECE_SIZE + 1]


class Stream:
    """An async iterable of the given pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = iter(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


async def read_all(source: Source) -> bytes:
    pieces = []
    while piece := await source.read(PIECE_SIZE):
        assert len(piece) <= PIECE_SIZE
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_is_hashed_and_then_read_from_its_start(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(content)
    seen: list[tuple[Phase, int, int | None]] = []
    async with open_source(path, lambda *args: seen.append(args)) as source:
        assert (source.digest, source.size) == (Digest.of(content), size)
        assert await read_all(source) == content
    assert seen[-1:] == ([(Phase.HASH, size, size)] if size else [])


async def test_bytes_and_empty_bytes() -> None:
    async with open_source(b"abc", no_progress) as source:
        assert (source.digest, source.size, await read_all(source)) == (Digest.of(b"abc"), 3, b"abc")
    async with open_source(b"", no_progress) as source:
        assert (source.digest, source.size) == (EMPTY_DIGEST, 0)


async def test_a_stream_is_spooled_where_nobody_sees_it() -> None:
    seen: list[tuple[Phase, int, int | None]] = []
    async with open_source(Stream(b"ab", b"c" * 5), lambda *args: seen.append(args)) as source:
        assert (source.digest, source.size) == (Digest.of(b"abccccc"), 7)
        assert await read_all(source) == b"abccccc"
    assert seen == [(Phase.SPOOL, 2, None), (Phase.SPOOL, 7, None)]


async def test_a_pipe_is_spooled_like_a_stream(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, fifo.write_bytes, b"through the pipe")
        async with open_source(fifo, no_progress) as source:
            assert await read_all(source) == b"through the pipe"
            assert source.digest == Digest.of(b"through the pipe")


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="no /proc on this system")
async def test_a_file_that_hides_its_size_is_spooled() -> None:
    async with open_source(path := Path("/proc/version"), no_progress) as source:
        assert source.size > 0
        assert await read_all(source) == await trio.Path(path).read_bytes()


async def test_both_readings_are_of_the_file_that_was_opened(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"first")
    other.write_bytes(b"second")
    async with open_source(path, no_progress) as source:
        other.replace(path)
        assert await read_all(source) == b"first"


async def test_a_digest_that_is_known_saves_the_hashing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    data: list[UploadData] = [path, b"abc", Stream(b"abc")]
    for each in data:
        async with open_source(each, no_progress, EMPTY_DIGEST) as source:
            assert (source.digest, source.size, await read_all(source)) == (EMPTY_DIGEST, 3, b"abc")


@pytest.mark.parametrize(("name", "error"), [("missing", FileNotFoundError), ("", IsADirectoryError)])
async def test_what_cannot_be_read_is_an_os_error_with_its_name(
    tmp_path: Path, name: str, error: type[OSError]
) -> None:
    with pytest.raises(error) as caught:
        async with open_source(tmp_path / name, no_progress):
            pytest.fail("opened")
    assert Path(os.fsdecode(caught.value.filename)) == tmp_path / name


async def test_the_stream_s_own_error_comes_through() -> None:
    class Broken(Stream):
        async def __anext__(self) -> bytes:
            raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        async with open_source(Broken(), no_progress):
            pytest.fail("opened")
