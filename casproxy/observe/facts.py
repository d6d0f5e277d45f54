"""Owns what is said of a call for its log line, the metrics and the audit trail. Refuses to know who says it.

Whoever finds out attaches one of these to the call (``ServerCall.attach``); nobody is told directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from casproxy.digest import Digest


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a call works for, as far as logs, metrics and audit tell. ``internal``: the control plane itself."""

    org: str
    role: str
    backend: str
    internal: bool = False


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An artifact is stored. ``size`` in bytes; ``file_name`` may be empty; ``skipped``: it had been stored before."""

    digest: Digest
    size: int
    file_name: str
    skipped: bool


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The last byte of an artifact was delivered. ``size`` of the whole in bytes; ``file_name`` empty over gRPC."""

    digest: Digest
    size: int
    file_name: str = ""


Fact: TypeAlias = Uploaded | Downloaded
