"""Owns when something is tried again, and how often. Refuses to know what it is.

Waiting times are drawn at random between 0 and a bound that doubles ("full jitter"): what failed together does not come
back together. A budget per registry keeps retries to a share of the requests, so that an outage is not multiplied by
those who suffer from it.
"""

from __future__ import annotations

import email.utils
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

import trio

from casproxy.errors import BackendUnavailable
from casproxy.storage.oci.errors import Busy

T = TypeVar("T")

_EARNED_PER_SUCCESS: Final = 0.2


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """Times in seconds. ``longest_wait``: a registry that wants to be left alone for longer is unavailable."""

    attempts: int = 4
    first_wait: float = 0.25
    longest_pause: float = 3.0
    longest_wait: float = 10.0
    budget: float = 10.0
    """Retries in a row that one registry may cost; each success earns a fifth of one back."""


DEFAULT_RETRY: Final = RetrySettings()


class Retries:
    """The retries of one registry, for one credential."""

    def __init__(self, settings: RetrySettings, *, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._settings = settings
        self._draw = draw
        self._budget = settings.budget
        self._not_before = 0.0

    async def run(self, operation: Callable[[], Awaitable[T]]) -> T:
        """``operation``'s result; it runs again while it raises ``BackendUnavailable``, as often as settings allow."""
        attempt = 1
        while True:
            await self._wait_for_leave()
            try:
                result = await operation()
            except BackendUnavailable as error:
                pause = self._pause(attempt, error)
                if pause is None:
                    raise
                await trio.sleep(pause)
                attempt += 1
            else:
                self._budget = min(self._settings.budget, self._budget + _EARNED_PER_SUCCESS)
                return result

    def note(self, retry_after: float | None) -> None:
        """The registry asked to be left alone for so many seconds: every request of this credential obeys."""
        if retry_after is not None:
            self._not_before = max(self._not_before, trio.current_time() + retry_after)

    async def _wait_for_leave(self) -> None:
        wait = self._not_before - trio.current_time()
        if wait > self._settings.longest_wait:
            raise Busy(f"the registry asked to be left alone for {wait:.0f} s", retry_after=wait)
        if wait > 0:
            await trio.sleep(wait)

    def _pause(self, attempt: int, error: BackendUnavailable) -> float | None:
        """How long to wait before the next attempt; None: there is none."""
        asked = error.retry_after if isinstance(error, Busy) else None
        if attempt >= self._settings.attempts or self._budget < 1 or (asked or 0) > self._settings.longest_wait:
            return None
        self._budget -= 1
        bound = min(self._settings.first_wait * 2.0 ** (attempt - 1), self._settings.longest_pause)
        return (asked or 0) + self._draw(0, bound)


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds in a ``Retry-After`` (RFC 9110, 10.2.3: seconds or a date); None for none and for nonsense."""
    if value is None or len(value) > 64:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - (now or datetime.now(UTC))).total_seconds())
