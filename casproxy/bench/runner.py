"""Owns one sample: the streams of one load against one target, for a time. Refuses to know reports."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import trio

from casproxy.bench import control
from casproxy.bench.artifact import Pattern
from casproxy.bench.driver import CallFailed, Driver, open_driver
from casproxy.bench.histogram import Histogram
from casproxy.bench.load import Load, Scenario, Target
from casproxy.bench.process import ProcessMeter, Usage
from casproxy.bench.scenarios import Work, hold_stalled, work_of

ERRORS_BEFORE_GIVING_UP = 100
_TICK = 0.25


@dataclass
class Sample:
    """What one run against one target gave. Times in seconds, sizes in bytes.

    ``server`` None: the process could not be read. ``lag``: the server's event loop, ``released``: how long after its
    reset an upload was still held; both only for servers that tell.
    """

    target: str
    seconds: float = 0.0
    operations: int = 0
    payload: int = 0
    latency: Histogram = field(default_factory=Histogram)
    errors: Counter[str] = field(default_factory=Counter)
    last_error: str = ""
    client_cpu: float = 0.0
    server: tuple[Usage, Usage] | None = None
    lag: dict[str, float] = field(default_factory=dict)
    released: Histogram = field(default_factory=Histogram)

    @property
    def per_second(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds if self.seconds else 0.0

    @property
    def throughput(self) -> float:
        """Payload bytes per second."""
        return self.payload / self.seconds if self.seconds else 0.0

    @property
    def cpu(self) -> float:
        """The server's CPU seconds; NaN when it could not be read."""
        return math.nan if self.server is None else self.server[1].cpu - self.server[0].cpu

    @property
    def cpu_per_gb(self) -> float:
        """The server's CPU seconds per 10^9 bytes of payload; NaN when there is none."""
        return self.cpu / (self.payload / 1e9) if self.payload else math.nan


OnTick = Callable[[Sample, float], None]
"""Told now and then: the sample so far, and how much of the run is done, 0 to 1."""


async def measure(target: Target, load: Load, pattern: Pattern | None = None, on_tick: OnTick | None = None) -> Sample:
    """Run ``load`` against ``target``. Cancelled: the sample that ``on_tick`` was shown is what there is.

    Raises ``CallFailed`` or ``OSError`` when not even the preparation succeeds, and ``WrongBytes``.
    """
    work = work_of(load, pattern)
    sample = Sample(target.name)
    async with AsyncExitStack() as opened:
        drivers = [
            await opened.enter_async_context(open_driver(target, load, work.pattern)) for _ in range(load.connections)
        ]
        for driver in drivers:
            await work.prepare(driver)
        async with _stalled_beside(drivers, work, load):
            await _Run(target, load, work, sample, on_tick).run(drivers)
    return sample


@asynccontextmanager
async def _stalled_beside(drivers: Sequence[Driver], work: Work, load: Load) -> AsyncIterator[None]:
    if load.scenario is not Scenario.SLOW:
        yield
        return
    release = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(hold_stalled, drivers[-1], work, release, load.stalled)
        yield
        release.set()


class _Run:
    def __init__(self, target: Target, load: Load, work: Work, sample: Sample, on_tick: OnTick | None) -> None:
        self._target = target
        self._load = load
        self._work = work
        self._sample = sample
        self._on_tick = on_tick
        self._left = load.count
        self._began = 0.0

    async def run(self, drivers: Sequence[Driver]) -> None:
        meter = ProcessMeter(self._target.process_id) if self._target.process_id else None
        if self._target.control is not None:
            await control.ask(self._target.control, "reset")
        before = meter.read() if meter else None
        cpu, self._began = _own_cpu(), time.perf_counter()
        try:
            async with trio.open_nursery() as ticking:
                ticking.start_soon(self._tick)
                async with trio.open_nursery() as nursery:
                    for number in range(self._load.concurrency):
                        nursery.start_soon(self._stream, drivers[number % len(drivers)])
                ticking.cancel_scope.cancel()
        finally:
            self._sample.seconds = time.perf_counter() - self._began
            self._sample.client_cpu = _own_cpu() - cpu
            if meter and before:
                self._sample.server = (before, meter.read())
        await self._ask_server()

    async def _stream(self, driver: Driver) -> None:
        sample, end = self._sample, self._began + self._load.duration
        while self._left > 0 and (math.isfinite(self._load.count) or time.perf_counter() < end):
            self._left -= 1
            began = time.perf_counter()
            try:
                moved = await self._work.operate(driver)
            except CallFailed as error:
                self._count_error(error)
                continue
            sample.latency.record(time.perf_counter() - began)
            sample.operations += 1
            sample.payload += moved

    def _count_error(self, error: CallFailed) -> None:
        self._sample.errors[error.code] += 1
        self._sample.last_error = str(error)
        if self._sample.errors.total() >= ERRORS_BEFORE_GIVING_UP:
            raise error

    async def _tick(self) -> None:
        while self._on_tick is not None:
            await trio.sleep(_TICK)
            self._sample.seconds = time.perf_counter() - self._began
            by_time = self._sample.seconds / self._load.duration
            by_count = 1 - max(0.0, self._left) / self._load.count if math.isfinite(self._load.count) else by_time
            self._on_tick(self._sample, min(1.0, by_count))

    async def _ask_server(self) -> None:
        if self._target.control is None:
            return
        answer = await control.ask(self._target.control, "report")
        self._sample.lag = answer["lag_ms"]
        released: dict[str, float] = answer["released"]
        for upload in self._work.resets:
            if (at := released.get(upload.artifact.digest.hex)) is not None:
                self._sample.released.record(at - upload.ended_at)


def _own_cpu() -> float:
    times = os.times()
    return times.user + times.system
