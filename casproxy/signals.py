"""Owns what SIGTERM and SIGINT do to a process that serves: the first drains, the second ends. Knows no service."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

import structlog
import trio

from casproxy.garbage import settle

log = structlog.get_logger("casproxy.app")

D = TypeVar("D", contravariant=True)


class Service(Protocol[D]):
    """What is served at ``doors``. Serves once."""

    @property
    def draining(self) -> bool:
        """A drain has begun."""

    def drain(self) -> None:
        """Begin to drain; ``serve`` returns at the end of it. Idempotent."""

    async def serve(self, doors: D, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start up, serve, drain. Started when calls are accepted. Cancelled: everything ends at once."""


async def serve_until_signalled(
    service: Service[D], doors: D, grace: float, when_ready: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; returns when nothing is left. Main thread only.

    ``when_ready`` runs once calls are accepted, and is cancelled by a drain. ``grace``, in seconds, is for the log.
    Errors: what ``serve`` and ``when_ready`` raise; they may come in an ``ExceptionGroup``.
    """
    preparing = trio.CancelScope()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as watching:
            watching.start_soon(_obey, signals, service, grace, preparing, watching.cancel_scope)
            async with trio.open_nursery() as serving:
                await serving.start(service.serve, doors)
                settle()
                if when_ready is not None:
                    with preparing:
                        await when_ready()
            watching.cancel_scope.cancel()


async def _obey(
    signals: AsyncIterator[int],
    service: Service[D],
    grace: float,
    preparing: trio.CancelScope,
    everything: trio.CancelScope,
) -> None:
    async for number in signals:
        name = signal.Signals(number).name
        if service.draining:
            log.warning("second signal: ending at once", signal=name)
            everything.cancel()
        else:
            log.info("draining", signal=name, grace_seconds=grace)
            service.drain()
            preparing.cancel()
