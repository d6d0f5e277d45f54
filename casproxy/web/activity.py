"""Owns what the page's status strip shows: what runs here, whether it is ready, what it carries at this moment.

Counts are read from the metrics, gRPC's and HTTP's alike; the page makes speeds of them. Refuses to know who counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry

_STARTED, _HANDLED = "grpc_server_started_total", "grpc_server_handled_total"
_MESSAGES, _BODIES = "casproxy_message_bytes_total", "casproxy_http_body_bytes_total"
_NAMES = [_STARTED, _HANDLED, _MESSAGES, _BODIES]


class Activity:
    """A snapshot on request. ``transfers``: HTTP transfers in flight."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        version: str,
        backends: Sequence[str],
        not_ready: Callable[[], str],
        transfers: Callable[[], int],
        uploads: bool,
    ) -> None:
        self._registry = registry
        self._facts = {"version": version, "backends": sorted(backends), "uploads": uploads}
        self._not_ready = not_ready
        self._transfers = transfers

    def __call__(self) -> Mapping[str, object]:
        """``bytesIn`` and ``bytesOut`` grow from the process's start on; ``streams`` are calls and transfers now."""
        sums = self._sums()
        return {
            **self._facts,
            "notReady": self._not_ready(),
            "streams": int(sums[_STARTED] - sums[_HANDLED]) + self._transfers(),
            "bytesIn": int(sums["in"]),
            "bytesOut": int(sums["out"]),
        }

    def _sums(self) -> dict[str, float]:
        sums = {_STARTED: 0.0, _HANDLED: 0.0, "in": 0.0, "out": 0.0}
        for family in self._registry.restricted_registry(_NAMES).collect():
            for sample in family.samples:
                if sample.name in (_STARTED, _HANDLED):
                    sums[sample.name] += sample.value
                elif sample.name in (_MESSAGES, _BODIES):
                    sums[sample.labels["direction"]] += sample.value
        return sums
