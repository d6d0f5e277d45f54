"""Owns how foreign text, sizes and results are shown to a person. Refuses to know where they come from.

A file name stored by somebody else, or a server's error text, may hold escape sequences that drive a terminal, line
breaks that forge a second line of output, or direction marks that show ``gpj.exe`` as a picture.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Mapping

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, format and direction marks, surrogates, line ends


def printable(text: str) -> str:
    """``text`` on one line, with everything that could drive a terminal written as ``\\x1b`` or ``\\u202e``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escape(character) if unicodedata.category(character) in _UNSAFE else character for character in text
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def human_size(size: int) -> str:
    """Bytes as a person reads them: ``17 B``, ``1.5 MiB``."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def print_line(text: str) -> None:
    """One line on stdout; what the terminal's encoding cannot show is escaped rather than fatal."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def print_json(fields: Mapping[str, object]) -> None:
    """One JSON object on one line of stdout, pure ASCII, so that no name can drive a terminal."""
    print(json.dumps(fields))


def print_fields(fields: Mapping[str, str]) -> None:
    """``name  value`` lines, aligned; values are made printable."""
    width = max(map(len, fields))
    for name, value in fields.items():
        print_line(f"{name:<{width}}  {printable(value)}")
