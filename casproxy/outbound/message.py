"""Owns what is asked and how patient the asker is. Refuses to know sockets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from casproxy.outbound.address import Url

Buffer: TypeAlias = bytes | bytearray | memoryview


class Body(Protocol):
    """A request body that is made while it is sent. Its bytes are never copied."""

    @property
    def size(self) -> int | None:
        """Bytes in all, for ``Content-Length``; None: sent in chunks (RFC 9112, 7.1)."""

    async def receive(self) -> Buffer:
        """The next bytes; empty at the end. Cancelled when the server answers before it has the whole body."""

    def answered(self, answer: Head) -> None:
        """The answer to a body of no declared size: told at once, for the exchange may be cancelled before it is read.

        Cancelled earlier, the body ended where it was, and this is the answer to that.
        """


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``Host``, ``Content-Length``, ``Transfer-Encoding`` and ``Accept-Encoding`` are added when sent.

    ``answer_timeout``: seconds until the answer's head must be there once the body is sent; None: as configured.
    """

    method: str
    url: Url
    headers: tuple[tuple[str, str], ...] = ()
    body: Buffer | Body = b""
    answer_timeout: float | None = None

    def with_headers(self, *headers: tuple[str, str]) -> Request:
        """The same request with more headers."""
        return Request(self.method, self.url, (*self.headers, *headers), self.body, self.answer_timeout)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long nothing may happen, in seconds. Progress starts ``write`` and ``read`` anew."""

    connect: float = 10.0
    write: float = 30.0
    answer: float = 60.0
    read: float = 30.0


DEFAULT_TIMEOUTS: Final = Timeouts()


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer: ``headers`` by lower-case name, several of one name joined by commas (RFC 9110, 5.3)."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    keep_alive: bool = False
