"""Owns the length-prefixed message stream inside DATA frames. Refuses to know streams, windows and protobuf."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class MessageStart:
    """A message begins. ``size``: its length in bytes as it travels; ``compressed``: then the size after inflating is unknown."""

    size: int
    compressed: bool = False


class MessageEnd(enum.Enum):
    """A message is complete."""

    MESSAGE_END = enum.auto()


MESSAGE_END = MessageEnd.MESSAGE_END
Part: TypeAlias = MessageStart | MessageEnd | bytes | memoryview
