"""Owns what one operation of each scenario does, and what must be there before the first. Refuses to know clocks.

An operation returns the artifact bytes it moved, whether or not the server had to take them all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from casproxy.bench.artifact import Artifact, Pattern
from casproxy.bench.driver import CallFailed, Driver, Upload
from casproxy.bench.load import Load, Scenario

Operation: TypeAlias = Callable[[Driver], Awaitable[int]]

KEPT = "keep"
"""The bench's own server keeps artifacts of this prefix and forgets the bytes of all others."""
STALLED = "stall"
"""It never takes a byte of artifacts of this prefix."""


@dataclass
class Work:
    """The operations of one run. ``resets``: uploads that were held and reset, for the cancel scenario."""

    load: Load
    pattern: Pattern
    stored: Artifact
    resets: list[Upload] = field(default_factory=list)
    _turn: int = 0

    async def prepare(self, driver: Driver) -> None:
        """Store what will be read, described or sent again."""
        if self.load.scenario not in (Scenario.UPLOAD, Scenario.SLOW, Scenario.CANCEL):
            await driver.upload(self.stored)

    async def operate(self, driver: Driver) -> int:
        """One operation."""
        return await _OPERATIONS[self.load.scenario](self, driver)

    async def _upload(self, driver: Driver) -> int:
        await driver.upload(self.pattern.next())
        return self.load.size

    async def _download(self, driver: Driver) -> int:
        await driver.download(self.stored)
        return self.load.size

    async def _mixed(self, driver: Driver) -> int:
        self._turn += 1
        return await (self._upload if self._turn % 2 else self._download)(driver)

    async def _dedup(self, driver: Driver) -> int:
        await driver.upload(self.stored)
        return self.load.size

    async def _describe(self, driver: Driver) -> int:
        await driver.describe(self.stored)
        return 0

    async def _cancel(self, driver: Driver) -> int:
        """Hold one message of an upload in flight, then reset it."""
        upload = Upload(self.pattern.next())
        sent, release = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(driver.hold, upload, sent, release)
            await sent.wait()
            release.set()
        self.resets.append(upload)
        return 0


_OPERATIONS: dict[Scenario, Callable[[Work, Driver], Awaitable[int]]] = {
    Scenario.UPLOAD: Work._upload,
    Scenario.DOWNLOAD: Work._download,
    Scenario.MIXED: Work._mixed,
    Scenario.DEDUP: Work._dedup,
    Scenario.DESCRIBE: Work._describe,
    Scenario.CANCEL: Work._cancel,
    Scenario.SLOW: Work._upload,
}


def work_of(load: Load, pattern: Pattern | None = None) -> Work:
    """The work of a load; ``pattern`` when one of that size is at hand, for making one costs a hash of it."""
    chosen = pattern or Pattern(load.size)
    return Work(load, chosen, chosen.next(KEPT))


async def hold_stalled(
    driver: Driver,
    work: Work,
    release: trio.Event,
    count: int,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Open ``count`` uploads that send one message and then nothing, until ``release``; then reset them.

    Started when all of them have sent.
    """
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            sent = trio.Event()
            nursery.start_soon(_hold, driver, Upload(work.pattern.next()), sent, release)
            await sent.wait()
        task_status.started()


async def _hold(driver: Driver, upload: Upload, sent: trio.Event, release: trio.Event) -> None:
    try:
        await driver.hold(upload, sent, release)
    except CallFailed:
        if not release.is_set():
            raise
