"""Owns ``Range``, ``If-Range`` and ``If-None-Match``: which part of an artifact a request asks for. Pure.

Source: RFC 9110, sections 13 and 14. A ``Range`` that cannot be read, names another unit, or names several ranges is
ignored and the whole artifact sent, as the RFC allows (docs/decisions/0008-several-ranges-are-one-artifact.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r'(W/)?("[^"]*")')


class Unsatisfiable(Exception):
    """No byte of the artifact lies in the range asked for: 416."""


@dataclass(frozen=True, slots=True)
class Range:
    """``length`` bytes from ``start``; ``length`` is at least 1."""

    start: int
    length: int

    def content_range(self, size: int) -> str:
        """The ``Content-Range`` of a 206 about an artifact of ``size`` bytes."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def requested_range(range_header: str, if_range: str, tag: str, size: int) -> Range | None:
    """The range to send of an artifact of ``size`` bytes; None for all of it. Raises ``Unsatisfiable``.

    ``if_range`` counts when it is exactly the (strong) ``tag``; a date never does, for artifacts have none.
    """
    match = _RANGE.fullmatch(range_header)
    if match is None or (if_range and if_range.strip() != tag):
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        return _suffix(int(last), size)
    start, end = int(first), int(last) if last else size - 1
    if last and end < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return Range(start, min(end, size - 1) - start + 1)


def none_match(if_none_match: str, tag: str) -> bool:
    """True when the caller holds the artifact already: the header names ``tag`` (compared weakly) or ``*``."""
    return if_none_match.strip() == "*" or any(match[2] == tag for match in _TAG.finditer(if_none_match))


def _suffix(length: int, size: int) -> Range:
    if length == 0 or size == 0:
        raise Unsatisfiable
    kept = min(length, size)
    return Range(size - kept, kept)
