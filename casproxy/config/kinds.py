"""Owns the kinds of value a setting can have: how each is read, shown and described. Refuses to know any setting.

Every scalar reaches a kind as the text that was written (in YAML, in a variable, in a default): the setting decides
what the text means, never the YAML parser. So ``project_id: 0123`` keeps its zero, ``environment: no`` is no boolean,
and a value from the environment is read by the same rule as one from a file.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec

from casproxy.units import (
    DURATION_WANTED,
    LARGEST_SIZE,
    SIZE_WANTED,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

HIDDEN = "******"
MOST_PROCESSES = 256

_DIGITS = re.compile(r"[0-9]{1,10}", re.ASCII)

_DURATION_SCHEMA = {"type": "string", "format": "go-duration", "examples": ["30s", "1m30s"]}
_SIZE_SCHEMA = {"type": ["string", "integer"], "format": "byte-size", "examples": ["256KiB", "100MiB"]}


class SecretStr:
    """A text nobody sees by accident: ``repr``, ``str`` and formatting show stars; ``reveal()`` is the only way in."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Call it where it is sent, keep it nowhere."""
        return self._text

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of value is read from text, shown, and described.

    ``parse`` raises ``ValueError`` when the text is not of this kind; ``wanted`` completes "want …". ``show`` gives
    what YAML and the JSON Schema print. ``unit`` is what its numbers count. ``many`` kinds are written as a list, each
    entry read by ``parse``.
    """

    name: str
    wanted: str
    parse: Callable[[str], Any]
    show: Callable[[Any], Any]
    schema: Mapping[str, object]
    unit: str = ""
    many: bool = False
    secret: bool = False


def parse_address(text: str) -> tuple[str, int]:
    """``host:port``, ``[v6]:port`` or ``:port`` (every interface: host ``""``) as (host, port)."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    if not colon or not _DIGITS.fullmatch(port) or int(port) > 65535 or (":" in bare) != bracketed:
        raise ValueError(text)
    if any(character.isspace() or character in "/@?#" for character in bare):
        raise ValueError(text)
    return bare, int(port)


def _address(text: str) -> str:
    parse_address(text)
    return text


def _flag(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError(text)
    return text.lower() == "true"


def _count(text: str) -> int:
    if not _DIGITS.fullmatch(text) or not 0 < int(text) < 2**31:
        raise ValueError(text)
    return int(text)


def _count_or_auto(text: str) -> int:
    count = 0 if text == "auto" else _count(text)
    if count > MOST_PROCESSES:
        raise ValueError(text)
    return count


def _show_count_or_auto(count: int) -> int | str:
    return count or "auto"


def _ratio(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise ValueError(text)
    return value


def _timeout(text: str) -> float:
    return parse_duration(text) or math.inf


def sizes_up_to(largest: int) -> Kind:
    """A size of 1 byte to ``largest`` bytes."""
    at_most = f" and at most {format_size(largest)}" if largest < LARGEST_SIZE else ""
    return _sizes(1, largest, f"{SIZE_WANTED}, above 0{at_most}")


def sizes_between(least: int, largest: int) -> msgspec.Meta:
    """The annotation for a size of ``least`` to ``largest`` bytes."""
    return of_kind(_sizes(least, largest, f"{SIZE_WANTED}, from {format_size(least)} to {format_size(largest)}"))


def _sizes(least: int, largest: int, wanted: str) -> Kind:
    def parse(text: str) -> int:
        size = parse_size(text)
        if not least <= size <= largest:
            raise ValueError(text)
        return size

    return Kind("size", wanted, parse, format_size, _SIZE_SCHEMA, unit="bytes")


def _show_timeout(seconds: float) -> str:
    return "0s" if math.isinf(seconds) else format_duration(seconds)


def _network(text: str) -> str:
    ipaddress.ip_network(text)
    return text


def choice(*names: str) -> Kind:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(text)
        return text

    return Kind(" or ".join(names), f"one of {', '.join(names)}", parse, str, {"enum": list(names)})


TEXT = Kind("text", "a text", str, str, {"type": "string"})
TEXTS = Kind("list of text", "a text", str, str, {"type": "string"}, many=True)
NETWORKS = Kind("list of networks", "a network such as 10.0.0.0/8", _network, str, {"type": "string"}, many=True)
SECRET = Kind("secret text", "a text", SecretStr, str, {"type": "string", "writeOnly": True}, secret=True)
PATH = Kind("path", "a path", Path, str, {"type": "string"})
ADDRESS = Kind("host:port", "host:port, such as 0.0.0.0:9001 or [::]:9001", _address, str, {"type": "string"})
FLAG = Kind("true or false", "true or false", _flag, bool, {"type": "boolean"})
COUNT = Kind("count", "a whole number above 0", _count, int, {"type": "integer", "minimum": 1})
COUNT_OR_AUTO = Kind(
    "count or auto",
    f"a whole number from 1 to {MOST_PROCESSES}, or auto",
    _count_or_auto,
    _show_count_or_auto,
    {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST_PROCESSES}, {"enum": ["auto"]}]},
)
RATIO = Kind("ratio", "a number from 0 to 1", _ratio, float, {"type": "number", "minimum": 0, "maximum": 1})
DURATION = Kind("duration", DURATION_WANTED, parse_duration, format_duration, _DURATION_SCHEMA, unit="ms, s, m, h")
TIMEOUT = Kind("duration", DURATION_WANTED, _timeout, _show_timeout, _DURATION_SCHEMA, unit="ms, s, m, h")
SIZE = sizes_up_to(LARGEST_SIZE)


def of_kind(kind: Kind) -> msgspec.Meta:
    """The annotation that gives a model's field its kind."""
    return msgspec.Meta(extra={"kind": kind})


Text: TypeAlias = Annotated[str, of_kind(TEXT)]
Texts: TypeAlias = Annotated[tuple[str, ...], of_kind(TEXTS)]
Networks: TypeAlias = Annotated[tuple[str, ...], of_kind(NETWORKS)]
SecretText: TypeAlias = Annotated[SecretStr, of_kind(SECRET)]
FilePath: TypeAlias = Annotated[Path, of_kind(PATH)]
Address: TypeAlias = Annotated[str, of_kind(ADDRESS)]
Flag: TypeAlias = Annotated[bool, of_kind(FLAG)]
Count: TypeAlias = Annotated[int, of_kind(COUNT)]
CountOrAuto: TypeAlias = Annotated[int, of_kind(COUNT_OR_AUTO)]
"""A written ``auto`` arrives as 0."""
Ratio: TypeAlias = Annotated[float, of_kind(RATIO)]
Seconds: TypeAlias = Annotated[float, of_kind(DURATION)]
TimeoutSeconds: TypeAlias = Annotated[float, of_kind(TIMEOUT)]
"""Seconds; a written ``0s`` means no limit and arrives as ``math.inf``."""
Bytes: TypeAlias = Annotated[int, of_kind(SIZE)]
