"""Owns the contract of a secret source. Refuses to know any concrete source or what a secret is for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Protocol

from casproxy.errors import SecretMalformed, SecretNotFound

_SECRET_ID = re.compile(r"[A-Za-z0-9._/-]+", re.ASCII)


_KINDS = {str: "text", bool: "true or false", int: "number", float: "number"}


def check_secret_id(secret_id: str) -> None:
    """Raise ``SecretNotFound`` unless ``secret_id`` may reach a source, where it becomes a path or part of a URL.

    ``[A-Za-z0-9._/-]``, with no empty segment and no ``.`` or ``..`` segment between its slashes.
    """
    segments = secret_id.split("/")
    if not _SECRET_ID.fullmatch(secret_id) or any(segment in ("", ".", "..") for segment in segments):
        raise SecretNotFound(f"no secret can have the id {secret_id[:80]!r}")


class Secret:
    """A tenant's storage credentials: a JSON object whose keys match without regard to case.

    Keys differ in case in the field (they are Go struct fields without tags). Redacts itself in ``repr``, ``str`` and
    formatting; it has no iteration, so that it cannot be logged by accident.
    """

    __slots__ = ("_fields", "fingerprint")

    fingerprint: str
    """sha256 (hex) over the whole credential: what caches and flights are keyed by (storage.md, Isolation)."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = {key.casefold(): value for key, value in fields.items()}
        canonical = repr(sorted(self._fields.items(), key=lambda item: item[0]))
        self.fingerprint = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()

    def text(self, key: str) -> str:
        """The non-empty string under ``key``; raises ``SecretMalformed`` naming the key only."""
        value = self._fields.get(key.casefold())
        if not isinstance(value, str) or not value:
            raise SecretMalformed(f"the secret has no {key}")
        return value

    def optional(self, key: str) -> str:
        """The string under ``key``, or ``""`` when it is absent; raises ``SecretMalformed`` for another type."""
        value = self._fields.get(key.casefold(), "")
        if not isinstance(value, str):
            raise SecretMalformed(f"the secret's {key} is not a string")
        return value

    def kinds(self) -> dict[str, str]:
        """The keys, folded and sorted, each with the kind of its value: what may be shown to an operator."""
        return {key: _KINDS.get(type(value), "list or map") for key, value in sorted(self._fields.items())}

    def __repr__(self) -> str:
        return "<Secret: redacted>"


class SecretSource(Protocol):
    """Where tenants' credentials come from. Safe for concurrent use."""

    async def read(self, secret_id: str) -> Secret:
        """Read one secret. ``secret_id`` was validated by ``check_secret_id``.

        Errors: ``SecretNotFound``, ``SecretDenied``, ``SecretMalformed``, ``SecretUnavailable``. Cancellation returns
        at once, also while a blocking SDK's thread still works.
        """

    async def check(self) -> None:
        """The start-up check: ``ConfigError`` names the key to fix when the source can never work as configured."""
