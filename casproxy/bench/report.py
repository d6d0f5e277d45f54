"""Owns what samples amount to: medians with their spread, merged latencies, ratios pair by pair. Refuses to print."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from casproxy.bench.histogram import Histogram
from casproxy.bench.load import Load
from casproxy.bench.runner import Sample


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of several samples, and the lowest and highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """NaN for no values, or when a value is."""
        usable = [value for value in values if not math.isnan(value)]
        if not usable:
            return cls(math.nan, math.nan, math.nan)
        return cls(median(usable), min(usable), max(usable))

    def as_json(self) -> dict[str, float | None]:
        """None where there is no figure."""
        values = {"median": self.median, "low": self.low, "high": self.high}
        return {name: None if math.isnan(value) else round(value, 4) for name, value in values.items()}


def ratio(of: Sequence[Sample], to: Sequence[Sample], value: Callable[[Sample], float]) -> Figure:
    """``value`` of one target over that of another, pair by pair in the order the samples were taken."""
    return Figure.of([value(ours) / value(theirs) for ours, theirs in zip(of, to, strict=False) if value(theirs)])


def summary(samples: Sequence[Sample]) -> dict[str, object]:
    """One target's samples as JSON. Bytes, seconds and milliseconds as the names say."""
    errors = sum((sample.errors for sample in samples), Counter[str]())
    usages = [sample.server for sample in samples if sample.server is not None]
    found: dict[str, object] = {
        "samples": len(samples),
        "operations": sum(sample.operations for sample in samples),
        "payload_bytes": sum(sample.payload for sample in samples),
        "operations_per_second": Figure.of([sample.per_second for sample in samples]).as_json(),
        "bytes_per_second": Figure.of([sample.throughput for sample in samples]).as_json(),
        "latency_ms": Histogram.merged(sample.latency for sample in samples).summary(),
        "errors": dict(errors),
        "last_error": next((sample.last_error for sample in reversed(samples) if sample.last_error), ""),
        "client_cpu_seconds": round(sum(sample.client_cpu for sample in samples), 3),
    }
    if usages:
        found |= {
            "server_cpu_seconds_per_gb": Figure.of([sample.cpu_per_gb for sample in samples]).as_json(),
            "server_cpu_seconds_per_operation": Figure.of([_per_operation(sample) for sample in samples]).as_json(),
            "rss_bytes": {
                "start": usages[0][0].rss,
                "peak": max(after.peak for _, after in usages),
                "end": usages[-1][1].rss,
            },
        }
    if any(sample.lag for sample in samples):
        found["loop_lag_ms"] = {
            point: round(median(sample.lag[point] for sample in samples if sample.lag), 3) for point in samples[0].lag
        }
    released = Histogram.merged(sample.released for sample in samples)
    if released.count:
        found["released_ms"] = released.summary()
    return found


def _per_operation(sample: Sample) -> float:
    return sample.cpu / sample.operations if sample.operations else math.nan


def whole(load: Load, samples: Mapping[str, Sequence[Sample]]) -> dict[str, object]:
    """Everything of one campaign as JSON; ratios of the first target to each other one."""
    first, *others = samples
    return {
        "scenario": load.scenario.value,
        "size_bytes": load.size,
        "concurrency": load.concurrency,
        "connections": load.connections,
        "client": load.client.value,
        "resource_names": load.names.value,
        "targets": {name: summary(taken) for name, taken in samples.items()},
        "ratios": {
            other: {
                "operations_per_second": ratio(
                    samples[first], samples[other], lambda sample: sample.per_second
                ).as_json(),
                "server_cpu_seconds": ratio(samples[first], samples[other], _per_operation).as_json(),
            }
            for other in others
        },
    }
