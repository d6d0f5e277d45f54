"""Owns putting together what an operator sees of one server: configuration in, interceptors and wrappers out.

The composition root asks this module instead of five others; what is not configured is neither imported nor in the
way. Nothing here may hold up or fail a transfer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from casproxy.auth.claims import Claims
from casproxy.background import background
from casproxy.certificates import ServedCertificate
from casproxy.config import Config
from casproxy.observe.calls import observe_calls
from casproxy.observe.facts import Caller
from casproxy.observe.lag import watch_lag
from casproxy.observe.metrics import Metrics
from casproxy.rpc.api import Interceptor, MethodInfo, ServerCall
from casproxy.rpc.server import Server
from casproxy.secrets.api import SecretSource
from casproxy.secrets.cache import SecretCache
from casproxy.secrets.watch import EAGER, SourceWatch, WatchSettings
from casproxy.services.readiness import Readiness
from casproxy.storage.api import BackendResolver
from casproxy.storage.wrappers.observed import OPERATIONS, ObservedResolver
from casproxy.trust import TrustStore
from casproxy.web.exchange import Exchange
from casproxy.web.observe import Watcher

if TYPE_CHECKING:
    from casproxy.observe.audit import AuditTrail
    from casproxy.observe.tracing import Tracing

SOURCE_DOWN = "the secret source does not answer"


class Observation:
    """What watches one server. Made by ``open_observation``."""

    def __init__(self, config: Config, readiness: Readiness, tracing: Tracing | None, trail: AuditTrail | None) -> None:
        self._require_secrets = config.readiness.require_secrets
        self._readiness = readiness
        self.metrics = Metrics(per_org=config.observability.metrics.per_org)
        self.tracing = tracing
        self.trail = trail
        if tracing is not None:
            self.metrics.watch_counts("casproxy_spans", "Spans, by what became of them.", "result", tracing.counts)
        if trail is not None:
            self._watch_trail(trail)

    def interceptors(self) -> list[Interceptor]:
        """In their order, the outermost first; those that translate errors and check tokens belong inside."""
        found = [observe_calls(self.metrics, who_calls)]
        if self.tracing is not None:
            from casproxy.observe.tracing import trace_calls

            found.insert(0, trace_calls(self.tracing, who_calls))
        if self.trail is not None:
            from casproxy.observe.audit import audit_calls

            found.append(audit_calls(self.trail.record, who_calls))
        return found

    def watchers(self) -> list[Watcher]:
        """The same for requests of the HTTP port, whose log and metrics are its own."""
        found: list[Watcher] = []
        if self.tracing is not None:
            found.append(partial(_trace_request, self.tracing))
        if self.trail is not None:
            found.append(partial(_audit_request, self.trail))
        return found

    def backends(self, resolver: BackendResolver) -> BackendResolver:
        """``resolver`` with every request to its backends timed."""
        return ObservedResolver(resolver, self.metrics.report_backend)

    @asynccontextmanager
    async def source(self, source: SecretSource) -> AsyncIterator[SecretSource]:
        """``source`` with every look-up timed, and watched for the length of the block; so is the event loop."""
        watch = SourceWatch(
            source,
            EAGER if self._require_secrets else WatchSettings(),
            report=self.metrics.report_secret,
            on_change=self._secrets_changed,
        )
        self.metrics.watch_gauge(
            "casproxy_secret_source_up", "1 while the secret source answers, else 0.", lambda: float(watch.up)
        )
        self.metrics.watch_gauge(
            "casproxy_secret_source_age_seconds",
            "Time since the secret source last answered.",
            lambda: trio.current_time() - watch.answered_at,
        )
        async with background(watch.run, partial(watch_lag, self.metrics.loop_lagged)):
            yield watch

    def serve(
        self,
        methods: Iterable[MethodInfo],
        resolver: BackendResolver,
        secrets: SecretCache,
        key_ages: Callable[[], Mapping[str, float]],
    ) -> None:
        """Create the series of what is served, and export what secrets and keys tell of themselves."""
        self.metrics.create_series(methods, resolver.backend_types(), OPERATIONS)
        self.metrics.watch_counts(
            "casproxy_secret_cache",
            "What the secret cache did. hit: answered at once; lookup: asked the source; failure: found it down; "
            "stale: answered with an old secret because of that.",
            "result",
            secrets.stats.by_result,
        )
        self.metrics.watch_gauge(
            "casproxy_secret_age_seconds",
            "Age of the oldest secret that would still serve without a look-up; 0 when there is none.",
            secrets.oldest_age,
        )

        self.metrics.watch_gauges(
            "casproxy_auth_key_age_seconds",
            "Time since the keys of this setting were last read without a fault; +Inf: never yet.",
            "setting",
            key_ages,
        )

    def certificates(self, certificates: Iterable[ServedCertificate]) -> None:
        """Export how the certificates of ports are."""
        served = tuple(certificates)
        self.metrics.watch_gauges(
            "casproxy_tls_certificate_age_seconds",
            "Time since the files of the certificate of this setting were last found in order.",
            "setting",
            lambda: {each.setting: each.age for each in served},
        )
        self.metrics.watch_gauges(
            "casproxy_tls_certificate_expiry_timestamp_seconds",
            "When the certificate that is shown for this setting ends, as Unix time.",
            "setting",
            lambda: {each.setting: each.expires for each in served},
        )

    def server(self, server: Server) -> None:
        """Export what the server's peers make it hold."""
        self.metrics.watch_gauge(
            "casproxy_bytes_in_flight", "Payload received and not yet handed on.", lambda: server.held
        )
        self.metrics.watch_gauge(
            "casproxy_credit_held_bytes",
            "Payload that peers can make this process hold: what it holds and the credit they have.",
            lambda: server.budget.exposed,
        )
        self.metrics.watch_gauge(
            "casproxy_memory_budget_bytes", "The most that may be held.", lambda: server.budget.total
        )

    def _watch_trail(self, trail: AuditTrail) -> None:
        self.metrics.watch_counts(
            "casproxy_audit_events", "Audit events, by what became of them.", "result", trail.counts
        )
        self.metrics.watch_gauge("casproxy_audit_queue", "Audit events not acknowledged yet.", lambda: trail.waiting)
        self.metrics.watch_gauge(
            "casproxy_audit_up", "1 while the audit stream takes events, else 0.", lambda: float(trail.up)
        )

    def _secrets_changed(self, up: bool) -> None:
        why = "" if up else SOURCE_DOWN
        self._readiness.troubled("secrets", why)
        if self._require_secrets:
            self._readiness.failing("secrets", why)


