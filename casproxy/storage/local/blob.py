"""Owns the descriptor of an artifact that is being read. Refuses to close it under a thread that still reads.

A task that is cancelled leaves its thread in ``read`` and goes on to ``close``. Closed at once, the number could be
given to another file before the thread uses it: therefore the last user closes.
"""

from __future__ import annotations

import errno
import os
import threading


class OpenBlob:
    """A file open for reading. ``close`` never blocks; the other methods are for worker threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fd = -1
        self._users = 0
        self._closed = False

    def adopt(self, fd: int) -> None:
        """Take over ``fd``; closes it when ``close`` came first."""
        with self._lock:
            self._fd = fd
            self._close_if_unused()

    def read(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset`` (bytes). Raises ``OSError``."""
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._users += 1
        try:
            return os.pread(self._fd, size, offset)
        finally:
            with self._lock:
                self._users -= 1
                self._close_if_unused()

    def close(self) -> None:
        """Close now, or as soon as the thread is done that reads at this moment. Idempotent."""
        with self._lock:
            self._closed = True
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._closed and not self._users and self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
