"""Owns keys that lie in files, and noticing that these have changed.

A path leads to a file or to a directory whose files all hold keys; hidden entries and sub-directories do not count.
Kubernetes mounts a directory of symlinks through ``..data`` and swaps that one link, so what counts as "changed" is the
file that a path leads to, not the path::

    a file is …          then
    new or changed       its keys replace those it gave before
    broken               those it gave before stay, the fault is told, and it is read again with every look
    gone                 its keys are gone; but a path that gives no key any more counts as broken as a whole

Refuses to know what is in the files: that is ``parse``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import trio

from casproxy.auth.key_parts import Reading
from casproxy.auth.keys import MAX_KEYS, VerificationKey
from casproxy.errors import ConfigError
from casproxy.files import file_signature
from casproxy.in_thread import run_in_thread

LOOK_EVERY: Final = 1.0
"""Seconds. A look is a few stat(2) calls in a worker thread."""

Parse: TypeAlias = Callable[[Path], tuple[VerificationKey, ...]]
"""Reads one file, blocking; ``ConfigError`` when it is broken."""


@dataclass(frozen=True, slots=True)
class _File:
    """``keys`` and the ``signature`` of the content they come from; None: to be read again in any case."""

    signature: tuple[object, ...] | None
    keys: tuple[VerificationKey, ...]
    fault: str = ""


_Files: TypeAlias = Mapping[Path, _File]


class KeyFiles:
    """A ``KeyPart`` over ``path``, a file or a directory of files that ``parse`` reads."""

    needed_at_start = True

    def __init__(self, path: Path, parse: Parse, *, setting: str, max_stale: float, every: float = LOOK_EVERY) -> None:
        self.setting = setting
        self.every = every
        self.max_stale = max_stale
        self._path = path
        self._parse = parse
        self._files: _Files = {}
        self._limiter = trio.CapacityLimiter(1)  # a file system that hangs holds one thread, not one per look

    async def read(self) -> Reading:
        """See ``KeyPart.read``."""
        files, fault = await run_in_thread(partial(_look, self._path, self._parse, self._files), limiter=self._limiter)
        self._files = files  # set here and not in the thread: an abandoned one must not turn back time
        return Reading(tuple(key for file in files.values() for key in file.keys), fault)


def _look(path: Path, parse: Parse, known: _Files) -> tuple[_Files, str]:
    try:
        names = _names(path)
    except (ConfigError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return known, f"cannot read the directory {path}: {reason}"
    files = {name: _read(name, parse, known.get(name)) for name in names}
    fault = "; ".join(file.fault for file in files.values() if file.fault)
    return (files if any(file.keys for file in files.values()) else known), fault


def _names(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    names = sorted(entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_file())
    if not 0 < len(names) <= MAX_KEYS:
        raise ConfigError(f"it holds {len(names)} files; want 1 to {MAX_KEYS}")
    return names


def _read(path: Path, parse: Parse, known: _File | None) -> _File:
    signature = file_signature(path)  # None: ``parse`` will say why
    if known is not None and signature is not None and known.signature == signature:
        return known
    try:
        return _File(signature, parse(path))
    except ConfigError as error:
        return _File(None, () if known is None else known.keys, str(error))
