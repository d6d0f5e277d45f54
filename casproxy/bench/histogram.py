"""Owns latencies as counts per bucket: mergeable, small, exact to 1 %. Refuses to know what is measured.

The buckets are those of HdrHistogram: linear within each power of two, 128 to each, over nanoseconds. Histograms of
several runs are merged before a percentile is taken, for a mean of percentiles is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_SUB_BITS = 7


class Histogram:
    """Counts of durations. ``max_seconds`` is exact; everything else is the upper edge of its bucket."""

    __slots__ = ("_counts", "count", "max_seconds")

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.max_seconds = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration; a negative one counts as zero."""
        self._counts[_bucket(max(0, int(seconds * 1e9)))] += 1
        self.count += 1
        self.max_seconds = max(self.max_seconds, seconds)

    def percentile(self, percent: float) -> float:
        """The duration, in seconds, that ``percent`` of all do not exceed; 0 when nothing was recorded."""
        wanted = self.count * percent / 100
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= wanted:
                return min(_upper_edge(bucket) / 1e9, self.max_seconds)
        return self.max_seconds

    def summary(self) -> dict[str, float]:
        """Milliseconds at p50, p90, p99, p99.9 and max."""
        points = {f"p{percent:g}": self.percentile(percent) * 1e3 for percent in (50, 90, 99, 99.9)}
        return {name: round(value, 3) for name, value in (points | {"max": self.max_seconds * 1e3}).items()}

    @classmethod
    def merged(cls, histograms: Iterable[Histogram]) -> Histogram:
        """One histogram of everything that several have counted."""
        total = cls()
        for histogram in histograms:
            total._counts.update(histogram._counts)
            total.count += histogram.count
            total.max_seconds = max(total.max_seconds, histogram.max_seconds)
        return total


def _bucket(nanoseconds: int) -> int:
    """Below 256 ns every value is a bucket; above, the top eight bits and the power of two name it."""
    shift = max(0, nanoseconds.bit_length() - _SUB_BITS - 1)
    return (shift << _SUB_BITS) + (nanoseconds >> shift)


def _upper_edge(bucket: int) -> int:
    shift = max(0, (bucket >> _SUB_BITS) - 1)
    return ((bucket - (shift << _SUB_BITS) + 1) << shift) - 1
