"""Owns which files the arguments of ``casproxy upload`` mean: files, directories, patterns, stdin. Refuses to read any.

Everything is looked up before the first byte is sent: what is misspelt is told at once, and the order of the output is
known.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

STDIN = "-"


@dataclass(frozen=True, slots=True)
class File:
    """One file to upload. ``path``: as it was given or found, ``-`` for stdin. ``found``: nobody named it."""

    path: str
    found: bool = False

    @property
    def is_stdin(self) -> bool:
        """Whether there is no file at all."""
        return self.path == STDIN

    @property
    def label(self) -> str:
        """What to call it in front of people."""
        return "stdin" if self.is_stdin else self.path


def list_files(arguments: Sequence[str], *, hidden: bool = False) -> list[File]:
    """The files that ``arguments`` mean, in their order; those of a directory by name, its own before those below.

    An argument that is no file is a pattern of the shell's kind, ``**`` included, if it looks like one. Directories are
    searched to their end, links to directories not followed; what is hidden is left out unless ``hidden``, as ``*``
    does. Errors: ``OSError`` for what is not there or cannot be searched, and where no file is found at all.
    """
    return [file for argument in arguments for file in _files(argument, hidden)]


def _files(argument: str, hidden: bool) -> Iterator[File]:
    if argument == STDIN:
        yield File(STDIN)
    elif not glob.has_magic(argument) or os.path.lexists(argument):
        yield from _existing(argument, hidden)
    elif matches := sorted(glob.glob(argument, recursive=True, include_hidden=hidden)):
        for match in matches:
            if not os.path.isdir(match):
                yield File(match, found=True)
            elif "**" not in argument:  # else what is in there matches by itself
                yield from _existing(match, hidden)
    else:
        raise FileNotFoundError(errno.ENOENT, "no file matches this pattern", argument)


def _existing(path: str, hidden: bool) -> Iterator[File]:
    if not stat.S_ISDIR(os.stat(path).st_mode):
        yield File(path)
        return
    files = list(_below(path, hidden))
    if not files:
        ignored = "" if hidden else " that is not hidden (--hidden takes those as well)"
        raise FileNotFoundError(errno.ENOENT, f"there is no file in this directory{ignored}", path)
    yield from files


def _below(directory: str, hidden: bool) -> Iterator[File]:
    for place, directories, names in os.walk(directory, onerror=_raise):
        directories[:] = sorted(name for name in directories if hidden or not name.startswith("."))
        for name in sorted(names):
            if hidden or not name.startswith("."):
                yield File(str(Path(place, name)), found=True)


def _raise(error: OSError) -> None:
    raise error
