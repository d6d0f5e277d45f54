"""Owns what the HTTP port leaves in the log and in the metrics: one line and a few numbers per request.

Never a query string, for it may hold a token: a route is named by its template, an artifact by its digest. The names
of series are ours (``casproxy_http_``); those of the gRPC side are in ``observe/metrics.py``.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeAlias, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from casproxy.web.errors import CLIENT_GONE
from casproxy.web.exchange import Exchange

log = structlog.get_logger("casproxy.http")

_BUCKETS_SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0)
_REQUEST_ID = re.compile(r"[0-9A-Za-z._-]{1,64}", re.ASCII)
_METHODS = frozenset({"GET", "HEAD", "PUT", "OPTIONS", "POST", "DELETE", "PATCH"})
NO_ROUTE = "none"
"""The label of requests for a path that nobody serves."""


def request_id(given: str) -> str:
    """The caller's ``X-Request-Id`` when that is harmless, else a random one."""
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


class HttpMetrics:
    """The counters of one HTTP port, in the process's registry. Times in seconds."""

    def __init__(self, registry: CollectorRegistry, routes: Collection[str]) -> None:
        self._requests = Counter(
            "casproxy_http_requests", "HTTP requests ended, by status.", ["method", "route", "code"], registry=registry
        )
        self._seconds = Histogram(
            "casproxy_http_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["route"],
            registry=registry,
            buckets=_BUCKETS_SECONDS,
        )
        self._in_flight = Gauge("casproxy_http_requests_in_flight", "HTTP requests being answered.", registry=registry)
        self._bytes = Counter(
            "casproxy_http_body_bytes",
            "Bytes of HTTP bodies, by direction (in: from clients) and the caller's backend.",
            ["direction", "backend"],
            registry=registry,
        )
        for route in (*routes, NO_ROUTE):
            self._seconds.labels(route)
            self._requests.labels("GET", route, "200")

    def ended(self, exchange: Exchange, route: str, status: int, seconds: float) -> None:
        """A request has ended."""
        method = exchange.request.method
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def moved(self, direction: str, backend: str, size: int) -> None:
        """``size`` bytes of a body went ``in`` or ``out``; ``backend``: the caller's."""
        self._bytes.labels(direction, backend).inc(size)

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Around each request."""
        with self._in_flight.track_inprogress():
            yield


Watcher: TypeAlias = Callable[[Exchange, str, str], AbstractContextManager[None]]
"""Around each request, with its route and its id: traces and the audit trail."""


class RequestLog:
    """Reports each request to the log and the metrics when it has ended."""

    def __init__(self, metrics: HttpMetrics, watchers: Sequence[Watcher] = ()) -> None:
        self._metrics = metrics
        self._watchers = watchers
        self.moved = metrics.moved

    @contextmanager
    def watch(self, exchange: Exchange, route: str, name: str, *, quiet: bool) -> Iterator[None]:
        """Around one request. ``name``: its id. ``quiet``: not worth a line while all is well (probes, the page)."""
        began = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(structlog.contextvars.bound_contextvars(request_id=name))
            for watcher in self._watchers:
                stack.enter_context(watcher(exchange, route, name))
            stack.enter_context(self._metrics.in_flight())
            try:
                yield
            finally:
                self._report(exchange, route, time.perf_counter() - began, quiet)

    def _report(self, exchange: Exchange, route: str, seconds: float, quiet: bool) -> None:
        request, claims = exchange.request, exchange.claims
        status = exchange.status or CLIENT_GONE  # cancelled before there was an answer
        self._metrics.ended(exchange, route, status, seconds)
        facts: dict[str, object] = {"method": request.method, "route": route, "code": status, "peer": request.peer}
        facts["http"] = request.http_version
        if claims is not None:
            facts |= {"org": claims.org_id, "role": claims.role.value, "backend": claims.backend}
        if exchange.digest is not None:
            facts["digest"] = str(exchange.digest)
        facts |= {"bytes": exchange.bytes_received + exchange.bytes_sent, "seconds": round(seconds, 6)}
        if exchange.broken:
            facts["broken_off"] = True
        _level(status, quiet=quiet, broken=exchange.broken)("request", **facts)


def _level(status: int, *, quiet: bool, broken: bool) -> Callable[..., object]:
    if status >= 500 or broken:
        method = log.warning
    elif quiet and status < 400:
        method = log.debug
    else:
        method = log.info
    return cast("Callable[..., object]", method)
