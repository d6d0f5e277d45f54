"""Owns the grammar of ``WWW-Authenticate``. Does no I/O and decides nothing.

Source: RFC 9110, 11.6.1: challenges and their parameters share one comma-separated list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MAX_LENGTH: Final = 8192
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PART: Final = re.compile(
    rf"""[\s,]*(?:
        (?P<name>{_WORD})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>{_WORD}))(?=\s*(?:,|\Z))
      | (?P<scheme>{_WORD})(?:\s+(?P<blob>[A-Za-z0-9._~+/-]+=*)(?=\s*(?:,|\Z)))?(?=\s|,|\Z)
    )""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a server offers: ``scheme`` and the names of ``parameters`` are lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(value: str) -> list[Challenge]:
    """The challenges of a header's value, up to the first part that is not one: a server's nonsense is no failure."""
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    if len(value) > _MAX_LENGTH:
        return []
    while part := _PART.match(value, position):
        position = part.end()
        if part["scheme"] is not None:
            found.append((part["scheme"].lower(), {}))
        elif not found:
            break
        else:
            text = part["plain"] if part["quoted"] is None else re.sub(r"\\(.)", r"\1", part["quoted"])
            found[-1][1].setdefault(part["name"].lower(), text)
    return [Challenge(scheme, parameters) for scheme, parameters in found]
