"""Owns where a download ends up: under its final name whole and verified, or not at all. Refuses to know the network.

The bytes go to a temporary file in the target's directory, which takes the final name in one step after they were
verified and synced. Whatever happens before that step, the temporary file is removed and the old file is untouched.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from casproxy.client.errors import TargetExists, TargetUnusable
from casproxy.client.worker_file import WorkerFile, in_worker
from casproxy.digest import Digest

_SEPARATORS = re.compile(r"[/\\]")
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def safe_file_name(stored: str, digest: Digest) -> str:
    """The name to save an artifact under: the last segment of its stored name, never a path.

    Whoever uploaded the artifact chose the name: ``../../.profile`` is ``.profile`` here, and what names no file
    (empty, ``.``, ``..``, a NUL inside) becomes the digest's 64 hex digits.
    """
    name = _SEPARATORS.split(stored)[-1]
    return digest.hex if name in ("", ".", "..") or "\0" in name else name


@dataclass(frozen=True, slots=True)
class Target:
    """A file being downloaded, not yet visible under its name."""

    path: Path
    force: bool
    _temporary: Path
    _file: WorkerFile

    async def write(self, piece: memoryview) -> None:
        """Append one piece. Errors: ``OSError`` (no room, …)."""
        await self._file.write(piece)

    async def commit(self) -> None:
        """Give the file its name. Errors: ``TargetExists`` when another file took it meanwhile, ``OSError``.

        Cancelled: the file is there whole, or not at all.
        """
        await self._file.run(self._publish)

    def _publish(self, file: io.FileIO) -> None:
        os.fsync(file.fileno())
        if self.force:
            os.replace(self._temporary, self.path)
        else:
            _rename_new(self._temporary, self.path)
        _sync_directory(self.path.parent)


@asynccontextmanager
async def open_target(path: Path, *, force: bool) -> AsyncIterator[Target]:
    """Begin a download to ``path``; left without ``commit``, nothing of it remains.

    Errors: ``TargetExists`` (unless ``force``), ``TargetUnusable`` for a directory or device, ``OSError``.
    """
    await in_worker(lambda: _check(path, force))
    temporary = path.parent / f".casproxy-{secrets.token_hex(8)}.part"
    raw = _create(temporary)  # on the loop: an abandoned worker would create it after the clean-up
    try:
        with closing(WorkerFile(raw)) as file:
            yield Target(path, force, temporary, file)
    finally:
        with suppress(FileNotFoundError):  # it has its final name
            os.unlink(temporary)  # on the loop: clean-up must not depend on a free worker


def _check(path: Path, force: bool) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise TargetUnusable(f"{path} is not a regular file: give another name with -o (-o - writes to stdout)")
    if not force:
        raise TargetExists(path)


def _create(temporary: Path) -> io.FileIO:
    return io.FileIO(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "w")


def _rename_new(temporary: Path, path: Path) -> None:
    """Rename without overwriting, in one step where the file system has hard links."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise TargetExists(path) from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _check(path, force=False)
        os.rename(temporary, path)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
