"""Owns a gRPC status on its way to or from a peer. Refuses to know why a call failed."""

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
