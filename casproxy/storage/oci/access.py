"""Owns one credential's way to one registry: found, authorised, retried, left alone when it asks. Knows no artifacts.

::

    origin      https, or http where that is allowed: asked once with GET /v2/, which tells the challenge as well
    authorised  the header for the scope goes to the registry's own origin only; a 401 is answered once with a new one
    retried     by whoever knows that the request may be sent twice (``retries``)

An answer in 400 … 599 that the caller did not ask for becomes a ``StorageError`` here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

import trio

from casproxy.errors import BackendBroken
from casproxy.outbound.address import InvalidUrl, Origin, Url
from casproxy.outbound.connection import Response
from casproxy.outbound.errors import ConnectFailed, ConnectionBroken, OutboundError, TlsFailed
from casproxy.outbound.message import Body, Buffer, Request
from casproxy.outbound.pool import Pool
from casproxy.storage.oci.errors import (
    BUSY,
    DENIED,
    Busy,
    RawAnswer,
    WayRefused,
    from_outbound,
    from_status,
    is_digest_refused,
)
from casproxy.storage.oci.kept import Kept
from casproxy.storage.oci.reference import Repo
from casproxy.storage.oci.retry import Retries, RetrySettings, parse_retry_after
from casproxy.storage.oci.tokens import MAX_TOKEN_ANSWER, Authorizer, Credentials, TokenAnswer

_SMALL_ANSWER: Final = 64 * 1024
_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_API: Final = "/v2/"


class Way(Enum):
    """How a layer is sent."""

    STREAM = "one streaming PATCH"
    WHOLE = "one PUT"
    CHUNKS = "ranged PATCHes"


@dataclass(slots=True)
class Ways:
    """The ways that this registry took, once known."""

    small: Way | None = None
    large: Way | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a registry. ``target`` is a path at its origin, or a URL it gave. ``doing`` is for texts.

    ``wanted``: the statuses the caller can use; ``refusals``: those that mean "not like that" (``WayRefused``).
    ``max_answer``: bytes.
    """

    method: str
    target: str | Url
    scope: str
    doing: str
    wanted: Collection[int]
    refusals: Collection[int] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: Buffer | Body = b""
    max_answer: int = _SMALL_ANSWER
    answer_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. ``url``: where it came from, the base of its ``Location``."""

    status: int
    headers: dict[str, str]
    body: bytes
    url: Url

    def location(self) -> Url:
        """Where the registry wants the next request (RFC 9110, 10.2.2). Raises ``BackendBroken``.

        A registry behind a TLS proxy may think it speaks http; on its own host we stay where we are.
        """
        here = self.url.origin
        try:
            there = self.url.join(self.headers.get("location", ""))
        except InvalidUrl as error:
            raise BackendBroken(f"{here.authority}: the registry named no usable Location") from error
        if here.secure and not there.origin.secure:
            if there.origin.host != here.host:
                raise BackendBroken(f"{here.authority}: the registry's Location leaves TLS")
            return replace(there, origin=here)
        return there


@dataclass(slots=True)
class _Known:
    """What was learned about the registry."""

    origin: Origin | None = None
    asking: trio.Lock = field(default_factory=trio.Lock)


class Access:
    """Made by ``stores``; shared by everything that one credential does at one registry."""

    def __init__(self, pool: Pool, repo: Repo, credentials: Credentials, retry: RetrySettings) -> None:
        self.registry = repo.registry
        self.ways = Ways()
        self.kept = Kept()
        self.retries = Retries(retry)
        self._pool = pool
        self._origins = repo.origins
        self._partition = credentials.fingerprint
        self._known = _Known()
        self._authorizer = Authorizer(credentials, self._ask_realm, self.registry)

    async def fetch(self, call: Call) -> Answer:
        """One try: the whole answer, of a wanted status. Errors: ``StorageError``."""
        with self.told(call.doing):
            async with AsyncExitStack() as stack:
                response, url = await self._open(stack, call)
                body = await response.read(call.max_answer if response.status in call.wanted else _SMALL_ANSWER)
                answer = Answer(response.status, response.headers, body, url)
                self._check(call, answer, early=response.early)
                return answer

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[Response]:
        """One try: an answer of a wanted status, its body to be read inside; redirects are followed (GET).

        Errors on entering: ``StorageError``. Inside, reading raises ``OutboundError``.
        """
        async with AsyncExitStack() as stack:
            with self.told(call.doing):
                response, url = await self._open(stack, call)
                for _ in range(_MAX_REDIRECTS):
                    if response.status not in _REDIRECTS:
                        break
                    there = Answer(response.status, response.headers, b"", url).location()
                    await stack.aclose()
                    response, url = await self._open(stack, replace(call, target=there))
                if response.status not in call.wanted:
                    body = await response.read(_SMALL_ANSWER)
                    self._check(call, Answer(response.status, response.headers, body, url))
            yield response

    @contextmanager
    def told(self, doing: str) -> Iterator[None]:
        """Errors of the way out become storage's."""
        try:
            yield
        except OutboundError as error:
            raise from_outbound(error, f"{self.registry}: {doing}") from error

    async def _open(self, stack: AsyncExitStack, call: Call) -> tuple[Response, Url]:
        """Send ``call``, twice if the registry asks for other credentials; ``Busy`` if the body is gone by then."""
        origin = await self._origin()
        url = Url(origin, call.target) if isinstance(call.target, str) else call.target
        request = Request(call.method, url, call.headers, call.body, call.answer_timeout)
        if url.origin != origin:
            return await stack.enter_async_context(self._pool.send(request, self._partition)), url
        header = await self._authorizer.header(call.scope)
        response = await stack.enter_async_context(self._pool.send(_with(request, header), self._partition))
        if response.status == 401:
            challenge = response.headers.get("www-authenticate", "")
            another = await self._authorizer.renewed(challenge, call.scope, header, secure=origin.secure)
            if another is not None:
                if not isinstance(call.body, bytes | bytearray | memoryview):
                    raise Busy(f"{self.registry}: {call.doing}: the token expired on the way; there is a new one now")
                await stack.aclose()
                response = await stack.enter_async_context(self._pool.send(_with(request, another), self._partition))
        return response, url

    def _check(self, call: Call, answer: Answer, *, early: bool = False) -> None:
        doing = f"{self.registry}: {call.doing}"
        if answer.status in call.wanted:
            if early:
                raise BackendBroken(f"{doing}: the registry was content before it had everything")
            return
        if answer.status in call.refusals and not is_digest_refused(answer.body):
            raise WayRefused(f"{doing}: the registry refused (HTTP {answer.status})") from RawAnswer(
                answer.status, answer.body
            )
        asked = parse_retry_after(answer.headers.get("retry-after")) if answer.status in BUSY else None
        self.retries.note(asked)
        raise from_status(answer.status, answer.body, doing, retry_after=asked)

    async def _origin(self) -> Origin:
        """Where the registry answers, and by which challenge: asked once, remembered once it is known."""
        async with self._known.asking:
            if self._known.origin is None:
                self._known.origin = await self._find_origin()
            return self._known.origin

    async def _find_origin(self) -> Origin:
        failure: OutboundError | None = None
        for origin in self._origins:
            try:
                async with self._pool.send(Request("GET", Url(origin, _API)), self._partition) as response:
                    body = await response.read(_SMALL_ANSWER)
                    answer = Answer(response.status, response.headers, body, Url(origin, _API))
            except (ConnectFailed, ConnectionBroken) as error:
                if isinstance(error, TlsFailed) and error.untrusted:
                    raise
                failure = failure or error.with_traceback(None)  # a frame of ours, which may end well
                continue
            if answer.status in BUSY:
                self._check(Call("GET", _API, "", "first contact", ()), answer)
            if answer.status == 400 and failure is not None:
                break  # a TLS port answers so to plain http
            if answer.status == 401:
                self._authorizer.learn(answer.headers.get("www-authenticate", ""), secure=origin.secure)
            return origin
        try:
            raise failure or ConnectFailed(f"{self.registry} has no address")
        finally:
            del failure

    async def _ask_realm(self, request: Request) -> TokenAnswer:
        doing = "asking its token server"
        with self.told(doing):
            async with self._pool.send(request, self._partition) as response:
                body = await response.read(MAX_TOKEN_ANSWER)
        if response.status == 200 or response.status in DENIED:
            return TokenAnswer(response.status, body)
        answer = Answer(response.status, response.headers, body, request.url)
        self._check(Call("GET", request.url, "", doing, ()), answer)
        raise AssertionError("unreachable: no status is wanted")


def _with(request: Request, header: str | None) -> Request:
    return request if header is None else request.with_headers(("Authorization", header))
