"""Owns the bytes of an audit event, equal to those of the original service. Refuses to know how they travel.

Go's ``encoding/json`` decides how it looks: no spaces, text as UTF-8, and five characters escaped that HTML or
JavaScript might stumble over. The ``Digest`` inside is the sha256 of six of the fields in that form.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from casproxy.observe.facts import Caller, Downloaded, Fact, Uploaded

_SUBJECT: Final = "audit.casartifact."
_GO_ESCAPES: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
_HASHED: Final = ("ActionType", "TargetType", "TargetID", "Info", "OrgID", "UserID")


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One message. ``id`` is the same however often it is sent, so that JetStream can drop repetitions."""

    id: str
    subject: str
    payload: bytes


class NotAuditable(Exception):
    """The fact cannot be told in the original's form; the text says why."""


def audit_event(caller: Caller, fact: Fact, *, now_ns: int) -> AuditEvent:
    """The event that tells ``fact``. ``now_ns``: nanoseconds since the epoch. Raises ``NotAuditable``."""
    data = event_data(caller, fact)
    message = {"EventType": "AUDIT_EVENT", "Timestamp": _timestamp(now_ns), "Data": data}
    return AuditEvent(uuid.uuid4().hex, _SUBJECT + str(data["ActionType"]).lower(), go_json(message))


def event_data(caller: Caller, fact: Fact) -> dict[str, object]:
    """The event's ``Data``, keys in the original's order. Raises ``NotAuditable``."""
    action, description, info = _told(caller, fact)
    data: dict[str, object] = {
        "ActionType": action,
        "TargetType": "CASArtifact",
        "TargetID": None,
        "ActorType": "SYSTEM",
        "ActorID": None,
        "ActorEmail": "",
        "ActorName": "",
        "OrgID": _uuid(caller.org),
        "Description": description,
        "Info": info,
    }
    return data | {"Digest": _digest(data)}


def _told(caller: Caller, fact: Fact) -> tuple[str, str, dict[str, object]]:
    info: dict[str, object] = {"digest": fact.digest.hex, "size_bytes": fact.size}
    if fact.file_name:
        info["file_name"] = fact.file_name
    info["backend_type"] = caller.backend
    match fact:
        case Uploaded(skipped=True):
            description = f"upload of artifact {fact.digest.hex} skipped, already exists"
            return "CASArtifactUploaded", description, info | {"skipped": True}
        case Uploaded():
            description = f"artifact {fact.digest.hex} ({fact.size} bytes) was uploaded"
            return "CASArtifactUploaded", description, info | {"skipped": False}
        case Downloaded():
            description = f"artifact {fact.digest.hex} ({fact.size} bytes) was downloaded"
            return "CASArtifactDownloaded", description, info


def _uuid(org: str) -> str:
    try:
        return str(uuid.UUID(org))
    except ValueError:
        raise NotAuditable("the token's org-id is not a UUID") from None


def _digest(data: Mapping[str, object]) -> str:
    hashed = {name: data.get(name) for name in _HASHED}
    return "sha256:" + hashlib.sha256(go_json(hashed)).hexdigest()


def go_json(value: object) -> bytes:
    """``value`` as Go's ``json.Marshal`` writes it: compact, not ASCII-only, ``<``, ``>``, ``&``, U+2028/9 escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_GO_ESCAPES).encode()  # none of the five is part of JSON's own syntax


def _timestamp(now_ns: int) -> str:
    """RFC 3339 with nanoseconds, trailing zeros left out, as Go's ``RFC3339Nano``."""
    seconds, nanoseconds = divmod(now_ns, 10**9)
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"
