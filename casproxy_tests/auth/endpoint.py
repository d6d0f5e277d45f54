"""A server of one document over real sockets, whose misbehaviour is chosen by the test."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import trio

from casproxy.auth.jwks import jwks_of
from casproxy.auth.keys import VerificationKey, parse_pem
from casproxy_tests.auth import forge


def named(kid: str | None, kind: str = "P-521") -> VerificationKey:
    """The public half of a forger's key under this name."""
    (key,) = parse_pem(forge.public_pem(kind), origin="test")
    return VerificationKey(key.key, key.algorithms, kid)


def document(*keys: VerificationKey) -> bytes:
    """A JWK Set."""
    return json.dumps(jwks_of(keys)).encode()


@dataclass
class Endpoint:
    """``down``: connections are closed without an answer. ``stalled``: there is never an answer."""

    port: int
    body: bytes = b""
    status: str = "200 OK"
    headers: Mapping[str, str] = field(default_factory=dict)
    down: bool = False
    stalled: bool = False
    requests: list[bytes] = field(default_factory=list)
    open_connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys.json"

    async def idle(self) -> None:
        """Return when every connection is closed."""
        while self.open_connections:
            await trio.testing.wait_all_tasks_blocked()

    async def _handle(self, stream: trio.abc.Stream) -> None:
        self.open_connections += 1
        try:
            with suppress(trio.BrokenResourceError):  # the client may leave at any time
                async with stream:
                    await self._answer(stream)
        finally:
            self.open_connections -= 1

    async def _answer(self, stream: trio.abc.Stream) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            received = await stream.receive_some()
            if not received:
                return
            head += received
        self.requests.append(head)
        if self.stalled:
            await stream.receive_some()  # until the client hangs up
        elif not self.down:
            headers = {"content-length": str(len(self.body)), "connection": "close", **self.headers}
            lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
            await stream.send_all("\r\n".join(lines).encode() + self.body)


@asynccontextmanager
async def open_endpoint(*keys: VerificationKey, tls: ssl.SSLContext | None = None) -> AsyncIterator[Endpoint]:
    """A server on loopback that offers ``keys``; gone when the block is left."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        endpoint = Endpoint(port=listener.socket.getsockname()[1], body=document(*keys))
        listeners = [listener if tls is None else trio.SSLListener(listener, tls, https_compatible=True)]
        await nursery.start(trio.serve_listeners, endpoint._handle, listeners)
        yield endpoint
        nursery.cancel_scope.cancel()
