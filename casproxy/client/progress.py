"""Owns how a transfer tells of its progress. Refuses to know how it is shown."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TypeAlias


class Phase(enum.StrEnum):
    """What a transfer is doing."""

    SPOOL = "reading"
    HASH = "hashing"
    SEND = "uploading"
    RECEIVE = "downloading"
    WAIT = "waiting to try again"
    """The server is unavailable; the next attempt takes up what it can."""
    RESTART = "starting again"
    """The part of an earlier download did not fit: it was dropped, and everything is fetched."""
    KEPT = "kept"
    """The download failed; so many bytes of it stay to be resumed."""


Progress: TypeAlias = Callable[[Phase, int, int | None], None]
"""Called with the phase, the bytes done in it, and the bytes to do (None while unknown). Must not block.

A download that goes on where another one ended begins with the bytes that are there.
"""


def no_progress(phase: Phase, done: int, total: int | None) -> None:
    """The ``Progress`` of a caller who does not want to know."""
