"""Owns the name of an artifact: a sha256 digest. Refuses to know where artifacts are kept.

A string from outside becomes a ``Digest`` here or nowhere, so that everything behind this type may
put it into a path, a URL or an object key without checking again.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from casproxy.errors import InvalidDigest

_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PREFIX = "sha256:"


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The sha256 of an artifact.

    ``hex`` is 64 lower-case hex digits, checked at construction; ``str()`` gives ``sha256:{hex}``.
    """

    hex: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.hex):
            raise InvalidDigest(self.hex)

    def __str__(self) -> str:
        return _PREFIX + self.hex

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:{hex}`` or ``{hex}``; anything else raises ``InvalidDigest``."""
        return cls(text.removeprefix(_PREFIX))

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Hash bytes that are already in memory."""
        return cls(hashlib.sha256(data).hexdigest())


EMPTY_DIGEST = Digest.of(b"")
"""The digest of the empty artifact, which is an artifact like any other (api.md, Write 8)."""
