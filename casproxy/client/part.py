"""Owns the file in which an unfinished download waits to be resumed: its name, whose it is, that only one writes it.

Refuses to know what is in it. The name holds the digest, so that ``report.pdf.9273c6d42c82.part`` is never taken for a
part of another artifact, nor for a file of the user's own. It is a hint and not a proof: whoever resumes hashes it all.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat
from pathlib import Path

from casproxy.client.errors import TargetUnusable
from casproxy.digest import Digest

_LONGEST_NAME = 255  # bytes; NAME_MAX of Linux's file systems
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


def part_path(path: Path, digest: Digest) -> Path:
    """Where the part of a download to ``path`` is: beside it, its name cut where the system's limit demands it."""
    suffix = f".{digest.hex[:12]}.part"
    name = os.fsencode(path.name)
    if len(name) + len(suffix) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - len(suffix)].decode(errors="ignore").encode()  # no half character
    return path.with_name(os.fsdecode(name) + suffix)


def open_part(path: Path) -> io.FileIO:
    """Open the part for reading and writing, made empty when there is none; closing it lets others have it.

    Does not wait. Errors: ``TargetUnusable`` when another download has it, or when somebody else could write to it;
    ``OSError``.
    """
    while True:
        new = True
        try:
            file = _open(path, os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            new = False
            try:
                file = _open(path, 0)
            except FileNotFoundError:
                continue  # the download that had it has just ended
        try:
            _lock(file, path)
            if _is_at(file, path) and (new or _is_ours(file, path)):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _open(path: Path, flags: int) -> io.FileIO:
    """No link is followed and no pipe waited for: what stands there may be anything."""
    flags |= os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return io.FileIO(os.open(path, flags, 0o666), "r+")


def _lock(file: io.FileIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TargetUnusable(
            f"{path} is being written by another download: wait for its end, or give another name with -o"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # there, two downloads to one name are the user's to avoid
            raise


def _is_at(file: io.FileIO, path: Path) -> bool:
    """Whether the path still leads to the file; the one who had the lock may have renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _is_ours(file: io.FileIO, path: Path) -> bool:
    """Whether a part that was there may be written to. False: it was unlinked, and can be made anew.

    In a directory that others write to, they could have put a file of theirs there to change it after our check.
    """
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise TargetUnusable(f"{path} is not a file of yours: remove it, or give another name with -o")
    if found.st_nlink > 1:  # a finished file has the other name: its bytes are not to be touched
        os.unlink(path)
        return False
    return True
