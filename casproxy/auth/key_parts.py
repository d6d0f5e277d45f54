"""Owns what one place with keys promises to ``key_ring``. Refuses to know any such place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from casproxy.auth.keys import VerificationKey


@dataclass(frozen=True, slots=True)
class Reading:
    """What a look at one place gave.

    ``keys``: the ones to use, the last good ones included where the place has no better. ``fault``: why they are not
    what the place holds now, one sentence for an operator; empty when they are.
    """

    keys: tuple[VerificationKey, ...]
    fault: str = ""


class KeyPart(Protocol):
    """One place with keys: a file, a directory, a document of some server."""

    @property
    def setting(self) -> str:
        """The configuration key that names the place; it begins every line about it."""

    @property
    def every(self) -> float:
        """Seconds between two looks while all is well."""

    @property
    def max_stale(self) -> float:
        """Seconds that the last good keys serve once the place cannot be read; ``math.inf``: for ever."""

    @property
    def needed_at_start(self) -> bool:
        """Whether a fault in the first look stops the start."""

    async def read(self) -> Reading:
        """Look once. Never two at a time. Cancelled, it leaves at once and changes nothing."""
