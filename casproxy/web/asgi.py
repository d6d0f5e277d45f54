"""Owns what every HTTP page shares: requests, whole answers, the lifespan handshake, a port with nothing but pages.

Refuses to know any page. Source: the ASGI 3.0 specification (HTTP and lifespan messages).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import structlog

Scope: TypeAlias = Any
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[str, str]]

log = structlog.get_logger("casproxy.web")


class AbortResponse(Exception):
    """Ends a request whose answer has begun and must not look complete: the connection or its stream is broken off."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a page needs to know of a request. Header names are lower-case; what occurs twice is joined by a comma."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    http_version: str = "1.1"
    peer: str = ""

    @classmethod
    def of(cls, scope: Scope) -> Request:
        """Read an ASGI HTTP scope."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        headers = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        host, port = (scope.get("client") or ("", 0))[:2]
        peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return cls(scope["method"], scope["path"], _joined(query), _joined(headers), scope["http_version"], peer)


def _joined(pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer; small enough to be held in memory. Without a body it has no content type."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = ""
    headers: Headers = field(default=())

    def all_headers(self) -> list[tuple[str, str]]:
        """The given headers and those that describe the body."""
        described = [("content-type", self.content_type)] if self.content_type else []
        if self.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            described.append(("content-length", str(len(self.body))))
        return [*described, ("x-content-type-options", "nosniff"), *self.headers]


Page: TypeAlias = Callable[[Request], Response]


def json_response(status: HTTPStatus, value: object, headers: Headers = ()) -> Response:
    """``value`` as JSON, never to be cached."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return Response(status, body, "application/json", [("cache-control", "no-store"), *headers])


def error_response(status: HTTPStatus, reason: str, message: str, headers: Headers = ()) -> Response:
    """An error in the shape callers of the original service know: ``code``, ``reason``, ``message``, ``metadata``."""
    return json_response(status, {"code": int(status), "reason": reason, "message": message, "metadata": {}}, headers)


def not_found() -> Response:
    """For a path that nobody serves."""
    return error_response(HTTPStatus.NOT_FOUND, "NOT_FOUND", "there is no such page")


def method_not_allowed(methods: Iterable[str]) -> Response:
    """For a path that is served, but not with this method."""
    allowed = ", ".join(methods)
    return error_response(
        HTTPStatus.METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", f"use {allowed}", headers=[("allow", allowed)]
    )


def pages(routes: Mapping[str, Page]) -> AsgiApp:
    """An ASGI application that answers GET and HEAD of exactly these paths; 404 and 405 for the rest."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if await is_http(scope, receive, send):
            request = Request.of(scope)
            response = _answer(routes, request)
            await send(response_start(response.status, response.all_headers()))
            await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else response.body})

    return app


def run_page(page: Page, request: Request) -> Response:
    """The page's answer, or 500 when it fails."""
    try:
        return page(request)
    except Exception:
        log.exception("page failed", path=request.path)
        return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL", "internal error")


def response_start(status: int, headers: Headers) -> dict[str, object]:
    """The message that begins an answer."""
    raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    return {"type": "http.response.start", "status": int(status), "headers": raw}


async def is_http(scope: Scope, receive: Receive, send: Send) -> bool:
    """True for an HTTP request. Everything else is dealt with here: the lifespan handshake, WebSockets (refused)."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] != "http":
        await send({"type": "websocket.close"})
    return bool(scope["type"] == "http")


def _answer(routes: Mapping[str, Page], request: Request) -> Response:
    page = routes.get(request.path)
    if page is None:
        return not_found()
    if request.method not in ("GET", "HEAD"):
        return method_not_allowed(["GET", "HEAD"])
    return run_page(page, request)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
