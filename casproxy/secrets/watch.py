"""Owns knowing whether the secret source is up: from the look-ups that happen, and from asking when none does.

::

    a look-up ──▶ answered (also: not found, denied)        up
              └─▶ unavailable        suspected: asked at once
    silence for ``interval`` ──────▶ asked ──▶ no answer, and none to the next question: down

What is asked for is a secret that nobody has: one that breaks its reader cannot pass for an outage.

Refuses to know any concrete source and what follows from an outage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from casproxy.errors import SecretError, SecretUnavailable
from casproxy.observe.timed import Timed
from casproxy.secrets.api import Secret, SecretSource
from casproxy.secrets.remote import PROBE

_DOWN_AFTER: Final = 2
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """Times in seconds. An outage, or its end, is known within ``interval + 2 * timeout`` at the latest."""

    interval: float = 30.0
    interval_down: float = 1.0
    timeout: float = 1.5


EAGER: Final = WatchSettings(interval=1.0)
"""For a process whose readiness depends on the source: known within 4 s."""


class SourceWatch:
    """A ``SecretSource`` in front of another that keeps in mind how it does. ``run`` is its task.

    ``report`` is told the result and the seconds of each look-up; ``on_change`` whether the source is up, whenever
    that changes.
    """

    def __init__(
        self,
        source: SecretSource,
        settings: WatchSettings,
        *,
        report: Callable[[str, float], None],
        on_change: Callable[[bool], None],
    ) -> None:
        self._source = source
        self._settings = settings
        self._report = report
        self._on_change = on_change
        self._failures = 0
        self._heard = trio.Event()
        self.up = True
        self.answered_at = trio.current_time()
        """When the source last answered, on Trio's clock."""

    async def read(self, secret_id: str) -> Secret:
        """See ``SecretSource.read``."""
        try:
            with Timed("secret.read", self._report):
                secret = await self._source.read(secret_id)
        except Exception as error:
            if isinstance(error, SecretError) and not isinstance(error, SecretUnavailable):
                self._answered()
            else:
                self._failures = max(self._failures, 1)
                self._heard.set()
            raise
        self._answered()
        return secret

    async def check(self) -> None:
        """See ``SecretSource.check``."""
        await self._source.check()

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            pause = self._settings.interval if self.up else self._settings.interval_down
            heard = self._heard = trio.Event()
            if self.up and self._failures:
                await self._probe()
                continue
            with trio.move_on_after(pause):
                await heard.wait()
                continue
            await self._probe()

    async def _probe(self) -> None:
        why = f"no answer within {self._settings.timeout:g} s"
        with trio.move_on_after(self._settings.timeout):
            try:
                await self._source.read(PROBE)
            except SecretUnavailable as error:
                why = str(error)
            except SecretError:
                self._answered()
                return
            except Exception as error:  # one more way of not answering
                why = type(error).__name__
            else:
                self._answered()
                return
        self._failures += 1
        if self.up and self._failures >= _DOWN_AFTER:
            self.up = False
            _log.warning("secret_source_down", error=why)
            self._on_change(self.up)

    def _answered(self) -> None:
        self._heard.set()
        self._failures = 0
        self.answered_at = trio.current_time()
        if not self.up:
            self.up = True
            _log.info("secret_source_up")
            self._on_change(self.up)
