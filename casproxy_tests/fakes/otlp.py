"""A receiver of traces: OTLP/gRPC as OpenTelemetry's own protocol files define it, on grpcio's server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span. Ids are hex; ``parent`` is ``""`` for a root."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    failed: bool
    attributes: Mapping[str, Any]


@dataclass(slots=True)
class OtlpReceiver:
    """What has arrived; read it once whoever sends has flushed."""

    address: str = ""
    spans: list[ReceivedSpan] = field(default_factory=list)
    resources: list[Mapping[str, Any]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)

    def named(self, name: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.name == name]

    def only(self, name: str) -> ReceivedSpan:
        [span] = self.named(name)
        return span

    def ancestors(self, span: ReceivedSpan) -> list[str]:
        """Names from the parent up, as far as spans were received."""
        by_id = {each.id: each for each in self.spans}
        names = []
        while (parent := by_id.get(span.parent)) is not None:
            names.append(parent.name)
            span = parent
        return names

    def Export(self, request: Any, _context: Any) -> Any:
        for resource in request.resource_spans:
            self.resources.append(_attributes(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.spans += map(_span, scope.spans)
        self.arrived.set()
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    receiver = OtlpReceiver()
    with futures.ThreadPoolExecutor(2) as workers:
        server = grpc.server(workers)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        receiver.address = f"127.0.0.1:{port}"
        try:
            yield receiver
        finally:
            server.stop(None).wait()  # with a number, even 0, grpcio starts a thread that may end later


def _span(span: Any) -> ReceivedSpan:
    return ReceivedSpan(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.kind,
        span.status.code == 2,
        _attributes(span.attributes),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
