"""Owns file access from Trio: blocking calls in a worker thread, never on the event loop. Refuses to know file formats.

A cancelled call returns at once and leaves its thread behind in the system call. Closing the descriptor under that
thread could make it read or write whatever file gets the number next, so the last one to use the file closes it.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import TypeVar

import trio

from casproxy.in_thread import run_in_thread

T = TypeVar("T")

PIECE_SIZE = 1024 * 1024
"""Bytes per read, and per message of an upload: the size existing clients use and every server accepts."""

_LIMITER = trio.CapacityLimiter(8)  # own, so that a dead network file system cannot eat the default one


async def in_worker(work: Callable[[], T]) -> T:
    """Run blocking ``work`` in a worker thread; cancelled, it is left to end on its own."""
    return await run_in_thread(work, limiter=_LIMITER)


class WorkerFile:
    """An unbuffered file, given open or opened by its first use. Operations run in worker threads, one at a time.

    Iterating gives pieces of at most ``PIECE_SIZE`` bytes from the current position to the end.
    """

    def __init__(self, file: Callable[[], io.FileIO] | io.FileIO) -> None:
        self._opener: Callable[[], io.FileIO] = (lambda: file) if isinstance(file, io.FileIO) else file
        self._file = file if isinstance(file, io.FileIO) else None  # to be closed even if it is never used
        self._lock = threading.Lock()
        self._busy = False
        self._closed = False

    async def run(self, work: Callable[[io.FileIO], T]) -> T:
        """Run ``work`` with the file. Cancelled: ``work`` ends on its own and the file can only be closed."""
        return await in_worker(lambda: self._guarded(work))

    async def read(self, size: int = PIECE_SIZE) -> bytes:
        """At most ``size`` bytes from the current position; ``b""`` at the end."""
        return await self.run(lambda file: file.read(size)) or b""

    async def write(self, data: memoryview) -> None:
        """Write all of ``data`` at the current position."""
        await self.run(lambda file: write_all(file, data))

    def close(self) -> None:
        """Close the file now, or as soon as an abandoned call lets go of it. Idempotent."""
        with self._lock:
            self._closed = True
            if not self._busy:
                self._close_file()

    def __aiter__(self) -> WorkerFile:
        return self

    async def __anext__(self) -> bytes:
        if piece := await self.read():
            return piece
        raise StopAsyncIteration

    def _guarded(self, work: Callable[[io.FileIO], T]) -> T:
        with self._lock:
            if self._closed or self._busy:
                raise trio.ClosedResourceError("the file was closed or abandoned")
            self._busy = True
        try:
            if self._file is None:
                self._file = self._opener()
            return work(self._file)
        finally:
            with self._lock:
                self._busy = False
                if self._closed:
                    self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()


def write_all(file: io.FileIO, data: memoryview) -> None:
    """Blocking: write all of ``data``, however little the system takes at a time."""
    while data:
        data = data[file.write(data) or 0 :]
