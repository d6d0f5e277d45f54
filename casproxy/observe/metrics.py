"""Owns the metrics of this process and their text form. Refuses to know who scrapes them and over what.

The ``grpc_server_*`` names and labels are those of go-grpc-prometheus, which existing dashboards query. Every series
exists at 0 from the start, so that a rate over a method nobody called yet is 0 and not "no data". No label has values
that a tenant could choose, except ``org`` of ``casproxy_org_message_bytes``, which is off unless switched on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import product
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from casproxy import __version__
from casproxy.observe.call_counts import CallCounts
from casproxy.observe.facts import Caller
from casproxy.observe.plain_counter import PlainCounter
from casproxy.observe.series import Children
from casproxy.observe.timed import RESULTS
from casproxy.rpc.api import MethodInfo, Traffic
from casproxy.rpc.limits import LIMITS
from casproxy.wire.status import StatusCode

_REQUEST_BUCKETS_SECONDS: Final = (0.01, 0.05, 0.25, 1.0, 5.0, 30.0)
_LAG_BUCKETS_SECONDS: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0)
_OTHER: Final = "other"
"""The label of a backend type that tokens name and this process does not have."""


class Metrics:
    """The counters of one server, in a registry of its own. Times in seconds.

    ``per_org``: count bytes by organisation as well, a series each.
    """

    def __init__(self, methods: Iterable[MethodInfo] = (), *, per_org: bool = False) -> None:
        # a timestamp series beside every counter doubles the scrape, and nobody queries it
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._backends: frozenset[str] = frozenset()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._counter("casproxy_build", "Always 1; the label tells the version.", "version").labels(__version__).inc()
        self._calls = CallCounts()
        self.registry.register(self._calls)
        self._create_ours(per_org)
        self.create_series(methods)

    def _create_ours(self, per_org: bool) -> None:
        self._bytes = self._plain(
            "casproxy_message_bytes",
            "Bytes of messages, by direction (in: from clients) and the caller's backend.",
            "direction",
            "backend",
        )
        self._org_bytes = (
            self._plain("casproxy_org_message_bytes", "The same by the caller's organisation.", "direction", "org")
            if per_org
            else None
        )
        self._limits = self._counter("casproxy_limit_reached", "Times a peer ran into a limit of ours.", "limit")
        for limit in LIMITS:
            self._limits.labels(limit)
        self._skipped = self._plain(
            "casproxy_deduplicated", "Uploads of what was stored already, answered without their body.", "backend"
        )
        self._skipped_bytes = self._plain("casproxy_deduplicated_bytes", "What those would have stored.", "backend")
        self._backend_seconds = self._histogram(
            "casproxy_backend_request_seconds",
            "Requests to tenants' stores. open: until the first byte can be read; ingest: the whole of an upload.",
            _REQUEST_BUCKETS_SECONDS,
            "backend",
            "operation",
            "result",
        )
        self._backend_seconds_of = Children(self._backend_seconds)
        self._secret_seconds = self._histogram(
            "casproxy_secret_lookup_seconds", "Look-ups in the secret source.", _REQUEST_BUCKETS_SECONDS, "result"
        )
        self._lag = self._histogram(
            "casproxy_event_loop_lag_seconds",
            "How late a task wakes that wanted to wake now; samples twice a second.",
            _LAG_BUCKETS_SECONDS,
        )
        self._restarts = self._counter("casproxy_worker_restarts", "Worker processes started again after one ended.")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _plain(self, name: str, text: str, *labels: str) -> PlainCounter:
        return PlainCounter(name, text, *labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    def create_series(
        self, methods: Iterable[MethodInfo], backends: Collection[str] = (), requests: Collection[str] = ()
    ) -> None:
        """Let every series be there, at 0. ``backends``: the types served; ``requests``: what they are asked."""
        self._backends |= frozenset(backends)
        for info in methods:
            self._calls.of(info)
        for backend, direction in product(backends, ("in", "out")):
            self._bytes.add(0, direction, backend)
        for backend in backends:
            self._skipped.add(0, backend)
            self._skipped_bytes.add(0, backend)
        for backend, operation, result in product(backends, requests, RESULTS):
            self._backend_seconds.labels(backend, operation, result)
        for result in RESULTS:
            self._secret_seconds.labels(result)

    # -- what happened ----------------------------------------------------------------------------------

    def call_started(self, info: MethodInfo) -> None:
        """A call has arrived."""
        self._calls.of(info).started += 1

    def call_ended(self, info: MethodInfo, code: StatusCode, seconds: float) -> None:
        """A call has ended with ``code`` after ``seconds``."""
        self._calls.of(info).ended(code, seconds)

    def call_carried(self, info: MethodInfo, traffic: Traffic, caller: Caller | None) -> None:
        """What one call carried; ``caller`` None for a call without a token."""
        counts = self._calls.of(info)
        counts.received += traffic.messages_received
        counts.sent += traffic.messages_sent
        if caller is None:
            return
        backend = self.known_backend(caller.backend)
        self._bytes.add(traffic.bytes_received, "in", backend)
        self._bytes.add(traffic.bytes_sent, "out", backend)
        if self._org_bytes is not None:
            self._org_bytes.add(traffic.bytes_received, "in", caller.org)
            self._org_bytes.add(traffic.bytes_sent, "out", caller.org)

    def known_backend(self, name: str) -> str:
        """The label for a backend type: its name, or ``other`` for one that is not served."""
        return name if name in self._backends else _OTHER

    def upload_skipped(self, backend: str, size: int) -> None:
        """An upload was answered at once, for its ``size`` bytes were stored already."""
        label = self.known_backend(backend)
        self._skipped.add(1, label)
        self._skipped_bytes.add(size, label)

    def limit_reached(self, limit: str) -> None:
        """A peer ran into the limit of this name."""
        self._limits.labels(limit).inc()

    def report_backend(self, backend: str, operation: str, result: str, seconds: float) -> None:
        """A request to a store has ended."""
        self._backend_seconds_of[self.known_backend(backend), operation, result].observe(seconds)

    def report_secret(self, result: str, seconds: float) -> None:
        """A look-up in the secret source has ended."""
        self._secret_seconds.labels(result).observe(seconds)

    def loop_lagged(self, seconds: float) -> None:
        """A task woke this late."""
        self._lag.observe(seconds)

    def worker_restarted(self) -> None:
        """A worker process ended and another was started in its place."""
        self._restarts.inc()

    def calls_in_flight(self) -> int:
        """Calls started and not ended, of all methods."""
        return self._calls.in_flight

    # -- what others count ------------------------------------------------------------------------------

    def watch_gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Export a value that is asked for at each scrape."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def watch_gauges(self, name: str, text: str, label: str, values: Callable[[], Mapping[str, float]]) -> None:
        """Export values by ``label``, asked for at each scrape."""
        self.registry.register(_Asked(lambda: GaugeMetricFamily(name, text, labels=[label]), values))

    def watch_counts(self, name: str, text: str, label: str, counts: Callable[[], Mapping[str, float]]) -> None:
        """Export counts by ``label`` that somebody else keeps, asked for at each scrape."""
        self.registry.register(_Asked(lambda: CounterMetricFamily(name, text, labels=[label]), counts))

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The scrape and its content type: OpenMetrics when ``accept`` asks for it, else the Prometheus text format."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _Asked(Collector):
    """A family of one label whose samples somebody else has."""

    def __init__(
        self,
        family: Callable[[], CounterMetricFamily | GaugeMetricFamily],
        values: Callable[[], Mapping[str, float]],
    ) -> None:
        self._family = family
        self._values = values

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        family = self._family()
        for label, value in self._values().items():
            family.add_metric([label], value)
        yield family
