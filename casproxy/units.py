"""Owns how people write quantities: ``1m30s``, ``100MiB``. Refuses to know which setting or flag they are for.

Durations are Go's (``time.ParseDuration``), a superset of protobuf's JSON form (``300s``, ``1.5s``), because existing
configuration files hold both. Sizes know decimal (``MB`` = 10**6) and binary (``MiB`` = 2**20) suffixes; a bare number
is bytes. A bare number is no duration, except 0: nobody should have to guess its unit.
"""

from __future__ import annotations

import re
from decimal import Decimal

_LONGEST_TEXT = 64
_LONGEST_DURATION = 10 * 365 * 24 * 3600
LARGEST_SIZE = 2**63 - 1

_SECONDS_PER = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)

_BYTES_PER = {"": 1, "b": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("kmgtpe", start=1)
    for suffix, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]*)", re.ASCII)
_SHOWN_AS = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))

DURATION_WANTED = "a duration such as 500ms, 30s or 1m30s"
SIZE_WANTED = "a size such as 65536, 256KiB or 100MiB"


def parse_duration(text: str) -> float:
    """Seconds. ``ValueError`` for anything but a non-negative Go or protobuf duration of at most ten years."""
    if text == "0":
        return 0.0
    rest = text.removeprefix("+")
    if not rest or len(text) > _LONGEST_TEXT:
        raise ValueError(DURATION_WANTED)
    seconds, at = Decimal(0), 0
    while at < len(rest):
        part = _DURATION_PART.match(rest, at)
        if part is None:
            raise ValueError(DURATION_WANTED)
        seconds += Decimal(part[1]) * _SECONDS_PER[part[2]]
        at = part.end()
    if seconds > _LONGEST_DURATION:
        raise ValueError("a duration of at most ten years")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """The shortest text that ``parse_duration`` reads as ``seconds`` (0 or more, to the nanosecond)."""
    nanoseconds = round(seconds * 1e9)
    if 0 < nanoseconds < 10**9:
        return f"{_plain(Decimal(nanoseconds).scaleb(-6))}ms"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")
    return text + f"{_plain(Decimal(rest).scaleb(-9))}s" if rest or not text else text


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def parse_size(text: str) -> int:
    """Bytes. ``ValueError`` for anything but a non-negative whole number of bytes below 2**63."""
    match = _SIZE.fullmatch(text.lower()) if len(text) <= _LONGEST_TEXT else None
    if match is None or match[2] not in _BYTES_PER:
        raise ValueError(SIZE_WANTED)
    size = Decimal(match[1]) * _BYTES_PER[match[2]]
    if size > LARGEST_SIZE or size != int(size):
        raise ValueError(SIZE_WANTED + ", a whole number of bytes below 2^63")
    return int(size)


def format_size(size: int) -> str:
    """The shortest text that ``parse_size`` reads as exactly ``size`` bytes."""
    for unit, factor in _SHOWN_AS:
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
