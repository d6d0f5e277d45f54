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


Progress: TypeAlias = Callable[[Phase, int, int | None], None]
"""Called with the phase, the bytes done in it, and the bytes to do (None while unknown). Must not block."""


def no_progress(phase: Phase, done: int, total: int | None) -> None:
    """The ``Progress`` of a caller who does not want to know."""
