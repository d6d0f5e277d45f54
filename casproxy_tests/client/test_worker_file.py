"""Files in worker threads, abandoned ones included."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
import trio

from casproxy.client.worker_file import PIECE_SIZE, WorkerFile, write_all


async def test_reads_to_the_end_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(b"x" * (PIECE_SIZE + 1))
    file = WorkerFile(lambda: io.FileIO(path))
    assert [len(piece) async for piece in file] == [PIECE_SIZE, 1]
    assert await file.read() == b""
    file.close()


async def test_a_closed_file_does_nothing_more(tmp_path: Path) -> None:
    file = WorkerFile(lambda: pytest.fail("opened after close"))
    file.close()
    with pytest.raises(trio.ClosedResourceError):
        await file.read()


async def test_the_thread_that_was_abandoned_closes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(b"abc")
    raw = io.FileIO(path)
    entered, leave, left = trio.Event(), threading.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def slow(file: io.FileIO) -> None:
        trio.from_thread.run_sync(entered.set, trio_token=token)
        leave.wait()
        assert not file.closed  # or it would read from whoever has the number now
        left.set()

    file = WorkerFile(lambda: raw)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.run, slow)
        await entered.wait()
        nursery.cancel_scope.cancel()
    file.close()
    assert not raw.closed
    with pytest.raises(trio.ClosedResourceError):
        await file.read()
    leave.set()
    await trio.to_thread.run_sync(left.wait)
    while not raw.closed:  # the thread's last statement
        await trio.lowlevel.checkpoint()


def test_write_all_goes_on_after_a_short_write() -> None:
    class Reluctant(io.FileIO):
        def __init__(self) -> None:
            self.got = b""

        def write(self, data: object) -> int:
            assert isinstance(data, memoryview)
            self.got += bytes(data[:2])
            return len(data[:2])

    file = Reluctant()
    write_all(file, memoryview(b"abcde"))
    assert file.got == b"abcde"
