"""Owns what ``casproxy bench`` shows: a bar while it measures, tables or JSON at the end, the picture."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from casproxy.bench import picture, plot
from casproxy.bench.campaign import Campaign
from casproxy.bench.load import Scenario
from casproxy.bench.process import machine
from casproxy.bench.report import whole
from casproxy.bench.runner import Sample
from casproxy.cli.text import human_size, print_json, print_line, printable
from casproxy.observe.terminal import is_watched

_BYTES = (Scenario.UPLOAD, Scenario.DOWNLOAD, Scenario.MIXED, Scenario.SLOW)


class Screen:
    """Shows one run of the command. ``failed``: a call ended otherwise than it should."""

    def __init__(self, output: str, picture: Path | None) -> None:
        self._output = output
        self._picture = picture
        self._campaigns: Sequence[Campaign] = ()
        self._show = _silent
        self.failed = False

    @contextmanager
    def showing(self, campaigns: Sequence[Campaign]) -> Iterator[None]:
        """Show the progress of these, on a terminal, for the length of the block."""
        self._campaigns = campaigns
        if not is_watched(sys.stderr):
            yield
            return
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from casproxy.cli.console import Console

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task("starting", total=len(campaigns))

            def show(text: str, done: float) -> None:
                bars.update(task, description=escape(printable(text)), completed=done)

            self._show = show
            yield

    def on_sample(self, name: str, sample: Sample, done: float) -> None:
        """A ``campaign.OnSample``."""
        before = sum(bool(campaign.samples) for campaign in self._campaigns) - 1
        speed = f"{sample.throughput / 1e6:,.0f} MB/s" if sample.payload else f"{sample.per_second:,.0f}/s"
        self._show(f"{name:<28} {speed:>12}", before + done)

    def finish(self) -> None:
        """Print and draw what has been measured until now."""
        self._show = _silent
        found = [
            whole(campaign.load, taken)
            for campaign in self._campaigns
            if (taken := {name: samples for name, samples in campaign.samples.items() if samples})
        ]
        self.failed = any(target["errors"] for campaign in found for _, target in _targets(campaign))
        if self._output == "json":
            print_json({"machine": machine(), "campaigns": found})
        else:
            for campaign in found:
                _print_campaign(campaign)
            _print_table(found)
        if self._picture is not None and found:
            self._draw(found, self._picture)

    def _draw(self, found: Sequence[Mapping[str, Any]], path: Path) -> None:
        facts = machine()
        subtitle = f"{facts['processor']}, {facts['cores']} cores; medians, whiskers from lowest to highest sample"
        plot.write(path, picture.draw("casproxy bench", subtitle, found))


def _silent(text: str, done: float) -> None:
    """Nobody watches."""


def _targets(campaign: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(campaign["targets"].items())


def _print_campaign(campaign: Mapping[str, Any]) -> None:
    scenario = campaign["scenario"]
    print_line(
        f"{scenario}: {human_size(campaign['size_bytes'])} each, {campaign['concurrency']} at once over "
        f"{campaign['connections']} connection{'s' if campaign['connections'] > 1 else ''}, {campaign['client']} client"
    )
    for name, target in _targets(campaign):
        print_line(f"  {printable(name):<12}{_speed(target, by_bytes=scenario in _BYTES)}")
        print_line(f"  {'':<12}{_latency('latency', target['latency_ms'])}")
        for line in _details(target):
            print_line(f"  {'':<12}{line}")
    for name, ratios in campaign["ratios"].items():
        parts = [f"{key.replace('_', ' ')} x{value['median']:.2f}" for key, value in ratios.items() if value["median"]]
        print_line(f"  against {printable(name)}: {', '.join(parts)}")
    print_line("")


def _print_table(found: Sequence[Mapping[str, Any]]) -> None:
    """All of it once more, a line each."""
    rows: list[tuple[str, ...]] = [("", "", "speed", "p50 ms", "p99 ms", "CPU", "memory at most")]
    for campaign in found:
        for name, target in _targets(campaign):
            speed = _speed(target, by_bytes=campaign["scenario"] in _BYTES).partition("  ")[0]
            latency, memory = target["latency_ms"], target.get("rss_bytes")
            rows.append(
                (
                    str(campaign["scenario"]),
                    printable(name),
                    speed,
                    *(f"{latency[point]:,.2f}" if point in latency else "" for point in ("p50", "p99")),
                    _cost(target),
                    "" if memory is None else human_size(memory["peak"]),
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print_line("  ".join(cells).rstrip())


def _speed(target: Mapping[str, Any], *, by_bytes: bool) -> str:
    key, unit, scale = ("bytes_per_second", "MB/s", 1e6) if by_bytes else ("operations_per_second", "/s", 1.0)
    speed = target[key]
    if speed["median"] is None:
        return "no samples"
    low, high = speed["low"] / scale, speed["high"] / scale
    return f"{speed['median'] / scale:,.0f} {unit}  ({low:,.0f} to {high:,.0f}, {target['operations']:,} operations)"


def _latency(name: str, points: Mapping[str, float]) -> str:
    return f"{name} ms  " + "  ".join(f"{point} {value:,.2f}" for point, value in points.items())


def _details(target: Mapping[str, Any]) -> Iterator[str]:
    if cost := _cost(target):
        rss = target["rss_bytes"]
        yield f"server      {cost}, memory {human_size(rss['start'])}, at most {human_size(rss['peak'])}"
    if "loop_lag_ms" in target:
        yield _latency("loop lag", target["loop_lag_ms"])
    if "released_ms" in target:
        yield _latency("released after", target["released_ms"])
    if target["errors"]:
        counts = ", ".join(f"{code} {count}" for code, count in target["errors"].items())
        yield f"errors      {counts}; the last: {printable(target['last_error'])}"


def _cost(target: Mapping[str, Any]) -> str:
    per_gb = target.get("server_cpu_seconds_per_gb", {}).get("median")
    per_call = target.get("server_cpu_seconds_per_operation", {}).get("median")
    if per_call is None:
        return ""
    return f"{per_gb:.2f} CPU s/GB" if per_gb is not None and per_gb < 50 else f"{per_call * 1e6:,.0f} CPU us each"
