"""Owns what every HTTP page shares: the routing table, the lifespan handshake and the writing of answers.

Refuses to know any page. Source: the ASGI 3.0 specification (HTTP and lifespan messages).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import structlog

Scope: TypeAlias = Any
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

log = structlog.get_logger("casproxy.web")


@dataclass(frozen=True, slots=True)
class Request:
    """What a page needs to know of a request. Header names are lower-case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer; small enough to be held in memory."""

    status: HTTPStatus
    body: bytes
    content_type: str
    headers: Sequence[tuple[str, str]] = field(default=())


Page: TypeAlias = Callable[[Request], Response]


def json_response(status: HTTPStatus, value: object) -> Response:
    """``value`` as JSON, never to be cached."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return Response(status, body, "application/json", [("cache-control", "no-store")])


def error_response(status: HTTPStatus, reason: str, message: str) -> Response:
    """An error in the shape callers of the original service know: ``code``, ``reason``, ``message``, ``metadata``."""
    return json_response(status, {"code": int(status), "reason": reason, "message": message, "metadata": {}})


def pages(routes: Mapping[str, Page]) -> AsgiApp:
    """An ASGI application that answers GET and HEAD of exactly these paths; 404 and 405 for the rest."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            request = _request(scope)
            await _send(_answer(routes, request), request, send)
        else:
            await send({"type": "websocket.close"})

    return app


def _answer(routes: Mapping[str, Page], request: Request) -> Response:
    page = routes.get(request.path)
    if page is None:
        return error_response(HTTPStatus.NOT_FOUND, "NOT_FOUND", "there is no such page")
    if request.method not in ("GET", "HEAD"):
        refused = error_response(HTTPStatus.METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "use GET or HEAD")
        return Response(refused.status, refused.body, refused.content_type, [*refused.headers, ("allow", "GET, HEAD")])
    try:
        return page(request)
    except Exception:
        log.exception("page failed", path=request.path)
        return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL", "internal error")


def _request(scope: Scope) -> Request:
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return Request(scope["method"], scope["path"], dict(query), headers)


async def _send(response: Response, request: Request, send: Send) -> None:
    headers = [
        ("content-type", response.content_type),
        ("content-length", str(len(response.body))),
        ("x-content-type-options", "nosniff"),
        *response.headers,
    ]
    raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": int(response.status), "headers": raw})
    await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else response.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
