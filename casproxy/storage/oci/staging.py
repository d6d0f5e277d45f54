"""Owns bodies that may have to be sent twice: unlinked files with a common quota. Refuses to know who needs them.

A staged body has no name on the disk: the kernel frees it however the process ends. Its bytes are reserved before they
are written, so that all bodies together stay within the quota. Bytes move in worker threads only.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import IO, Final, TypeVar

import trio

from casproxy.errors import BackendBroken, StorageFull
from casproxy.in_thread import run_in_thread
from casproxy.outbound.message import Buffer, Head

T = TypeVar("T")

_READ_BYTES: Final = 1024 * 1024
_THREADS: Final = 8


class Staging:
    """The place for staged bodies. ``directory`` None: there is none. ``quota`` in bytes."""

    def __init__(self, directory: Path | None, quota: int) -> None:
        self.directory = directory
        self.reserved = 0
        self._quota = quota
        self._limiter = trio.CapacityLimiter(_THREADS)

    @property
    def available(self) -> bool:
        """Bodies can be staged here."""
        return self.directory is not None

    def open(self) -> StagedBody:
        """A new, empty body, where ``available``; nothing is created before its first byte."""
        assert self.directory is not None  # noqa: S101 - ``tempfile`` would take a directory of its own choice
        return StagedBody(self)

    def reserve(self, size: int) -> None:
        """Count ``size`` bytes more; ``StorageFull`` beyond the quota."""
        if self.reserved + size > self._quota:
            raise StorageFull("staging.quota is used up")
        self.reserved += size

    async def wait_idle(self) -> None:
        """Return once no thread works any more, abandoned ones included. Nobody may start work meanwhile."""
        async with AsyncExitStack() as taken:
            for _ in range(_THREADS):
                borrower = object()
                await self._limiter.acquire_on_behalf_of(borrower)
                taken.callback(self._limiter.release_on_behalf_of, borrower)

    async def run(self, work: Callable[[], T]) -> T:
        """Blocking work in a thread; cancelled, the thread is left to itself."""
        try:
            return await run_in_thread(work, limiter=self._limiter)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull("staging.dir has no room") from error
            raise BackendBroken("staging.dir cannot be used") from error


class StagedBody:
    """Bytes on the disk. Append, then read as often as need be; ``close`` in the end."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._file: IO[bytes] | None = None
        self._using = threading.Lock()  # held by the thread at work: nothing is closed under its hands
        self._closed = False
        self.size = 0

    async def append(self, piece: Buffer) -> None:
        """Add bytes. ``StorageFull``, ``BackendBroken``."""
        self._staging.reserve(len(piece))
        at, self.size = self.size, self.size + len(piece)
        await self._staging.run(lambda: self._write(piece, at))

    def part(self, offset: int, size: int) -> StagedPart:
        """A request body of ``size`` bytes from ``offset`` on."""
        return StagedPart(self, offset, size)

    async def read(self, offset: int, size: int) -> bytes:
        """At most 1 MiB of ``size`` bytes at ``offset``."""
        return await self._staging.run(lambda: self._read(offset, min(size, _READ_BYTES)))

    def close(self) -> None:
        """Give the room back; idempotent. A thread that was left at work closes the file when it is done."""
        self._staging.reserved -= self.size
        self.size = 0
        self._closed = True
        if self._using.acquire(blocking=False):
            try:
                self._close_file()
            finally:
                self._using.release()

    def _write(self, piece: Buffer, offset: int) -> None:
        with self._using:
            if self._file is None and not self._closed:
                self._file = tempfile.TemporaryFile(dir=self._staging.directory, buffering=0)  # noqa: SIM115
            view = memoryview(piece)
            while view and self._file is not None:
                written = os.pwrite(self._file.fileno(), view, offset)
                view, offset = view[written:], offset + written
            self._close_if_left()

    def _read(self, offset: int, size: int) -> bytes:
        with self._using:
            data = b"" if self._file is None else os.pread(self._file.fileno(), size, offset)
            self._close_if_left()
            return data

    def _close_if_left(self) -> None:
        if self._closed:
            self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class StagedPart:
    """A ``Body`` out of a staged one."""

    def __init__(self, body: StagedBody, offset: int, size: int) -> None:
        self._body = body
        self._offset = offset
        self._left = size
        self.size: int | None = size

    async def receive(self) -> bytes:
        """See ``Body.receive``."""
        data = await self._body.read(self._offset, self._left) if self._left else b""
        if self._left and not data:
            raise BackendBroken("a staged body ends early")
        self._offset += len(data)
        self._left -= len(data)
        return data

    def answered(self, answer: Head) -> None:
        """See ``Body.answered``: never, for the size is declared."""
