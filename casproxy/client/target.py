"""Owns where a download ends up: under its final name whole and verified, or not at all. Refuses to know the network.

The bytes go to another file in the target's directory, which takes the final name in one step after they were verified
and synced. Whatever happens before that step, the old file is untouched, and the other one is removed; or it stays to
be resumed, when that was asked for and it holds anything.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

from casproxy.client.errors import TargetExists, TargetUnusable
from casproxy.client.hashing import hash_file
from casproxy.client.part import open_part, part_path
from casproxy.client.progress import Progress
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


class Target:
    """A file being downloaded, not yet visible under its name. Made by ``open_target``."""

    def __init__(self, path: Path, temporary: Path, file: WorkerFile, *, force: bool, keep: bool) -> None:
        self._path = path
        self._temporary = temporary
        self._file = file
        self._force = force
        self._keep = keep

    async def hash_part(self, progress: Progress) -> tuple[hashlib._Hash, int]:
        """The sha256 state and the size, in bytes, of what an earlier download left; ``write`` goes on behind it."""
        size = await self._file.run(lambda raw: os.fstat(raw.fileno()).st_size)
        return await hash_file(self._file, size, progress)

    async def write(self, piece: memoryview) -> None:
        """Append one piece. Errors: ``OSError`` (no room, …)."""
        await self._file.write(piece)

    async def clear(self) -> None:
        """Drop what was written: it was wrong."""
        await self._file.run(_clear)

    def discard(self) -> None:
        """What was written is worth nothing: do not keep it."""
        self._keep = False

    async def commit(self) -> None:
        """Give the file its name. Errors: ``TargetExists`` when another file took it meanwhile, ``OSError``.

        Cancelled: the file is there whole, or not at all.
        """
        await self._file.run(self._publish)

    def size_kept(self) -> int:
        """Bytes that stay to be resumed when the block is left now; 0 after ``commit``, and when nothing may stay."""
        try:
            return os.stat(self._temporary, follow_symlinks=False).st_size if self._keep else 0
        except FileNotFoundError:
            return 0

    def _publish(self, file: io.FileIO) -> None:
        os.fsync(file.fileno())
        if self._force:
            os.replace(self._temporary, self._path)
        else:
            _rename_new(self._temporary, self._path)
        _sync_directory(self._path.parent)


@asynccontextmanager
async def open_target(path: Path, *, force: bool, resume: Digest | None = None) -> AsyncIterator[Target]:
    """Begin a download to ``path``; left without ``commit``, nothing of it remains.

    ``resume``: the artifact's digest. Then what was written so far remains, and the next download begins with it.
    Errors: ``TargetExists`` (unless ``force``), ``TargetUnusable`` for a directory or device, or a part in use;
    ``OSError``.
    """
    await in_worker(lambda: _check(path, force))
    # On the loop: an abandoned worker would create the file after the clean-up.
    if resume is None:
        temporary = path.parent / f".casproxy-{secrets.token_hex(8)}.part"
        raw = _create(temporary)
    else:
        temporary = part_path(path, resume)
        raw = open_part(temporary)
    with closing(WorkerFile(raw)) as file:
        target = Target(path, temporary, file, force=force, keep=resume is not None)
        try:
            yield target
        finally:  # before the file is closed and another download may have it
            if not target.size_kept():
                with suppress(FileNotFoundError):  # it has its final name
                    os.unlink(temporary)  # on the loop: clean-up must not depend on a free worker


def _clear(file: io.FileIO) -> None:
    file.seek(0)
    file.truncate()


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
    return io.FileIO(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "r+")


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
    else:
        os.unlink(temporary)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
