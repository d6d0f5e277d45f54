"""Owns the gRPC boundary: the table from our errors to a status, and the interceptor that applies it.

Backend trouble is never shown raw: the caller gets a short text with an id, the log gets the cause with the same id.
Every status made here carries a ``google.rpc.ErrorInfo`` (reason, domain ``casproxy``) in its details.

Not ours, and passed on as they are: ``RpcError`` (a status already), ``BrokenMessage`` and ``StreamGone`` (the call
itself knows how to end), cancellation.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import structlog
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from casproxy import errors
from casproxy.observe.calls import RequestId
from casproxy.rpc.api import Handler, Interceptor, ServerCall
from casproxy.rpc.errors import RpcError, StreamGone
from casproxy.wire.errors import BrokenMessage
from casproxy.wire.status import StatusCode

DOMAIN = "casproxy"
log = structlog.get_logger("casproxy.services")


@dataclass(frozen=True, slots=True)
class _Row:
    """``trouble``: not the caller's doing; its cause is logged under an id that the caller is told as well."""

    code: StatusCode
    reason: str
    trouble: bool = False


_TABLE: dict[type[Exception], _Row] = {
    errors.AuthError: _Row(StatusCode.UNAUTHENTICATED, "UNAUTHORIZED"),
    errors.InvalidDigest: _Row(StatusCode.INVALID_ARGUMENT, "INVALID_DIGEST"),
    errors.InvalidResourceName: _Row(StatusCode.INVALID_ARGUMENT, "INVALID_RESOURCE_NAME"),
    errors.DigestMismatch: _Row(StatusCode.INVALID_ARGUMENT, "DIGEST_MISMATCH"),
    errors.OffsetOutOfRange: _Row(StatusCode.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE"),
    errors.SizeLimitExceeded: _Row(StatusCode.RESOURCE_EXHAUSTED, "SIZE_LIMIT_EXCEEDED"),
    errors.RequestError: _Row(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    errors.PeerTooSlow: _Row(StatusCode.DEADLINE_EXCEEDED, "PEER_TOO_SLOW"),
    errors.PeerError: _Row(StatusCode.CANCELLED, "PEER_GONE"),
    errors.MemoryShort: _Row(StatusCode.UNAVAILABLE, "MEMORY_SHORT"),
    errors.ArtifactNotFound: _Row(StatusCode.NOT_FOUND, "ARTIFACT_NOT_FOUND"),
    errors.BackendNotFound: _Row(StatusCode.NOT_FOUND, "BACKEND_NOT_FOUND"),
    errors.BackendRefused: _Row(StatusCode.FAILED_PRECONDITION, "BACKEND_REFUSED", trouble=True),
    errors.BackendUnavailable: _Row(StatusCode.UNAVAILABLE, "BACKEND_UNAVAILABLE", trouble=True),
    errors.StorageFull: _Row(StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL", trouble=True),
    errors.ArtifactCorrupt: _Row(StatusCode.DATA_LOSS, "ARTIFACT_CORRUPT", trouble=True),
    errors.StorageError: _Row(StatusCode.INTERNAL, "BACKEND_BROKEN", trouble=True),
    errors.SecretNotFound: _Row(StatusCode.FAILED_PRECONDITION, "SECRET_NOT_FOUND", trouble=True),
    errors.SecretDenied: _Row(StatusCode.FAILED_PRECONDITION, "SECRET_DENIED", trouble=True),
    errors.SecretMalformed: _Row(StatusCode.FAILED_PRECONDITION, "SECRET_MALFORMED", trouble=True),
    errors.SecretError: _Row(StatusCode.UNAVAILABLE, "SECRET_UNAVAILABLE", trouble=True),
}
"""Looked up by the error's class, then its bases: the nearest row decides."""

_UNEXPECTED = _Row(StatusCode.INTERNAL, "INTERNAL", trouble=True)
_TEXT_NAMES_ID = frozenset({StatusCode.INTERNAL, StatusCode.UNAVAILABLE})


def error_interceptor() -> Interceptor:
    """An interceptor that lets nothing but a status out of the handlers and interceptors inside it."""

    async def translate(call: ServerCall, handler: Handler) -> None:
        try:
            await handler(call)
        except (RpcError, StreamGone, BrokenMessage):
            raise
        except Exception as error:
            raise _status(call, error) from error

    return translate


def _status(call: ServerCall, error: Exception) -> RpcError:
    row = next((_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE), _UNEXPECTED)
    metadata: dict[str, str] = {}
    text = "an unexpected error" if row is _UNEXPECTED else str(error)
    if isinstance(error, errors.AuthError):
        metadata["cause"] = error.cause
    if row.trouble:
        error_id = _error_id(call)
        metadata["id"] = error_id
        if row.code in _TEXT_NAMES_ID:
            text = f"{text} (id {error_id})"
        write = log.error if row is _UNEXPECTED else log.warning  # an error with an exception is reported to Sentry
        write(text, error_id=error_id, reason=row.reason, method=call.info.path[1:], exc_info=error)
    return RpcError(row.code, text, _details(row, text, metadata))


def _error_id(call: ServerCall) -> str:
    """The call's request id, by which its log lines and trace are found, too."""
    request_id = call.find(RequestId)
    return secrets.token_hex(4) if request_id is None else request_id.text


def _details(row: _Row, text: str, metadata: dict[str, str]) -> bytes:
    """A serialised ``google.rpc.Status`` with one ``ErrorInfo`` (AIP-193)."""
    info = Any()
    info.Pack(ErrorInfo(reason=row.reason, domain=DOMAIN, metadata=metadata))
    return Status(code=int(row.code), message=text, details=[info]).SerializeToString()
