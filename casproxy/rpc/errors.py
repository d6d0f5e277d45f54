"""Owns how a call can end: with a status, or with its stream gone. Refuses to know why."""

from __future__ import annotations

from casproxy.wire.status import StatusCode


class RpcError(Exception):
    """A call that ends with a status other than OK.

    A server handler raises it to end its call with exactly this status; a client call raises it
    when the server did. ``details`` is a serialised ``google.rpc.Status`` or empty
    (``grpc-status-details-bin``).
    """

    def __init__(self, code: StatusCode, message: str = "", details: bytes = b"") -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.details = details


class StreamGone(Exception):
    """The stream was reset or its connection died: nothing can be sent or received any more.

    ``code``: the HTTP/2 error code of a RST_STREAM, None when the connection died.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__("connection lost" if code is None else f"stream reset with code {code}")
        self.code = code
