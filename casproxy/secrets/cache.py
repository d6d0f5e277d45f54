"""Owns when a secret is read again. Refuses to know where secrets come from.

::

    age of an entry      0 ─────────── ttl/2 ─────────── ttl ──────────────────── ttl + stale
    a read gets          the secret    the secret,        what a look-up says;     what a look-up says
                                       and a look-up      the old secret while
                                       starts behind it   the source is down

One look-up per id is in flight, however many wait for it. It is a task in the cache's nursery, not in a reader's: a
reader that is cancelled leaves, and the flight ends early only when nobody is left who wants it. Every flight has a
deadline. Once a source is known to be down, readers of a stale secret do not wait for the next try, so an outage adds
no latency to calls whose secret is known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog
import trio

from casproxy.background import background
from casproxy.errors import SecretError, SecretNotFound, SecretUnavailable
from casproxy.secrets.api import Secret, SecretSource, check_secret_id

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Times in seconds."""

    ttl: float = 60.0
    """A secret is fresh for this long; 0 keeps nothing (waiting readers still share one look-up)."""
    stale: float = 600.0
    """How long beyond ``ttl`` an old secret serves while the source is unavailable."""
    not_found_ttl: float = 5.0
    """How long a missing secret is remembered as missing."""
    timeout: float = 5.0
    """Bounds one look-up."""
    retry_interval: float = 1.0
    """While the source is unavailable, a known secret is looked up again this often at most."""
    drop_interval: float = 30.0
    """``drop`` works once per id in this time."""
    max_entries: int = 10_000


@dataclass(slots=True)
class CacheStats:
    """Counts since the start, for metrics.

    ``hits``: reads answered without waiting. ``lookups``: questions to the source, ``failures`` of them found it down.
    ``stale``: reads answered with an old secret because of that.
    """

    hits: int = 0
    lookups: int = 0
    failures: int = 0
    stale: int = 0

    def by_result(self) -> dict[str, int]:
        """The counts by the names that metrics give them."""
        return {"hit": self.hits, "lookup": self.lookups, "failure": self.failures, "stale": self.stale}


@dataclass(slots=True)
class _Entry:
    secret: Secret | None  # None: known to be missing
    fresh_until: float
    refresh_at: float
    stale_until: float
    read_at: float
    source_down: bool = False


@dataclass(slots=True, eq=False)
class _Flight:
    secret_id: str
    background: bool
    waiters: int = 0
    outcome: Secret | Exception | None = None  # None: still under way, or cut off with the cache itself
    done: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


@asynccontextmanager
async def open_cache(source: SecretSource, settings: CacheSettings = CacheSettings()) -> AsyncIterator[SecretCache]:
    """A cache in front of ``source``. Leaving ends the look-ups in flight; their readers get ``SecretUnavailable``."""
    async with background() as nursery:
        yield SecretCache(source, settings, nursery)


