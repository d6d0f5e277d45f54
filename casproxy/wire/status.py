"""Owns the gRPC status codes and how they map from HTTP. Refuses to know which error means which code.

Source: the gRPC specification, statuscodes.md, http-grpc-status-mapping.md and PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import enum


class StatusCode(enum.IntEnum):
    """The seventeen codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_FROM_HTTP = {
    400: StatusCode.INTERNAL,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.UNIMPLEMENTED,
    429: StatusCode.UNAVAILABLE,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.UNAVAILABLE,
}


def from_http_status(http_status: int) -> StatusCode:
    """The code a client reports when the response carried no ``grpc-status`` (wire.md, Behaviour 15)."""
    return _FROM_HTTP.get(http_status, StatusCode.UNKNOWN)
