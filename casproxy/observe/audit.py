"""Owns the audit trail: events wait in a bounded queue and go to NATS JetStream, best effort. No transfer waits.

::

    record() ──▶ queue (10,000) ──▶ up to 64 in flight ──▶ acknowledged: published
        │                            └─ connection or stream lost: back to the front, again after a pause, for ever
        ├─ queue full: dropped                └─ the stream will never take it: rejected
        └─ not ours to tell: nothing

An event may arrive twice when an acknowledgement was lost; it carries a message id, by which JetStream drops the
second. The control plane owns the stream: it is published to and never created.
"""

from __future__ import annotations

import ssl
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Final

import structlog
import trio

from casproxy.background import background
from casproxy.observe.audit_event import AuditEvent, NotAuditable, audit_event
from casproxy.observe.facts import Caller, Downloaded, Fact, Uploaded
from casproxy.observe.nats import NatsConnection, NatsRejected, NatsServer, NatsUnavailable, open_nats
from casproxy.rpc.api import Handler, Interceptor, ServerCall

RESULTS: Final = ("published", "dropped", "rejected", "skipped")
"""What can become of an event; ``skipped``: its organisation cannot be told, so nothing was to be sent."""

_log = structlog.get_logger("casproxy.audit")


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """Times in seconds."""

    queue_size: int = 10_000
    in_flight: int = 64
    first_pause: float = 0.25
    longest_pause: float = 10.0
    flush: float = 2.0
    """How long the end of the process may wait for what is still queued."""


class AuditTrail:
    """Takes facts at any speed and gets rid of them at the server's. Made by ``open_trail``."""

    def __init__(self, settings: AuditSettings, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._settings = settings
        self._now_ns = now_ns
        self._queue: deque[AuditEvent] = deque()
        self._in_flight: dict[str, AuditEvent] = {}
        self._changed = trio.lowlevel.ParkingLot()
        self._counts: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        self._down_since: float | None = None
        self._dropping = False

    @property
    def waiting(self) -> int:
        """Events not yet acknowledged."""
        return len(self._queue) + len(self._in_flight)

    @property
    def up(self) -> bool:
        """Whether the last that was heard of the server was good."""
        return self._down_since is None

    def counts(self) -> Mapping[str, int]:
        """Events since the start, by what became of them: ``RESULTS``."""
        return self._counts

    def record(self, caller: Caller, fact: Fact) -> None:
        """Queue the event that tells ``fact``, or drop it; at once either way."""
        if caller.internal:
            return
        if self.waiting >= self._settings.queue_size:
            self._drop(1, "the queue is full")
            return
        try:
            self._queue.append(audit_event(caller, fact, now_ns=self._now_ns()))
        except NotAuditable as error:
            self._counts["skipped"] += 1
            _log.warning("audit_event_skipped", reason=str(error), org=caller.org, digest=str(fact.digest))
            return
        self._changed.unpark_all()

    async def publish_from(self, connection: NatsConnection) -> None:
        """Publish what is queued and what comes, over ``connection``. Raises ``NatsUnavailable``, maybe in a group.

        However it ends, what was not acknowledged is at the front of the queue again.
        """
        slots = trio.Semaphore(self._settings.in_flight)
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    await slots.acquire()
                    while not self._queue:
                        await self._changed.park()
                    event = self._queue.popleft()
                    self._in_flight[event.id] = event
                    nursery.start_soon(self._publish, connection, event, slots)
        finally:
            self._queue.extendleft(reversed(self._in_flight.values()))
            self._in_flight.clear()

    async def _publish(self, connection: NatsConnection, event: AuditEvent, slots: trio.Semaphore) -> None:
        try:
            await connection.publish(event.subject, event.payload, message_id=event.id)
            self._counts["published"] += 1
            self._came_up()
        except NatsRejected as error:
            self._counts["rejected"] += 1
            _log.warning("audit_event_rejected", reason=str(error), subject=event.subject)
        del self._in_flight[event.id]
        slots.release()
        self._changed.unpark_all()

    def went_down(self, error: Exception) -> None:
        """The server or its stream is down; said in the log once per outage."""
        if self._down_since is None:
            self._down_since = trio.current_time()
            _log.warning("audit_unavailable", error=str(error), waiting=self.waiting)
            self._changed.unpark_all()

    def _came_up(self) -> None:
        self._dropping = self._dropping and self.waiting * 2 > self._settings.queue_size
        if self._down_since is not None:
            seconds = trio.current_time() - self._down_since
            self._down_since = None
            _log.info("audit_available", down_seconds=round(seconds, 3), dropped=self._counts["dropped"])

    def _drop(self, count: int, reason: str) -> None:
        self._counts["dropped"] += count
        if not self._dropping:
            self._dropping = True
            _log.warning("audit_events_dropped", reason=reason, dropped=self._counts["dropped"])

    async def empty(self) -> None:
        """Wait until everything recorded so far and since is off our hands."""
        while self.waiting:
            await self.changed()

    async def changed(self) -> None:
        """Wait for the next event that comes or goes, or for an outage."""
        await self._changed.park()

    def give_up(self) -> None:
        """The process ends: what is left is dropped."""
        if self.waiting:
            self._drop(self.waiting, "the process ends")
            self._queue.clear()


@asynccontextmanager
async def open_trail(
    servers: Sequence[NatsServer], settings: AuditSettings = AuditSettings(), tls: ssl.SSLContext | None = None
) -> AsyncIterator[AuditTrail]:
    """A trail that is published to the first of ``servers`` that answers, for the length of the block.

    Nothing fails when none does. Leaving waits up to ``settings.flush`` for what is queued, unless cancelled.
    """
    trail = AuditTrail(settings)
    context = tls or ssl.create_default_context()
    try:
        async with background(partial(_keep_publishing, trail, servers, settings, context)):
            yield trail
            with trio.move_on_after(settings.flush if trail.up else 0):
                await trail.empty()
    finally:
        trail.give_up()


async def _keep_publishing(
    trail: AuditTrail, servers: Sequence[NatsServer], settings: AuditSettings, tls: ssl.SSLContext
) -> None:
    """Connect and publish for ever, pausing ever longer while nothing gets through."""
    pause = settings.first_pause
    for server in cycle(servers):
        published = trail.counts()["published"]
        try:
            async with open_nats(server, tls) as connection:
                await trail.publish_from(connection)
        except* NatsUnavailable as group:
            trail.went_down(_first(group))
        if trail.counts()["published"] > published:
            pause = settings.first_pause
        await trio.sleep(pause)
        pause = min(2 * pause, settings.longest_pause)


def _first(group: BaseExceptionGroup[NatsUnavailable]) -> NatsUnavailable:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def audit_calls(
    record: Callable[[Caller, Fact], None], who_calls: Callable[[ServerCall], Caller | None]
) -> Interceptor:
    """An interceptor that tells the trail what was attached to a call: an upload as soon as it is stored.

    A download counts only when its call ends well. Whoever cancels an upload's call after the commit is too late.
    """

    async def audit(call: ServerCall, handler: Handler) -> None:
        try:
            await handler(call)
        finally:
            caller = who_calls(call)
            fact = call.find(Uploaded) or call.find(Downloaded)
            if caller is not None and fact is not None:
                record(caller, fact)

    return audit
