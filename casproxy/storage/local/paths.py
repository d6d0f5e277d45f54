"""Owns the way from the root to a directory. Refuses to follow a symbolic link below the root, wherever it leads.

A tenant's ``Path`` is hostile input. It is checked as text, and then walked one directory at a time, each opened
relative to its parent's descriptor and without following links: what is swapped meanwhile cannot lead out (the way of
openat(2), O_NOFOLLOW). The root itself may be a link; it is the operator's.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Final

from casproxy.errors import BackendRefused

STAGING: Final = ".staging"
"""The directory below the root that no tenant may name."""

_MAX_PATH_CHARACTERS: Final = 1024
_MAX_NAME_BYTES: Final = 255
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def parse_path(text: str) -> tuple[str, ...]:
    """The directory names of a secret's ``Path`` below the root; ``.`` is the root. Raises ``BackendRefused``."""
    names = PurePosixPath(text).parts
    try:
        longest = max((len(os.fsencode(name)) for name in names), default=0)
    except UnicodeEncodeError as error:
        raise BackendRefused("the secret's Path is not valid Unicode") from error
    if not text or text.startswith("/") or ".." in names or "\0" in text:
        raise BackendRefused("the secret's Path must be relative and without ..")
    if len(text) > _MAX_PATH_CHARACTERS or longest > _MAX_NAME_BYTES:
        raise BackendRefused("the secret's Path is too long")
    if names and names[0].casefold() == STAGING:
        raise BackendRefused(f"the secret's Path may not begin with {STAGING}")
    return names


@contextmanager
def directory(root_fd: int, names: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """Open the directory ``names`` below ``root_fd`` for the duration of the block.

    ``create`` makes what is missing, durably. Raises ``FileNotFoundError``, and ``NotADirectoryError`` for a file or a
    symbolic link on the way.
    """
    fd = os.dup(root_fd)
    try:
        for name in names:
            parent, fd = fd, _enter(fd, name, create=create)
            os.close(parent)
        yield fd
    finally:
        os.close(fd)


def check_writable(root_fd: int, names: Sequence[str]) -> None:
    """Raise ``PermissionError`` unless entries may be made in the deepest directory of ``names`` that exists."""
    for depth in range(len(names), -1, -1):
        try:
            with directory(root_fd, names[:depth]) as fd:
                if not os.access(".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                return
        except FileNotFoundError:
            continue


def _enter(parent_fd: int, name: str, *, create: bool) -> int:
    """Open one directory. The caller keeps ``parent_fd``."""
    try:
        return os.open(name, _OPEN_DIRECTORY, dir_fd=parent_fd)
    except FileNotFoundError:
        if not create:
            raise
    try:
        os.mkdir(name, dir_fd=parent_fd)
    except FileExistsError:
        return os.open(name, _OPEN_DIRECTORY, dir_fd=parent_fd)  # another process was faster
    os.fsync(parent_fd)
    return os.open(name, _OPEN_DIRECTORY, dir_fd=parent_fd)
