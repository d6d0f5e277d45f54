"""Owns the HTTP boundary: the table from our errors to a status and a body. Refuses to know pages.

Backend trouble is never shown raw: the caller gets a short text with an id, the log gets the cause with the same id.
The twin of this table for gRPC is ``services/errors.py``.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from http import HTTPStatus

import structlog

from casproxy import errors
from casproxy.web.asgi import Response, error_response

log = structlog.get_logger("casproxy.web")

CLIENT_GONE = 499
"""What the log and the metrics say of a request whose client left; nobody is there to be told."""
_RETRY_AFTER_SECONDS = "5"


class ServerBusy(errors.CasproxyError):
    """No more transfers at once, or none at all because the server is draining; a retry will help."""


class DigestRequired(errors.RequestError):
    """An upload has to name its digest here."""


class SizeConflict(errors.RequestError):
    """The stored artifact of this name has another size than the body that was announced."""


@dataclass(frozen=True, slots=True)
class _Row:
    """``trouble``: not the caller's doing; its cause is logged under an id that the caller is told as well."""

    status: HTTPStatus
    reason: str
    trouble: bool = False


_TABLE: dict[type[Exception], _Row] = {
    errors.AuthError: _Row(HTTPStatus.UNAUTHORIZED, "UNAUTHORIZED"),
    errors.InvalidDigest: _Row(HTTPStatus.BAD_REQUEST, "INVALID_DIGEST"),
    errors.DigestMismatch: _Row(HTTPStatus.UNPROCESSABLE_ENTITY, "DIGEST_MISMATCH"),
    DigestRequired: _Row(HTTPStatus.BAD_REQUEST, "DIGEST_REQUIRED"),
    SizeConflict: _Row(HTTPStatus.CONFLICT, "SIZE_CONFLICT"),
    errors.OffsetOutOfRange: _Row(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "OFFSET_OUT_OF_RANGE"),
    errors.SizeLimitExceeded: _Row(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "SIZE_LIMIT_EXCEEDED"),
    errors.RequestError: _Row(HTTPStatus.BAD_REQUEST, "INVALID_REQUEST"),
    errors.PeerError: _Row(HTTPStatus.REQUEST_TIMEOUT, "PEER_TOO_SLOW"),
    ServerBusy: _Row(HTTPStatus.SERVICE_UNAVAILABLE, "BUSY"),
    errors.MemoryShort: _Row(HTTPStatus.SERVICE_UNAVAILABLE, "MEMORY_SHORT"),
    errors.ArtifactNotFound: _Row(HTTPStatus.NOT_FOUND, "ARTIFACT_NOT_FOUND"),
    errors.BackendNotFound: _Row(HTTPStatus.NOT_FOUND, "BACKEND_NOT_FOUND"),
    errors.BackendRefused: _Row(HTTPStatus.BAD_GATEWAY, "BACKEND_REFUSED", trouble=True),
    errors.BackendUnavailable: _Row(HTTPStatus.SERVICE_UNAVAILABLE, "BACKEND_UNAVAILABLE", trouble=True),
    errors.StorageFull: _Row(HTTPStatus.INSUFFICIENT_STORAGE, "STORAGE_FULL", trouble=True),
    errors.ArtifactCorrupt: _Row(HTTPStatus.BAD_GATEWAY, "ARTIFACT_CORRUPT", trouble=True),
    errors.StorageError: _Row(HTTPStatus.BAD_GATEWAY, "BACKEND_BROKEN", trouble=True),
    errors.SecretNotFound: _Row(HTTPStatus.BAD_GATEWAY, "SECRET_NOT_FOUND", trouble=True),
    errors.SecretDenied: _Row(HTTPStatus.BAD_GATEWAY, "SECRET_DENIED", trouble=True),
    errors.SecretMalformed: _Row(HTTPStatus.BAD_GATEWAY, "SECRET_MALFORMED", trouble=True),
    errors.SecretError: _Row(HTTPStatus.SERVICE_UNAVAILABLE, "SECRET_UNAVAILABLE", trouble=True),
}
"""Looked up by the error's class, then its bases: the nearest row decides."""

_UNEXPECTED = _Row(HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL", trouble=True)


def answer_to(error: Exception, *, route: str) -> Response:
    """The answer that tells ``error`` to the caller; what is not the caller's doing is logged on the way."""
    row = next((_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE), _UNEXPECTED)
    text = "an unexpected error" if row is _UNEXPECTED else str(error)
    if row.trouble:
        error_id = str(structlog.contextvars.get_contextvars().get("request_id") or secrets.token_hex(4))
        write = log.error if row is _UNEXPECTED else log.warning  # an error with an exception is reported to Sentry
        write(text, error_id=error_id, reason=row.reason, route=route, exc_info=error)
        text = f"{text} (id {error_id})"
    return error_response(row.status, row.reason, text, headers=_headers(row.status))


def _headers(status: HTTPStatus) -> list[tuple[str, str]]:
    if status is HTTPStatus.UNAUTHORIZED:
        return [("www-authenticate", "Bearer")]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        return [("retry-after", _RETRY_AFTER_SECONDS)]
    return []
