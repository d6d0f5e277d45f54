"""Owns OpenTelemetry: a span per call, the spans below it, and their export over OTLP/gRPC. The only module to name it.

Imported only when tracing is on. A span is made in the task that does the work; everything slow happens in the
exporter's own thread behind a queue of 2,048 spans, which drops what does not fit. Nothing here is global: the SDKs
of clouds and registries never find a tracer, so no span of theirs, with a URL in it, is ever exported.

Source: W3C Trace Context; the semantic conventions for RPC and HTTP spans. Baggage is neither read nor passed on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import grpc
import structlog
import trio
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from casproxy import __version__, errors, spans
from casproxy.digest import Digest
from casproxy.observe.calls import OUR_FAULT, RequestId, code_of
from casproxy.observe.facts import Caller
from casproxy.rpc.api import Handler, Interceptor, ServerCall
from casproxy.spans import Span, Value
from casproxy.wire.status import StatusCode

log = structlog.get_logger("casproxy.tracing")

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_FLUSH_SECONDS: Final = 3.0
_NO_FAILURE: Final = (errors.ArtifactNotFound, errors.LookupRefused, errors.AlreadyStored)
"""Answers like any other: every new artifact is looked up before it is stored."""
_DEFAULT_NAME: Final = "chainloop-cas"


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """``sampling_ratio``: share of the traces begun here that are kept. ``propagate``: into requests to registries.

    ``roots``: the CAs to believe, as PEM; None: those that gRPC packs.
    """

    endpoint: str
    insecure: bool = False
    sampling_ratio: float = 1.0
    propagate: bool = False
    roots: bytes | None = None


class Tracing:
    """Begins spans; a ``spans.Listener`` for whatever happens below a call. Made by ``open_tracing``."""

    def __init__(self, provider: TracerProvider, exporter: _Exporter, *, propagate: bool) -> None:
        self._exporter = exporter
        self._tracer = provider.get_tracer("casproxy", __version__)
        self._propagate = propagate

    def counts(self) -> Mapping[str, int]:
        """Spans since the start: ``exported``, and ``lost`` because the endpoint did not take them."""
        return {"exported": self._exporter.exported, "lost": self._exporter.lost}

    def begin(self, name: str, facts: Mapping[str, Value]) -> AbstractContextManager[Span]:
        """See ``spans.Listener.begin``."""
        return _Stretch(self, self._tracer.start_span(name, attributes=facts))

    def begin_call(self, name: str, headers: Mapping[str, str], facts: Mapping[str, Value]) -> CallSpan:
        """The span of a call that arrived with ``headers``: part of its caller's trace, if they tell of one."""
        parent = _PROPAGATOR.extract(dict(headers), Context())
        span = self._tracer.start_span(name, parent, trace.SpanKind.SERVER, facts)
        return CallSpan(self, span)

    def headers(self, span: trace.Span) -> tuple[tuple[str, str], ...]:
        """The headers that continue the trace elsewhere, when that is switched on."""
        if not self._propagate:
            return ()
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(span, Context()))
        return tuple(carrier.items())


class _Stretch:
    """A span that is current within its ``with`` block; a failure marks it, a cancellation only says so."""

    def __init__(self, tracing: Tracing, span: trace.Span) -> None:
        self._tracing = tracing
        self._span = span

    def note(self, name: str, value: Value) -> None:
        """See ``spans.Span.note``."""
        self._span.set_attribute(name, value)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """See ``spans.Span.headers``."""
        return self._tracing.headers(self._span)

    def __enter__(self) -> Span:
        self._token = attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        detach(self._token)
        if isinstance(error, Exception) and not isinstance(error, _NO_FAILURE):
            self._span.set_status(trace.StatusCode.ERROR, type(error).__name__)
        elif error is not None:
            self._span.set_attribute("cancelled", True)
        self._span.end()


