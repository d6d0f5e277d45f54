"""Owns the picture of a run of ``casproxy bench``: a row for each scenario and target, throughput left, latency right.

Rows that count the same (bytes, calls) share one scale on the left; all share one on the right, a logarithmic one, on
which a latency of 1 ms and one of 1 s are both to be seen, with the percentiles as dots on a line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from casproxy.bench import plot
from casproxy.bench.load import Scenario

_WIDTH, _ROW, _GAP = 1000, 46, 26
_BAR = (30, 300)  # left, right: x in pixels
_AXIS = (500, 950)
_POINTS = ("p50", "p90", "p99", "p99.9", "max")
_IN_BYTES = (Scenario.UPLOAD, Scenario.DOWNLOAD, Scenario.MIXED, Scenario.SLOW)


@dataclass(frozen=True, slots=True)
class _Row:
    """One target in one scenario. ``speed``: median, lowest, highest; ``latency``: percentile -> ms."""

    name: str
    colour: str
    unit: str
    speed: tuple[float, float, float]
    latency: Mapping[str, float]


def draw(title: str, subtitle: str, campaigns: Sequence[Mapping[str, Any]]) -> str:
    """The picture as SVG, from ``report.whole`` of each campaign."""
    groups = [(_heading(campaign), list(_rows(campaign))) for campaign in campaigns]
    rows = [row for _, found in groups for row in found]
    fastest = {unit: max(row.speed[2] for row in rows if row.unit == unit) or 1.0 for unit in {r.unit for r in rows}}
    axis = _Axis([value for row in rows for value in row.latency.values()])
    body, y = [*axis.head(86)], 112.0
    for heading, found in groups:
        body.append(plot.text(_BAR[0], y, heading, size=14, weight="600"))
        for row in found:
            body += [*_speed(row, y + 10, fastest[row.unit], named=len(found) > 1), *axis.draw(row, y + 21)]
            y += _ROW
        y += _GAP
    return plot.page(title, subtitle, _WIDTH, y, [*axis.grid(94, y - _GAP - 16), *body])


def _heading(campaign: Mapping[str, Any]) -> str:
    size = campaign["size_bytes"]
    human = f"{size / (1 << 20):g} MiB" if size >= 1 << 20 else f"{size / 1024:g} KiB"
    return f"{campaign['scenario']}: throughput and latency, {human}, {campaign['concurrency']} at once"


def _rows(campaign: Mapping[str, Any]) -> Iterator[_Row]:
    in_bytes = campaign["scenario"] in _IN_BYTES
    key, unit, scale = ("bytes_per_second", "MB/s", 1e6) if in_bytes else ("operations_per_second", "/s", 1.0)
    for number, (name, target) in enumerate(campaign["targets"].items()):
        speed = target[key]
        median, low, high = ((speed[part] or 0.0) / scale for part in ("median", "low", "high"))
        colour = plot.COLOURS[number % len(plot.COLOURS)]
        yield _Row(name, colour, unit, (median, low, high), target["latency_ms"])


def _speed(row: _Row, y: float, fastest: float, *, named: bool) -> Iterator[str]:
    median, low, high = row.speed
    left, right = _BAR
    at = [left + (right - left) * value / fastest for value in row.speed]
    yield f'<rect x="{left}" y="{y:.1f}" width="{max(1.0, at[0] - left):.1f}" height="22" rx="3" fill="{row.colour}"/>'
    if high > low:
        yield f'<path d="M{at[1]:.1f} {y + 11:.1f}H{at[2]:.1f}" stroke="#222222" stroke-width="1.5"/>'
    yield plot.text(right + 10, y + 12, f"{median:,.0f} {row.unit}", size=15, weight="600")
    extra = f"{low:,.0f} to {high:,.0f}" + (f", {row.name}" if named else "")
    yield plot.text(right + 10, y + 27, extra, size=11, colour="#666666")


class _Axis:
    """Milliseconds on a logarithmic scale, whole decades."""

    def __init__(self, values: Sequence[float]) -> None:
        positive = [value for value in values if value > 0] or [1.0]
        self._low = math.floor(math.log10(min(positive)))
        self._high = max(self._low + 1, math.ceil(math.log10(max(positive))))

    def _x(self, milliseconds: float) -> float:
        left, right = _AXIS
        decades = math.log10(max(milliseconds, 10.0**self._low)) - self._low
        return left + (right - left) * decades / (self._high - self._low)

    def head(self, y: float) -> Iterator[str]:
        for power in range(self._low, self._high + 1):
            yield plot.text(self._x(10.0**power), y, _time(10.0**power), size=11, colour="#666666", anchor="middle")

    def grid(self, top: float, bottom: float) -> Iterator[str]:
        for power in range(self._low, self._high + 1):
            x = self._x(10.0**power)
            yield f'<path d="M{x:.1f} {top:.1f}V{bottom:.1f}" stroke="#e4e4e4" stroke-width="1"/>'

    def draw(self, row: _Row, y: float) -> Iterator[str]:
        """The percentiles as dots, smaller the rarer they are; those that would lie on each other are labelled once."""
        points = [(name, row.latency[name]) for name in _POINTS if row.latency.get(name)]
        if not points:
            return
        first, last = self._x(points[0][1]), self._x(points[-1][1])
        yield f'<path d="M{first:.1f} {y:.1f}H{last:.1f}" stroke="{row.colour}" stroke-width="3" opacity="0.35"/>'
        labelled = -math.inf
        for radius, (name, value) in zip((6.5, 5.5, 4.5, 3.5, 2.5), points, strict=False):
            x = self._x(value)
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{row.colour}"/>'
            if x - labelled > 48:
                labelled = x
                yield plot.text(x, y - 11, name, size=10, colour="#666666", anchor="middle")
                yield plot.text(x, y + 19, _time(value), size=11, anchor="middle")


def _time(milliseconds: float) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.3g} s"
    return f"{milliseconds:.3g} ms" if milliseconds >= 1 else f"{milliseconds * 1000:.3g} µs"
