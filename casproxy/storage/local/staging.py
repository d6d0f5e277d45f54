"""Owns the place where uploads are built, and what a crash leaves there. Refuses to know what an upload is.

Each process builds in an area of its own, whose lock file it holds (flock(2)) as long as it lives: the kernel lets go
of it however the process ends, also with a reboot, and a process number that was given out again means nothing.
Whoever starts takes away the areas whose lock nobody holds. An area is made and looked for under one common lock, so
that nobody ever sees an area whose owner has not locked it yet.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from casproxy.storage.local.paths import STAGING, directory

_LOCK: Final = "lock"
_OPEN_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Staging:
    """This process's area below a root. Every method blocks: call them in worker threads."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._area = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._held = ExitStack()
        self.fd = -1
        """The area's directory, between ``open`` and ``close``."""

    def open(self) -> None:
        """Sweep what dead processes left, then make this process's area. Raises ``OSError``."""
        with suppress(FileExistsError):
            os.mkdir(STAGING, dir_fd=self._root_fd)
        with ExitStack() as stale, directory(self._root_fd, [STAGING]) as staging_fd:
            with self.exclusive():
                names = [
                    name for name in os.listdir(staging_fd) if name != _LOCK and _is_stale(staging_fd, name, stale)
                ]
                self._make_area(staging_fd)
            for name in names:
                remove(staging_fd, name)

    def close(self) -> None:
        """Remove the area."""
        with directory(self._root_fd, [STAGING]) as staging_fd, self.exclusive():
            remove(staging_fd, self._area)
        self._held.close()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock that all processes on this root share; for short steps only."""
        with directory(self._root_fd, [STAGING]) as staging_fd, ExitStack() as held:
            _lock(staging_fd, held, fcntl.LOCK_EX)
            yield

    def new_name(self) -> str:
        """A name in the area that nobody has."""
        return secrets.token_hex(8)

    def _make_area(self, staging_fd: int) -> None:
        with ExitStack() as held:
            os.mkdir(self._area, dir_fd=staging_fd)
            self.fd = held.enter_context(directory(staging_fd, [self._area]))
            _lock(self.fd, held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._held = held.pop_all()


def remove(directory_fd: int, name: str) -> None:
    """Delete a tree or a file, links not followed; what is already gone is fine."""
    with suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=directory_fd)
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM):  # POSIX says EPERM for a directory, Linux EISDIR
                raise
            shutil.rmtree(name, dir_fd=directory_fd)


def _is_stale(staging_fd: int, name: str, held: ExitStack) -> bool:
    """True if nobody holds the area's lock; then ``held`` does, so that no other process sweeps it as well."""
    try:
        with directory(staging_fd, [name]) as area_fd:
            _lock(area_fd, held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except NotADirectoryError:
        return True
    return True


def _lock(directory_fd: int, held: ExitStack, operation: int) -> None:
    """Lock the file ``lock`` in a directory until ``held`` is closed."""
    fd = os.open(_LOCK, _OPEN_LOCK, 0o600, dir_fd=directory_fd)
    held.callback(os.close, fd)
    fcntl.flock(fd, operation)
