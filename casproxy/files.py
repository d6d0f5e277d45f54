"""Owns files that nobody else may read (keys, tokens, secrets) and noticing that a file has changed. Refuses to know
what is in them.

A private file is a regular file of this user with no permission for group or others; what it says is read through
the same descriptor that was checked, so that nobody can swap it in between. Everything here blocks: call it from a
command, from start-up or from a worker thread.
"""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
from pathlib import Path

from casproxy.errors import ConfigError

_OTHERS = 0o077


def check_private(path: Path) -> None:
    """Raise ``ConfigError`` unless ``path`` (symlinks followed) is a regular file, ours, with mode 0600 or less."""
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    _require_private_file(path, status)


def read_private(path: Path, *, max_size: int) -> bytes:
    """The content of a private file of at most ``max_size`` bytes; ``ConfigError`` says what to do otherwise.

    A missing or unreadable file is a ``ConfigError`` too; its ``__cause__`` is the ``OSError``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hang the open
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        _require_private_file(path, os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(max_size + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)
    if len(data) > max_size:
        raise ConfigError(f"{path} is larger than {max_size} bytes: is it the right file?")
    return data


def file_signature(path: Path) -> tuple[object, ...] | None:
    """Differs when the content may differ, links swapped on the way included; None when ``path`` leads nowhere.

    Take it before the content is read, so that no change is missed.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    where = os.path.realpath(path)  # a new file may get the inode of the one it replaces
    return where, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def write_private(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` with mode 0600, atomically: a reader sees the old file or the new one, whole.

    Raises ``OSError``; then the old file, if any, is unchanged and nothing is left behind.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_dir(path.parent)


def make_private_dir(path: Path) -> None:
    """Make a directory only we can enter (0700), or accept the one that is there if it already is that.

    ``ConfigError`` for a symlink, another user's directory, one that others may enter, and for what cannot be made.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"cannot create the directory {path}: {error.strerror}") from error
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise ConfigError(f"{path} is a symbolic link: remove it, or work in another directory")
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{path} is not a directory: move it away, or work in another directory")
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to another user: work in another directory")
    if status.st_mode & _OTHERS:
        raise ConfigError(f"{path} is open to other users: run chmod 700 {shlex.quote(str(path))}")


def _require_private_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a regular file")
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to another user: copy it to a file of your own with mode 0600")
    if status.st_mode & _OTHERS:
        raise ConfigError(f"{path} can be read or changed by other users: run chmod 600 {shlex.quote(str(path))}")


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot read {path}: {error.strerror}")


def _sync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
