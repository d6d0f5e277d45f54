"""Owns the metrics of this process and their text form. Refuses to know who scrapes them and over what.

The ``grpc_server_*`` names and labels are those of go-grpc-prometheus, which existing dashboards query. Every series
exists at 0 from the start, so that a rate over a method nobody called yet is 0 and not "no data".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
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
from casproxy.rpc.api import MethodInfo, Traffic
from casproxy.rpc.limits import LIMITS
from casproxy.wire.status import StatusCode

_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_METHOD = ("grpc_type", "grpc_service", "grpc_method")


class Metrics:
    """The counters of one server, in a registry of its own. Times in seconds."""

    def __init__(self, methods: Iterable[MethodInfo]) -> None:
        # a timestamp series beside every counter doubles the scrape, and nobody queries it
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        build = Counter("casproxy_build", "Always 1; the label tells the version.", ["version"], registry=self.registry)
        build.labels(__version__).inc()
        self._started = self._counter("started", "Calls started.")
        self._handled = self._counter("handled", "Calls ended, by status code.", "grpc_code")
        self._received = self._counter("msg_received", "Messages received.")
        self._sent = self._counter("msg_sent", "Messages sent.")
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time from a call's start to its end.",
            _METHOD,
            registry=self.registry,
            buckets=_BUCKETS_SECONDS,
        )
        self._bytes = Counter(
            "casproxy_message_bytes",
            "Bytes of messages, by direction (in: from clients) and the caller's backend.",
            ["direction", "backend"],
            registry=self.registry,
        )
        self._limits = Counter(
            "casproxy_limit_reached", "Times a peer ran into a limit of ours.", ["limit"], registry=self.registry
        )
        for limit in LIMITS:
            self._limits.labels(limit)
        self._create_series(methods)

    def _counter(self, name: str, text: str, *more_labels: str) -> Counter:
        return Counter(f"grpc_server_{name}", text, (*_METHOD, *more_labels), registry=self.registry)

    def _create_series(self, methods: Iterable[MethodInfo]) -> None:
        for info in methods:
            for metric in (self._started, self._received, self._sent, self._seconds):
                metric.labels(*_labels(info))
            for code in StatusCode:
                self._handled.labels(*_labels(info), grpc_code_name(code))

    def call_started(self, info: MethodInfo) -> None:
        """A call has arrived."""
        self._started.labels(*_labels(info)).inc()

    def call_ended(self, info: MethodInfo, code: StatusCode, seconds: float) -> None:
        """A call has ended with ``code`` after ``seconds``."""
        self._handled.labels(*_labels(info), grpc_code_name(code)).inc()
        self._seconds.labels(*_labels(info)).observe(seconds)

    def call_carried(self, info: MethodInfo, traffic: Traffic, backend: str) -> None:
        """What one call carried; ``backend`` is the caller's, empty for a call without a token."""
        self._received.labels(*_labels(info)).inc(traffic.messages_received)
        self._sent.labels(*_labels(info)).inc(traffic.messages_sent)
        if backend:
            self._bytes.labels("in", backend).inc(traffic.bytes_received)
            self._bytes.labels("out", backend).inc(traffic.bytes_sent)

    def limit_reached(self, limit: str) -> None:
        """A peer ran into the limit of this name."""
        self._limits.labels(limit).inc()

    def count_secrets(self, by_result: Callable[[], Mapping[str, int]]) -> None:
        """Export the counts of the secret cache, asked for at each scrape."""
        self.registry.register(_SecretCache(by_result))

    def watch_keys(self, ages: Callable[[], Mapping[str, float]]) -> None:
        """Export how old the verification keys are, in seconds by setting, asked for at each scrape."""
        self.registry.register(_KeyAges(ages))

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The scrape and its content type: OpenMetrics when ``accept`` asks for it, else the Prometheus text format."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _SecretCache(Collector):
    """Counts that somebody else keeps."""

    def __init__(self, by_result: Callable[[], Mapping[str, int]]) -> None:
        self._by_result = by_result

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = CounterMetricFamily(
            "casproxy_secret_cache",
            "What the secret cache did. hit: answered at once; lookup: asked the source; failure: found it down; "
            "stale: answered with an old secret because of that.",
            labels=["result"],
        )
        for result, count in self._by_result().items():
            family.add_metric([result], count)
        yield family


class _KeyAges(Collector):
    """Ages that somebody else knows."""

    def __init__(self, ages: Callable[[], Mapping[str, float]]) -> None:
        self._ages = ages

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "casproxy_auth_key_age_seconds",
            "Time since the keys of this setting were last read without a fault; +Inf: never yet.",
            labels=["setting"],
        )
        for setting, seconds in self._ages().items():
            family.add_metric([setting], seconds)
        yield family


def grpc_code_name(code: StatusCode) -> str:
    """The code as the Go libraries spell it in labels: ``INVALID_ARGUMENT`` -> ``InvalidArgument``, ``OK`` stays."""
    return "OK" if code is StatusCode.OK else "".join(word.capitalize() for word in code.name.split("_"))


def _labels(info: MethodInfo) -> tuple[str, str, str]:
    return (info.kind.value, info.service, info.name)
