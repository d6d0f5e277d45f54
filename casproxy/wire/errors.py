"""Owns what can be wrong with bytes on the wire. Refuses to know what the shell does about it.

::

    WireError
    ├── ConnectionBroken    the connection is beyond repair; a GOAWAY is already queued
    ├── MalformedHeaders    one stream's headers break a rule: reset that stream (RFC 9113, 8.1.1)
    ├── HttpRefusal         not a gRPC request: answer with a plain HTTP status
    ├── CallRefusal         a gRPC request that cannot run: answer Trailers-Only
    └── BrokenMessage       the message stream inside DATA is wrong: end the call with this status
"""

from __future__ import annotations

from casproxy.wire.status import StatusCode


class WireError(Exception):
    """Base of what can be wrong with received bytes."""


class ConnectionBroken(WireError):
    """A connection error. ``code``: the HTTP/2 error code of the GOAWAY; ``limit``: the abuse limit passed, if any."""

    def __init__(self, code: int, text: str, *, limit: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.limit = limit


class MalformedHeaders(WireError):
    """A stream error PROTOCOL_ERROR."""


class HttpRefusal(WireError):
    """Answer with ``http_status``, no gRPC status, and the text as a plain body."""

    def __init__(self, http_status: int) -> None:
        super().__init__(f"HTTP {http_status}: this port speaks gRPC (POST, content-type application/grpc)\n")
        self.http_status = http_status


class _WithStatus(WireError):
    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class CallRefusal(_WithStatus):
    """The call cannot start; ``code`` and ``message`` go to the peer."""


class BrokenMessage(_WithStatus):
    """The peer's message stream is wrong; ``code`` and ``message`` go to the peer."""
