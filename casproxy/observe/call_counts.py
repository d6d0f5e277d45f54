"""Owns counting the calls of each method, and the families that a scrape makes of the counts. Refuses to know calls.

A call is counted in eight series. As children of prometheus_client's metrics these take 6 us a call, most of it for
locks; calls are counted by one thread only, so here they are plain numbers. The names and labels are those of
go-grpc-prometheus.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from casproxy.rpc.api import MethodInfo
from casproxy.wire.status import StatusCode

BUCKETS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_BOUNDS: Final = [*map(floatToGoString, BUCKETS_SECONDS), "+Inf"]
_METHOD: Final = ("grpc_type", "grpc_service", "grpc_method")


class MethodCounts:
    """What has happened to the calls of one method. ``handled`` by status code; times in seconds."""

    __slots__ = ("buckets", "handled", "labels", "received", "seconds", "sent", "started")

    def __init__(self, info: MethodInfo) -> None:
        self.labels = (info.kind.value, info.service, info.name)
        self.started = self.received = self.sent = 0
        self.handled = [0] * len(StatusCode)
        self.buckets = [0] * len(_BOUNDS)
        self.seconds = 0.0

    @property
    def in_flight(self) -> int:
        """Started and not ended."""
        return self.started - sum(self.handled)

    def ended(self, code: StatusCode, seconds: float) -> None:
        """One call has."""
        self.handled[code] += 1
        self.buckets[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        self.seconds += seconds


class CallCounts(Collector):
    """The counts of all methods, by path. For one thread."""

    def __init__(self) -> None:
        self._methods: dict[str, MethodCounts] = {}

    def of(self, info: MethodInfo) -> MethodCounts:
        """The counts of one method, made when it is first asked for."""
        counts = self._methods.get(info.path)
        if counts is None:
            counts = self._methods[info.path] = MethodCounts(info)
        return counts

    @property
    def in_flight(self) -> int:
        """Calls started and not ended, of all methods."""
        return sum(counts.in_flight for counts in self._methods.values())

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        """See ``Collector``."""
        yield self._counter("grpc_server_started", "Calls started.", lambda counts: counts.started)
        handled = CounterMetricFamily(
            "grpc_server_handled", "Calls ended, by status code.", labels=(*_METHOD, "grpc_code")
        )
        seconds = HistogramMetricFamily(
            "grpc_server_handling_seconds", "Time from a call's start to its end.", labels=_METHOD
        )
        in_flight = GaugeMetricFamily("casproxy_streams_in_flight", "Calls started and not ended.", labels=_METHOD)
        for counts in self._methods.values():
            for code in StatusCode:
                handled.add_metric((*counts.labels, grpc_code_name(code)), counts.handled[code])
            buckets = list(zip(_BOUNDS, map(float, accumulate(counts.buckets)), strict=True))
            seconds.add_metric(counts.labels, buckets, counts.seconds)
            in_flight.add_metric(counts.labels, counts.in_flight)
        yield handled
        yield self._counter("grpc_server_msg_received", "Messages received.", lambda counts: counts.received)
        yield self._counter("grpc_server_msg_sent", "Messages sent.", lambda counts: counts.sent)
        yield seconds
        yield in_flight

    def _counter(self, name: str, text: str, value: Callable[[MethodCounts], int]) -> CounterMetricFamily:
        family = CounterMetricFamily(name, text, labels=_METHOD)
        for counts in self._methods.values():
            family.add_metric(counts.labels, value(counts))
        return family


def grpc_code_name(code: StatusCode) -> str:
    """The code as the Go libraries spell it in labels: ``INVALID_ARGUMENT`` -> ``InvalidArgument``, ``OK`` stays."""
    return "OK" if code is StatusCode.OK else "".join(word.capitalize() for word in code.name.split("_"))
