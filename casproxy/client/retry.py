"""Owns whether and when a call is made again. Refuses to know what the call does.

Only UNAVAILABLE is tried again: the one status that says that a retry may help (gRPC, "Status codes"). It is safe for
every call of this package: reading changes nothing, and an upload names its digest, so that storing it twice is storing
it once. Waits grow and are spread, so that the clients of a server that restarts do not all come back at once.
"""

from __future__ import annotations

import random
import socket
import ssl
from dataclasses import dataclass

import trio

from casproxy.client.progress import Phase, Progress
from casproxy.rpc.errors import RpcError
from casproxy.wire.status import StatusCode


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a call that ended with UNAVAILABLE is made again, and after what waits, in seconds.

    ``times``: retries in a row that brought no byte; a download that got further begins to count anew. 0: none.
    The first wait is at most ``first_wait``, each further one at most twice as long, none longer than
    ``longest_wait``; how long exactly is left to chance, between half of that and all of it.
    """

    times: int = 5
    first_wait: float = 0.4  # longer than the channel itself refuses to dial again: rpc/backoff.py
    longest_wait: float = 10.0

    def wait(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row, 1 or more."""
        longest = min(self.first_wait * 2.0 ** min(failures - 1, 64), self.longest_wait)
        return longest * random.uniform(0.5, 1)  # noqa: S311  # no secret in it


NO_RETRY = Retry(times=0)
"""A call ends as the server ended it, the first time."""


class Attempts:
    """The attempts at one call, made one after the other within ``timeout`` seconds, waits included."""

    def __init__(self, retry: Retry, timeout: float) -> None:
        self._retry = retry
        self._timeout = timeout
        self._deadline = trio.current_time() + timeout
        self._failures = 0

    @property
    def seconds_left(self) -> float:
        """What the next attempt may take; ``math.inf`` without a timeout."""
        left = self._deadline - trio.current_time()
        if left > 0.99 * self._timeout:
            return self._timeout  # "no answer within 30 s" reads better than "within 29.9983 s"
        return max(0.001, left)

    def got_further(self) -> None:
        """The attempt brought something that the next one builds on: failures are counted anew."""
        self._failures = 0

    async def again(self, error: RpcError, progress: Progress) -> bool:
        """Whether to try again, after waiting until it is time to. Called once per failed attempt."""
        self._failures += 1
        if self._failures > self._retry.times or not _may_pass(error):
            return False
        wait = self._retry.wait(self._failures)
        if wait >= self.seconds_left:
            return False
        progress(Phase.WAIT, 0, None)
        await trio.sleep(wait)
        return True


def _may_pass(error: RpcError) -> bool:
    """Whether the same call may succeed a moment later. A wrong name or certificate is as wrong then."""
    if error.code is not StatusCode.UNAVAILABLE:
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError)  # hung up in the handshake: it restarts
        if isinstance(cause, socket.gaierror):
            return cause.errno == socket.EAI_AGAIN
        cause = cause.__cause__
    return True