class CallSpan:
    """The span of one call. Within its ``with`` block stretches of work below are heard, if the call is sampled."""

    def __init__(self, tracing: Tracing, span: trace.Span) -> None:
        self._tracing = tracing
        self._span = span
        context = span.get_span_context()
        self.trace_id = trace.format_trace_id(context.trace_id)

    def note(self, name: str, value: Value) -> None:
        """Add a fact."""
        self._span.set_attribute(name, value)

    def failed(self, text: str) -> None:
        """The call ended badly."""
        self._span.set_status(trace.StatusCode.ERROR, text)

    def __enter__(self) -> CallSpan:
        self._token = attach(trace.set_span_in_context(self._span, Context()))
        self._listening = spans.listener.set(self._tracing if self._span.is_recording() else None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        spans.listener.reset(self._listening)
        detach(self._token)
        self._span.end()


@asynccontextmanager
async def open_tracing(settings: TracingSettings) -> AsyncIterator[Tracing]:
    """Export spans to ``settings.endpoint`` for the length of the block; leaving sends the last, for 3 s at most.

    The usual ``OTEL_…`` variables add headers, a CA and resource attributes. Nobody notices an endpoint that is down,
    but for a line in the log and the spans that are lost.
    """
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)  # it reports each try; we report outages
    exporter = _Exporter(_otlp_exporter(settings))
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.sampling_ratio)),
        resource=_resource(),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield Tracing(provider, exporter, propagate=settings.propagate)
    finally:
        with trio.move_on_after(_FLUSH_SECONDS, shield=True) as flush:
            await trio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)
        if flush.cancelled_caught:
            exporter.shutdown()  # wakes the thread from its waiting for an endpoint that is down


def _otlp_exporter(settings: TracingSettings) -> OTLPSpanExporter:
    """Certificates that OpenTelemetry's own variables name stay above ``roots``, and so do client certificates."""
    chosen_there = any(name.startswith("OTEL_EXPORTER_OTLP_") and "CERTIFICATE" in name for name in os.environ)
    credentials = None
    if settings.roots is not None and not settings.insecure and not chosen_there:
        credentials = grpc.ssl_channel_credentials(settings.roots)
    return OTLPSpanExporter(endpoint=settings.endpoint, insecure=settings.insecure, credentials=credentials)


def _resource() -> Resource:
    named = Resource.create({SERVICE_VERSION: __version__})
    if "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        return named
    return named.merge(Resource({SERVICE_NAME: _DEFAULT_NAME}))


class _Exporter(SpanExporter):
    """Counts what becomes of spans, and says once per outage that they are lost. Runs in the SDK's thread."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._down = False
        self.exported = 0
        self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
        else:
            self.lost += len(spans)
        if (result is SpanExportResult.SUCCESS) == self._down:
            self._down = not self._down
            write = log.warning if self._down else log.info
            write("traces_lost" if self._down else "traces_exported_again", lost=self.lost)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def trace_calls(tracing: Tracing, who_calls: Callable[[ServerCall], Caller | None]) -> Interceptor:
    """An interceptor that gives each call a span, its caller's trace and a place for the spans below it.

    Outside of ``observe_calls``: the trace id is then in every log line of the call.
    """

    async def trace_call(call: ServerCall, handler: Handler) -> None:
        info, code = call.info, StatusCode.OK
        headers = {name: call.metadata.text(name) for name in ("traceparent", "tracestate")}
        facts = {"rpc.system": "grpc", "rpc.service": info.service, "rpc.method": info.name}
        with (
            tracing.begin_call(info.path[1:], headers, facts) as call_span,
            structlog.contextvars.bound_contextvars(trace_id=call_span.trace_id),
        ):
            try:
                await handler(call)
            except BaseException as error:
                code = code_of(error, call)
                raise
            finally:
                _describe(call_span, call, code, who_calls(call))

    return trace_call


def _describe(call_span: CallSpan, call: ServerCall, code: StatusCode, caller: Caller | None) -> None:
    call_span.note("rpc.grpc.status_code", int(code))
    if code in OUR_FAULT:
        call_span.failed(code.name)
    if caller is not None:
        call_span.note("casproxy.backend", caller.backend)
        call_span.note("casproxy.org", caller.org)
    for name, kind in (("casproxy.digest", Digest), ("casproxy.request_id", RequestId)):
        found = call.find(kind)
        if found is not None:
            call_span.note(name, str(found))
