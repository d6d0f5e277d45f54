"""Owns what happens to every request of the HTTP port: its route, id, CORS, log line, its end when the client leaves.

Refuses to know what the routes do. A request's handler runs in a scope of its own that ends as soon as the client is
gone; what it raises becomes an answer (``errors``), or a broken-off one when it has begun.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

import trio

from casproxy.errors import PeerGone
from casproxy.pipeline.run import one_cause
from casproxy.web.asgi import (
    AbortResponse,
    AsgiApp,
    Page,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    error_response,
    is_http,
    method_not_allowed,
    not_found,
    run_page,
)
from casproxy.web.cors import Cors
from casproxy.web.errors import CLIENT_GONE, answer_to
from casproxy.web.exchange import Exchange
from casproxy.web.observe import NO_ROUTE, RequestLog, request_id

Handler: TypeAlias = Callable[[Exchange], Awaitable[None]]

PARAMETER = "{digest}"
"""The last segment of a route's template that stands for anything."""


@dataclass(frozen=True, slots=True)
class Route:
    """A path, or a path with a last segment of the caller's, and who answers which method.

    ``cors``: pages of other origins may ask, as configured. ``quiet``: no log line while all is well.
    """

    template: str
    handlers: Mapping[str, Handler]
    cors: bool = False
    quiet: bool = False
    label: str = ""
    """Its name in logs and metrics; the template when empty."""

    def parameter(self, path: str) -> str | None:
        """The last segment of a ``path`` that is this route's, ``""`` when it has none; None for another path."""
        if not self.template.endswith(PARAMETER):
            return "" if path == self.template else None
        prefix = self.template.removesuffix(PARAMETER)
        return path.removeprefix(prefix) if path.startswith(prefix) and path != prefix else None


def page_route(path: str, page: Page, *, cors: bool = False, label: str = "") -> Route:
    """A route that answers GET and HEAD with a page."""

    async def handle(exchange: Exchange) -> None:
        await exchange.respond(run_page(page, exchange.request))

    return Route(path, {"GET": handle, "HEAD": handle}, cors=cors, quiet=True, label=label)


def door(routes: Sequence[Route], cors: Cors, request_log: RequestLog, *, max_header_bytes: int) -> AsgiApp:
    """The application of the HTTP port."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not await is_http(scope, receive, send):
            return
        request = Request.of(scope)
        found = ((route, route.parameter(request.path)) for route in routes)
        route, parameter = next(((route, text) for route, text in found if text is not None), (None, ""))
        name = request_id(request.headers.get("x-request-id", ""))
        exchange = Exchange(
            request, parameter or "", scope["extensions"]["casproxy.gone"], receive, send, request_log.moved
        )
        exchange.extra_headers = [("x-request-id", name), ("referrer-policy", "no-referrer")]
        if route is not None and route.cors:
            exchange.extra_headers += cors.headers(request.headers.get("origin", ""))
        label = NO_ROUTE if route is None else route.label or route.template
        with request_log.watch(exchange, label, name, quiet=route is not None and route.quiet):
            if sum(len(field) + len(value) for field, value in scope["headers"]) > max_header_bytes:
                await exchange.respond(_headers_too_large())
            elif route is None:
                await exchange.respond(not_found())
            else:
                await _serve(route, exchange, cors)

    return app


async def _serve(route: Route, exchange: Exchange, cors: Cors) -> None:
    handler = route.handlers.get(exchange.request.method)
    if handler is not None:
        await _answer(handler, route, exchange)
    elif exchange.request.method == "OPTIONS":
        await exchange.respond(_preflight(route, exchange.request, cors))
    else:
        await exchange.respond(method_not_allowed(route.handlers))


async def _answer(handler: Handler, route: Route, exchange: Exchange) -> None:
    try:
        await _unless_gone(handler, exchange)
    except PeerGone as error:
        exchange.broken, exchange.status = exchange.started, CLIENT_GONE
        raise AbortResponse from error
    except AbortResponse:
        exchange.broken = True
        raise
    except Exception as error:
        answer = answer_to(error, route=route.template)
        if exchange.started:
            exchange.broken = True
            raise AbortResponse from error
        await exchange.respond(answer)


async def _unless_gone(handler: Handler, exchange: Exchange) -> None:
    """Run ``handler``, and end it when the client leaves: ``PeerGone``."""

    async def watch() -> None:
        await exchange.gone.wait()
        if not exchange.finished:
            requests.cancel_scope.cancel()

    with one_cause():
        async with trio.open_nursery() as requests:
            requests.start_soon(watch)
            try:
                await handler(exchange)
            finally:
                requests.cancel_scope.cancel()  # not left to the nursery: see ``run_stages``
            return
    raise PeerGone("the client is gone")


def _preflight(route: Route, request: Request, cors: Cors) -> Response:
    if route.cors:
        return cors.preflight(request.headers.get("origin", ""))
    return Response(HTTPStatus.NO_CONTENT, headers=[("allow", ", ".join([*route.handlers, "OPTIONS"]))])


def _headers_too_large() -> Response:
    return error_response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "HEADERS_TOO_LARGE", "the headers are too large")
