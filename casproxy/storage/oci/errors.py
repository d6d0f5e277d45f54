"""Owns the translation of what a registry, or the way to it, does wrong into storage's errors: here, and only once.

Texts name the registry and what was being done, never an answer's body: that is the log's, as ``__cause__``.
"""

from __future__ import annotations

from typing import Final

from casproxy import errors
from casproxy.outbound import errors as outbound


class Busy(errors.BackendUnavailable):
    """The registry is down or busy. ``retry_after``: seconds it asked to be left alone, None: it did not say."""

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class WayRefused(errors.BackendRefused):
    """The registry does not take a layer this way; another may work."""


class RawAnswer(Exception):
    """What a registry said, for the log: status, and the beginning of the body."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP {status}: {body[:300]!r}")


DENIED: Final = frozenset({401, 403})
BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
WAY_REFUSED: Final = frozenset({400, 405, 411, 413, 415, 416, 501})
"""Answers to a layer's bytes that mean: not like that."""

_FULL: Final = frozenset({507})


def from_status(status: int, body: bytes, doing: str, *, retry_after: float | None = None) -> errors.StorageError:
    """The error for an answer that ``doing`` (``registry.example: starting an upload``) has no use for."""
    error: errors.StorageError
    if status == 401:
        error = errors.BackendRefused(f"{doing}: the registry refused the credentials")
    elif status == 403:
        error = errors.BackendRefused(f"{doing}: the registry does not allow it to these credentials")
    elif b"MANIFEST_BLOB_UNKNOWN" in body:  # docker-registry, while another upload of the same blob is being linked
        error = Busy(f"{doing}: the registry does not find what it has just taken")
    elif is_digest_refused(body):
        error = errors.BackendBroken(f"{doing}: the registry says that it received other bytes")
    elif status == 404 and b"BLOB_UPLOAD_UNKNOWN" in body:
        error = Busy(f"{doing}: the registry lost the upload")
    elif status in BUSY or status > 507:
        error = Busy(f"{doing}: the registry is down or busy", retry_after=retry_after)
    elif status in _FULL:
        error = errors.StorageFull(f"{doing}: the registry has no room")
    elif status in (404, 410):
        error = errors.BackendRefused(f"{doing}: the registry has no such repository and does not make one")
    elif status >= 400:
        error = errors.BackendRefused(f"{doing}: the registry refused (HTTP {status})")
    else:
        error = errors.BackendBroken(f"{doing}: the registry gave an answer that means nothing here (HTTP {status})")
    error.__cause__ = RawAnswer(status, body)
    return error


def is_digest_refused(body: bytes) -> bool:
    """The registry counted or hashed other bytes than we named: no other way of sending would change that."""
    return b"DIGEST_INVALID" in body or b"SIZE_INVALID" in body


def from_outbound(error: outbound.OutboundError, doing: str) -> errors.StorageError:
    """The error for an exchange that came to no answer."""
    if isinstance(error, outbound.AddressRefused):
        return errors.BackendRefused(f"{doing}: {error}")
    if isinstance(error, outbound.TlsFailed) and error.untrusted:
        return errors.BackendRefused(f"{doing}: the registry's certificate is not trusted")
    if isinstance(error, outbound.AnswerBroken):
        return errors.BackendBroken(f"{doing}: the registry's answer is not usable")
    if isinstance(error, outbound.TimedOut):
        return Busy(f"{doing}: the registry did not {_SILENT.get(error.phase, 'answer')} in time")
    return Busy(f"{doing}: the connection to the registry failed")


_SILENT: Final = {"connect": "take a connection", "write": "take bytes", "read": "go on"}
