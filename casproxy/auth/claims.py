"""Owns what a verified token says. Refuses to know how tokens are signed or carried."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Role(enum.StrEnum):
    """What a token lets its bearer do."""

    UPLOADER = "uploader"
    DOWNLOADER = "downloader"


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a verified token (api.md, Tokens).

    ``max_bytes``: cap of one upload in bytes, 0 = none. ``not_before`` and ``expires_at``: seconds since the epoch,
    None when the token sets no such bound. ``source_internal``: a token of the control plane itself; no audit events.
    """

    role: Role
    secret_id: str
    backend: str
    org_id: str = ""
    max_bytes: int = 0
    source_internal: bool = False
    expires_at: float | None = None
    not_before: float | None = None
