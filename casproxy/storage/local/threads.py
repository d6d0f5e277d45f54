"""Owns how blocking file work leaves the event loop and how its errors come back. Refuses to know what the work is.

Every call may be abandoned: cancellation returns at once and the thread ends on its own. Whatever a thread uses must
therefore belong to the thread until it is done (``OpenBlob``, ``Workspace``), never to the task that started it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from casproxy.errors import BackendBroken, BackendUnavailable, StorageError, StorageFull
from casproxy.in_thread import run_in_thread

T = TypeVar("T")

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BUSY: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ETIMEDOUT, errno.ESTALE})


class Threads:
    """Worker threads in three classes, so that slow ones hold up only their own kind.

    ``reads``: open and read, at most 1 MiB a call. ``writes``: write and fsync, which may take as long as the disk
    does. ``steps``: publish and discard, the short steps that a shield waits for.
    """

    def __init__(self, per_class: int = 16) -> None:
        self.reads = trio.CapacityLimiter(per_class)
        self.writes = trio.CapacityLimiter(per_class)
        self.steps = trio.CapacityLimiter(per_class)

    async def run(self, limiter: trio.CapacityLimiter, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread; cancellation abandons it. An ``OSError`` becomes the ``StorageError`` it means."""
        try:
            return await run_in_thread(work, limiter=limiter)
        except OSError as error:
            raise translate(error) from error

    async def wait_idle(self) -> None:
        """Return once no thread works any more, abandoned ones included. Nobody may start work meanwhile."""
        for limiter in (self.reads, self.writes, self.steps):
            borrowers = [object() for _ in range(int(limiter.total_tokens))]
            taken = []
            try:
                for borrower in borrowers:
                    await limiter.acquire_on_behalf_of(borrower)
                    taken.append(borrower)
            finally:
                for borrower in taken:
                    limiter.release_on_behalf_of(borrower)


def translate(error: OSError) -> StorageError:
    """What a failed system call means to a caller. The text names no path."""
    reason = (error.strerror or "unknown").lower()
    if error.errno in _FULL:
        return StorageFull(f"no room in local storage: {reason}")
    if error.errno in _BUSY:
        return BackendUnavailable(f"local storage is busy: {reason}")
    return BackendBroken(f"local storage failed: {reason}")