class SecretCache:
    """A ``SecretSource`` that remembers. Made by ``open_cache``."""

    def __init__(self, source: SecretSource, settings: CacheSettings, nursery: trio.Nursery) -> None:
        self._source = source
        self._settings = settings
        self._nursery = nursery
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._dropped: dict[str, float] = {}
        self.stats = CacheStats()

    async def check(self) -> None:
        """The source's own start-up check."""
        await self._source.check()

    async def read(self, secret_id: str) -> Secret:
        """See ``SecretSource.read``; checks the id first. A fresh secret is returned without a checkpoint."""
        check_secret_id(secret_id)
        entry = self._entries.get(secret_id)
        if entry is None:
            return await self._join(self._flights.get(secret_id) or self._take_off(secret_id))
        self._entries.move_to_end(secret_id)
        now = trio.current_time()
        if now < entry.fresh_until or self._may_serve_stale(secret_id, entry, now):
            return self._answer(secret_id, entry, now)
        return await self._join(self._flights.get(secret_id) or self._take_off(secret_id))

    def oldest_age(self) -> float:
        """Seconds since the oldest kept secret was read that may still serve; 0 when there is none."""
        now = trio.current_time()
        kept = (entry for entry in self._entries.values() if entry.secret is not None and now < entry.stale_until)
        return now - min((entry.read_at for entry in kept), default=now)

    def drop(self, secret_id: str) -> bool:
        """The backend refused this secret: let the next ``read`` ask the source. False: asked too recently already.

        The old secret still serves while the source is unavailable: a refusal may be the backend's own mistake.
        """
        now = trio.current_time()
        self._dropped = {name: at for name, at in self._dropped.items() if now < at + self._settings.drop_interval}
        if secret_id in self._dropped:
            return False
        self._dropped[secret_id] = now
        self._flights.pop(secret_id, None)  # it may have read the old value; those who wait for it still get it
        entry = self._entries.get(secret_id)
        if entry is not None:
            entry.fresh_until, entry.source_down = now, False
        return True

    def _may_serve_stale(self, secret_id: str, entry: _Entry, now: float) -> bool:
        flight = self._flights.get(secret_id)
        refreshing = flight is not None and flight.background
        return entry.secret is not None and now < entry.stale_until and (entry.source_down or refreshing)

    def _answer(self, secret_id: str, entry: _Entry, now: float) -> Secret:
        self.stats.hits += 1
        if entry.secret is None:
            raise SecretNotFound(f"secret {secret_id} not found")
        if now >= entry.refresh_at and secret_id not in self._flights:
            self._take_off(secret_id, background=True)
        if now >= entry.fresh_until:
            self.stats.stale += 1
        return entry.secret

    def _take_off(self, secret_id: str, *, background: bool = False) -> _Flight:
        flight = _Flight(secret_id, background)
        self._nursery.start_soon(self._fly, flight)  # first: it raises once the cache is closed
        self._flights[secret_id] = flight
        return flight

    async def _join(self, flight: _Flight) -> Secret:
        flight.waiters += 1
        try:
            await flight.done.wait()
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.background and not flight.done.is_set():
                self._forget(flight)
                flight.scope.cancel()
        return self._result(flight)

    def _result(self, flight: _Flight) -> Secret:
        outcome = flight.outcome
        if isinstance(outcome, Secret):
            return outcome
        old = self._old_secret(flight.secret_id) if _is_outage(outcome) else None
        if old is not None:
            self.stats.stale += 1
            return old
        if isinstance(outcome, SecretError):  # a copy each: readers must not share one traceback
            raise type(outcome)(*outcome.args) from outcome
        if outcome is None:
            raise SecretUnavailable("the secret was not read: this process is stopping")
        raise SecretUnavailable("the secret source failed unexpectedly") from outcome

    def _old_secret(self, secret_id: str) -> Secret | None:
        entry = self._entries.get(secret_id)
        return entry.secret if entry is not None and trio.current_time() < entry.stale_until else None

    async def _fly(self, flight: _Flight) -> None:
        self.stats.lookups += 1
        try:
            with flight.scope:
                flight.outcome = await self._look_up(flight.secret_id)
        finally:
            if self._forget(flight):
                self._keep(flight.secret_id, flight.outcome)
            flight.done.set()

    async def _look_up(self, secret_id: str) -> Secret | Exception:
        with trio.move_on_after(self._settings.timeout):
            try:
                return await self._source.read(secret_id)
            except Exception as error:  # an outcome like any other: each waiting reader raises it
                return error
        return SecretUnavailable(f"the secret source did not answer within {self._settings.timeout:g} s")

    def _forget(self, flight: _Flight) -> bool:
        """Take ``flight`` out, unless ``drop`` or its last waiter did already."""
        if self._flights.get(flight.secret_id) is not flight:
            return False
        del self._flights[flight.secret_id]
        return True

    def _keep(self, secret_id: str, outcome: Secret | Exception | None) -> None:
        if isinstance(outcome, Secret):
            self._remember(secret_id, outcome, self._settings.ttl)
        elif isinstance(outcome, SecretNotFound):
            self._remember(secret_id, None, self._settings.not_found_ttl)
        elif _is_outage(outcome):
            self._note_outage(secret_id, outcome)
        elif outcome is not None:
            self._entries.pop(secret_id, None)  # denied or malformed: the old value is no longer ours to use

    def _remember(self, secret_id: str, secret: Secret | None, ttl: float) -> None:
        self._entries.pop(secret_id, None)
        if ttl <= 0:
            return
        now = trio.current_time()
        self._entries[secret_id] = _Entry(secret, now + ttl, now + ttl / 2, now + ttl + self._settings.stale, now)
        if len(self._entries) > self._settings.max_entries:
            self._entries.popitem(last=False)

    def _note_outage(self, secret_id: str, error: Exception | None) -> None:
        self.stats.failures += 1
        entry = self._entries.get(secret_id)
        known = entry is not None and entry.secret is not None
        if entry is not None:
            entry.source_down = True
            entry.refresh_at = trio.current_time() + self._settings.retry_interval
        cause = {"cause": str(error.__cause__)} if error is not None and error.__cause__ is not None else {}
        _log.warning("secret_unavailable", secret_id=secret_id, error=str(error), serving_last_known=known, **cause)


def _is_outage(outcome: Secret | Exception | None) -> bool:
    """The source is down, or broke in a way nobody foresaw: either may pass, neither says anything of the secret."""
    return isinstance(outcome, SecretUnavailable) or (
        isinstance(outcome, Exception) and not isinstance(outcome, SecretError)
    )