@asynccontextmanager
async def open_observation(config: Config, readiness: Readiness, trust: TrustStore) -> AsyncIterator[Observation]:
    """Open what is configured: reports, traces, the audit trail. Leaving sends what is queued, for seconds at most.

    Raises ``ConfigError`` for an address that is none.
    """
    settings = config.observability
    async with AsyncExitStack() as stack:
        if settings.sentry.dsn is not None and settings.sentry.dsn.reveal():
            from casproxy.observe.sentry import open_sentry

            dsn, environment = settings.sentry.dsn.reveal(), settings.sentry.environment
            await stack.enter_async_context(open_sentry(dsn, environment, trust.bundle()))
        tracing = None
        if settings.tracing.enabled:
            from casproxy.observe.tracing import TracingSettings, open_tracing

            chosen = settings.tracing
            tracing = await stack.enter_async_context(
                open_tracing(
                    TracingSettings(
                        chosen.endpoint,
                        chosen.insecure,
                        chosen.sampling_ratio,
                        chosen.propagate,
                        None if chosen.insecure else trust.pem,
                    )
                )
            )
        trail = None
        if config.nats_server.uri:
            from casproxy.observe.audit import open_trail
            from casproxy.observe.nats import parse_servers

            token = config.nats_server.token
            servers = parse_servers(config.nats_server.uri, token.reveal() if token else "")
            trail = await stack.enter_async_context(open_trail(servers, tls=trust.context()))
        yield Observation(config, readiness, tracing, trail)


@contextmanager
def _trace_request(tracing: Tracing, exchange: Exchange, route: str, request_id: str) -> Iterator[None]:
    request = exchange.request
    facts = {"http.request.method": request.method, "http.route": route, "casproxy.request_id": request_id}
    with (
        tracing.begin_call(f"{request.method} {route}", request.headers, facts) as call_span,
        structlog.contextvars.bound_contextvars(trace_id=call_span.trace_id),
    ):
        try:
            yield
        finally:
            call_span.note("http.response.status_code", exchange.status)
            if exchange.status >= 500 or exchange.broken:
                call_span.failed("broken off" if exchange.broken else str(exchange.status))
            if exchange.claims is not None:
                call_span.note("casproxy.backend", exchange.claims.backend)
                call_span.note("casproxy.org", exchange.claims.org_id)
            if exchange.digest is not None:
                call_span.note("casproxy.digest", str(exchange.digest))


@contextmanager
def _audit_request(trail: AuditTrail, exchange: Exchange, _route: str, _request_id: str) -> Iterator[None]:
    try:
        yield
    finally:
        if exchange.claims is not None and exchange.fact is not None:
            trail.record(caller_of(exchange.claims), exchange.fact)


def who_calls(call: ServerCall) -> Caller | None:
    """The caller of a call, None when it was never authenticated."""
    claims = call.find(Claims)
    return None if claims is None else caller_of(claims)


def caller_of(claims: Claims) -> Caller:
    """Whom a token with these claims stands for."""
    return Caller(claims.org_id, claims.role.value, claims.backend, claims.source_internal)
