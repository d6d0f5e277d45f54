"""Owns one HTTP request and its answer while they are exchanged: both streams, what is counted, who calls.

Refuses to know any page. What a handler finds out (claims, digest, what became of the artifact) is kept here for those
who watch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from casproxy.auth.claims import Claims
from casproxy.digest import Digest
from casproxy.errors import PeerGone, PeerTooSlow
from casproxy.observe.facts import Fact
from casproxy.storage.api import Piece
from casproxy.web.asgi import Headers, Receive, Request, Response, Send, response_start
from casproxy.web.pace import Pace, PaceLimits

Moved: TypeAlias = Callable[[str, str, int], None]
"""Direction (``in``, ``out``), the caller's backend, bytes."""


@dataclass(slots=True)
class Exchange:
    """One request, seen from its handler. ``parameter``: the last segment of a path such as ``/download/{digest}``.

    ``gone`` is set when the client has left, and when the answer is complete. ``extra_headers`` go out with whatever
    answer there is. ``moved`` is told of each part of a body. ``broken``: the answer has begun and was given up.
    """

    request: Request
    parameter: str
    gone: trio.Event
    _receive: Receive
    _send: Send
    moved: Moved
    extra_headers: Headers = ()
    claims: Claims | None = None
    digest: Digest | None = None
    fact: Fact | None = None
    status: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    finished: bool = False
    broken: bool = False
    _body_asked_for: bool = field(default=False)

    @property
    def started(self) -> bool:
        """True once the answer has begun."""
        return self.status != 0

    @property
    def content_length(self) -> int | None:
        """The announced size of the request's body in bytes; None when it is not announced."""
        announced = self.request.headers.get("content-length", "")
        return int(announced) if announced.isascii() and announced.isdigit() else None

    async def respond(self, response: Response) -> None:
        """Answer with all there is to say."""
        body = b"" if self.request.method == "HEAD" else response.body
        await self.start(response.status, response.all_headers())
        await self.finish(body)

    async def start(self, status: int, headers: Headers) -> None:
        """Begin the answer."""
        self.status = int(status)
        await self._send(response_start(status, [*headers, *self.extra_headers]))

    async def send(self, piece: Piece) -> None:
        """A piece of the answer's body; returns when the client's connection has taken it."""
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        self.bytes_sent += len(piece)
        self._tell_moved("out", len(piece))

    async def finish(self, body: bytes = b"") -> None:
        """The end of the answer."""
        self.finished = True
        await self._send({"type": "http.response.body", "body": body})
        self.bytes_sent += len(body)

    async def receive(self) -> bytes | None:
        """The next part of the request's body, never empty; None at its end. Raises ``PeerGone``.

        The first call tells a client that waits for ``100 Continue`` to send. Cancellation loses nothing.
        """
        self._body_asked_for = True
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise PeerGone("the client is gone")
            body: bytes = message.get("body", b"")
            self.bytes_received += len(body)
            self._tell_moved("in", len(body))
            if body:
                return body
            if not message.get("more_body", False):
                return None

    async def discard_body(self, limits: PaceLimits) -> None:
        """Let a client send what it wants to before it gets good news. ``PeerTooSlow``, ``PeerGone``.

        One that waits for ``100 Continue`` never begins. Others take an answer in the middle of their body for a
        failure: over HTTP/1.1 because the connection must be closed, over HTTP/2 (curl) because the stream is.
        """
        if "100-continue" in self.request.headers.get("expect", "").lower() and not self._body_asked_for:
            return
        pace = Pace(limits)
        while await self.receive_within(pace) is not None:
            pass

    async def receive_within(self, pace: Pace) -> bytes | None:
        """Like ``receive``, but ``PeerTooSlow`` when the client does not keep ``pace``."""
        began = trio.current_time()
        with trio.move_on_after(pace.left):
            part = await self.receive()
            pace.waited(trio.current_time() - began, len(part or b""))
            if not pace.exhausted:
                return part
        raise PeerTooSlow("the client sends too slowly")

    def _tell_moved(self, direction: str, size: int) -> None:
        if size and self.claims is not None:
            self.moved(direction, self.claims.backend, size)
