"""Owns when a server that could not be reached is dialled again. Refuses to know how.

Until then calls fail at once with the last reason, as other gRPC clients do (doc/connection-backoff.md, with a
shorter first delay): a caller that tries again in a loop must not turn into a flood of connections.
"""

from __future__ import annotations

import math
import random

from casproxy.rpc.errors import RpcError
from casproxy.wire.status import StatusCode

FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
"""Seconds."""
GROWTH = 1.6
JITTER = 0.2


class Backoff:
    """One server's. Times are on any one clock, in seconds."""

    def __init__(self) -> None:
        self._not_before = -math.inf
        self._delay = FIRST_DELAY
        self._reason = ""

    def check(self, now: float) -> None:
        """Raises ``RpcError`` UNAVAILABLE, with the reason of the last failure, when it is too early."""
        if now < self._not_before:
            raise RpcError(StatusCode.UNAVAILABLE, self._reason)

    def failed(self, now: float, reason: str) -> RpcError:
        """Dialling failed; returns the error to raise."""
        jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret in it
        self._not_before = now + self._delay * jitter
        self._delay = min(self._delay * GROWTH, LONGEST_DELAY)
        self._reason = reason
        return RpcError(StatusCode.UNAVAILABLE, reason)

    def succeeded(self) -> None:
        """There is a connection: the next loss is dialled again at once."""
        self._delay = FIRST_DELAY
