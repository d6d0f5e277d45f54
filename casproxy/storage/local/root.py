"""Owns the place of the FS backend: opens it, sweeps it, and closes it when no thread uses it any more."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
import trio

from casproxy.errors import ConfigError
from casproxy.storage.local.backend import LocalBackend
from casproxy.storage.local.paths import parse_path
from casproxy.storage.local.staging import Staging
from casproxy.storage.local.threads import Threads

_CLOSE_SECONDS: Final = 5.0

_log = structlog.stdlib.get_logger("casproxy.storage")


class LocalRoot:
    """An open root. ``threads``: what all backends on it share."""

    def __init__(self, fd: int, staging: Staging) -> None:
        self.threads = Threads()
        self._fd = fd
        self._staging = staging

    def backend(self, path: str) -> LocalBackend:
        """The store of the tenant whose secret says ``Path: path``. No I/O. Raises ``BackendRefused``."""
        return LocalBackend(self._fd, self._staging, self.threads, parse_path(path))


@asynccontextmanager
async def open_local_root(path: Path) -> AsyncIterator[LocalRoot]:
    """Open ``path`` (made, 0700, if missing) and remove what crashed uploads left; raises ``ConfigError``.

    Everything opened from it must be left before. Leaving waits up to 5 s for abandoned threads; while one is stuck its
    descriptors stay open (they end with the process, and the next start sweeps).
    """
    fd, staging = await trio.to_thread.run_sync(_open, path)  # start-up: nothing to cancel for
    root = LocalRoot(fd, staging)
    try:
        yield root
    finally:
        with trio.move_on_after(_CLOSE_SECONDS, shield=True) as closing:
            await root.threads.wait_idle()
            await trio.to_thread.run_sync(_close, fd, staging)
        if closing.cancelled_caught:
            _log.warning("storage_left_open", reason="a thread is stuck in the file system")


def _open(path: Path) -> tuple[int, Staging]:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(path, error) from error
    staging = Staging(fd)
    try:
        staging.open()
    except OSError as error:
        os.close(fd)
        raise _unusable(path, error) from error
    return fd, staging


def _close(fd: int, staging: Staging) -> None:
    try:
        staging.close()
    except OSError as error:
        _log.warning("staging_not_removed", reason=str(error))
    finally:
        os.close(fd)


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"storage.fs.root: cannot use {path}: {(error.strerror or 'unknown').lower()};"
        " name a directory on a file system with room where this user may write"
    )
