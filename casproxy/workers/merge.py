"""Owns adding up metrics: those of many processes become those of one server. Refuses to know how they are asked for.

What is a sum for a server is added, and nearly everything is. The exceptions are the whole table below:

* how a process is (``process_…``, ``python_…``) is told of each, with the label ``worker``;
* a thing is up when it is up for all, as old as for the one where it is oldest, and a fact is a fact;
* what a dead process counted still counts (a rate must not dip), what it measured does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

WORKER: Final = "worker"
_OF_EACH: Final = ("process_", "python_")
_NOT_ADDED: Final[tuple[tuple[str, Callable[[float, float], float]], ...]] = (
    ("_up", min),
    ("_age_seconds", max),
    ("_expiry_timestamp_seconds", min),
    ("_info", max),
    ("casproxy_build", max),
)
_LASTING: Final = ("counter", "histogram", "summary")


class Family(msgspec.Struct, frozen=True):
    """A metric family as it travels. ``samples``: name with its suffix, labels, value."""

    name: str
    kind: str
    text: str
    samples: list[tuple[str, dict[str, str], float]]


def snapshot(registry: CollectorRegistry) -> list[Family]:
    """Everything that is in ``registry`` now."""
    return [
        Family(
            family.name,
            family.type,
            family.documentation,
            [(sample.name, dict(sample.labels), sample.value) for sample in family.samples],
        )
        for family in registry.collect()
    ]


def lasting(families: Iterable[Family]) -> list[Family]:
    """What stays of a process that has ended: the counts of what it did, nothing of how it was."""
    return [family for family in families if family.kind in _LASTING and not _is_of_each(family)]


def merged(snapshots: Iterable[tuple[str, Iterable[Family]]]) -> list[Family]:
    """One server's families from (name of a process, its families) pairs; the order of first appearance is kept."""
    found: dict[str, _Sum] = {}
    for process, families in snapshots:
        for family in families:
            total = found.setdefault(family.name, _Sum(family))
            total.take(family, {WORKER: process} if _is_of_each(family) else {})
    return [total.family() for total in found.values()]


def _is_of_each(family: Family) -> bool:
    return family.name.startswith(_OF_EACH)


class _Sum:
    """One family being merged."""

    def __init__(self, first: Family) -> None:
        self._first = first
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._join = next(
            (join for name, join in _NOT_ADDED if first.name == name or first.name.endswith(name)), float.__add__
        )

    def take(self, family: Family, labels: Mapping[str, str]) -> None:
        for name, own, value in family.samples:
            key = (name, tuple({**own, **labels}.items()))
            known = self._values.get(key)
            self._values[key] = float(value) if known is None else self._join(known, float(value))

    def family(self) -> Family:
        samples = [(name, dict(labels), value) for (name, labels), value in self._values.items()]
        return Family(self._first.name, self._first.kind, self._first.text, samples)


def process_families() -> list[Family]:
    """How this very process is."""
    return snapshot(_this_process())


def exposition(families: Iterable[Family], accept: str) -> tuple[bytes, str]:
    """The text of a scrape and its content type, as ``accept`` asks for it."""
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return encode(registry), content_type


@cache
def _this_process() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


class _Families(Collector):
    """Families as prometheus_client's text formats want them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.text, family.kind)
            metric.samples = [Sample(name, labels, value) for name, labels, value in family.samples]
            yield metric
