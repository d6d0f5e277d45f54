"""Owns which keys are good now: all parts' keys together, kept current by one task per part.

::

    look      every ``KeyPart.every`` seconds; 5 s after a fault; at once when somebody seeks an unknown key
    fault     the part's last good keys stay, for ``KeyPart.max_stale`` at most; a log line says so once
    change    ``keys()`` is another object from then on; nobody else is told

Anybody can send a token with a made-up ``kid``, so seeking is rationed: one round of looks per ``seek_interval``,
whoever asks. Every round also renews what is known, so a flood of made-up names makes the keys fresher, not older.
Refuses to know files, HTTP and tokens.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog
import trio

from casproxy.auth.key_parts import KeyPart, Reading
from casproxy.auth.keys import VerificationKey
from casproxy.background import background
from casproxy.errors import ConfigError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RingSettings:
    """Times in seconds."""

    read_timeout: float = 10.0
    """Bounds one look at one part."""
    retry_interval: float = 5.0
    """After a fault, the part is looked at again this soon at the latest."""
    seek_interval: float = 10.0
    """Unknown keys are sought once in this time at most."""


@dataclass(slots=True, eq=False)
class _Ask:
    """A wish for a look that begins after the wish."""

    wanted: trio.Event = field(default_factory=trio.Event)
    answered: trio.Event = field(default_factory=trio.Event)


class _Watch:
    """One part and what it last gave."""

    def __init__(self, part: KeyPart) -> None:
        self.part = part
        self.keys: tuple[VerificationKey, ...] = ()
        self.fault = ""
        self.current_at = -math.inf
        """When the part was last read without a fault."""
        self.good_until = math.inf
        self.too_old = False
        self.ask = _Ask()

    def note(self, reading: Reading) -> None:
        """Take over what a look gave."""
        self.keys, self.fault = reading.keys, reading.fault
        now = trio.current_time()
        if not reading.fault:
            self.current_at, self.good_until, self.too_old = now, math.inf, False
        elif self.good_until == math.inf:
            self.good_until = now + self.part.max_stale

    def tell(self, *, before: str) -> None:
        """Log how the fault differs from the one ``before``."""
        if self.fault and self.fault != before:
            log.warning(
                "keys_not_read", setting=self.part.setting, reason=self.fault, serving_last_known=bool(self.keys)
            )
        elif before and not self.fault:
            log.info("keys_read_again", setting=self.part.setting)


class KeyRing:
    """A ``KeySource`` over several parts. Made by ``open_ring``."""

    def __init__(self, parts: Sequence[KeyPart], settings: RingSettings) -> None:
        self._watches = [_Watch(part) for part in parts]
        self._settings = settings
        self._keys: tuple[VerificationKey, ...] = ()
        self._good_until = math.inf
        self._seek_after = -math.inf
        self._sought: list[_Ask] = []
        self.looks = 0
        """How many looks were taken at parts since the start."""

    def keys(self) -> Sequence[VerificationKey]:
        """See ``KeySource.keys``. Keys that became too old are gone from this very call on."""
        if trio.current_time() >= self._good_until:
            self._merge()
        return self._keys

    async def seek(self) -> None:
        """See ``KeySource.seek``."""
        now = trio.current_time()
        if now >= self._seek_after:
            self._seek_after = now + self._settings.seek_interval
            self._sought = [watch.ask for watch in self._watches]
            for ask in self._sought:
                ask.wanted.set()
        for ask in self._sought:
            await ask.answered.wait()

    def ages(self) -> Mapping[str, float]:
        """Seconds since each part was last read without a fault, by its setting; ``math.inf``: never yet."""
        now = trio.current_time()
        return {watch.part.setting: now - watch.current_at for watch in self._watches}

    async def start(self) -> None:
        """Look at every part once; ``ConfigError`` when a needed one is at fault, or when there is no key at all."""
        async with trio.open_nursery() as nursery:
            for watch in self._watches:
                nursery.start_soon(self._look_first, watch)
        for watch in self._watches:
            if watch.fault and (watch.part.needed_at_start or not self._keys):
                raise ConfigError(f"{watch.part.setting}: {watch.fault}")
        for watch in self._watches:  # not before: an error that ends the start is one line
            watch.tell(before="")
        _tell_keys(self._keys)

    async def keep_current(self) -> None:
        """Look at all parts again and again, for ever. Run as a task."""
        async with trio.open_nursery() as nursery:
            for watch in self._watches:
                nursery.start_soon(self._keep_looking, watch)

    async def _keep_looking(self, watch: _Watch) -> None:
        ask = watch.ask
        try:
            while True:
                with trio.move_on_after(self._pause(watch)):
                    await ask.wanted.wait()
                watch.ask = _Ask()  # who asks from now on wants a later look
                await self._look(watch)
                ask.answered.set()
                ask = watch.ask
        finally:
            ask.answered.set()
            watch.ask.answered.set()

    def _pause(self, watch: _Watch) -> float:
        return min(watch.part.every, self._settings.retry_interval) if watch.fault else watch.part.every

    async def _look_first(self, watch: _Watch) -> None:
        watch.note(await self._read(watch))
        self._merge()

    async def _look(self, watch: _Watch) -> None:
        before, known = watch.fault, self._keys
        watch.note(await self._read(watch))
        watch.tell(before=before)
        self._merge()
        if self._keys is not known:
            _tell_keys(self._keys)

    async def _read(self, watch: _Watch) -> Reading:
        self.looks += 1
        reading = Reading(watch.keys, f"no answer within {self._settings.read_timeout:g} s")
        with trio.move_on_after(self._settings.read_timeout):
            try:
                reading = await watch.part.read()
            except Exception as error:  # what nobody foresaw must not end a server whose keys are good
                log.exception("keys_not_read", setting=watch.part.setting)
                reading = Reading(watch.keys, f"unexpected {type(error).__name__}")
        return reading

    def _merge(self) -> None:
        now = trio.current_time()
        fresh = [watch for watch in self._watches if now < watch.good_until]
        for watch in self._watches:
            if watch.keys and now >= watch.good_until and not watch.too_old:
                watch.too_old = True
                log.error("keys_too_old", setting=watch.part.setting, reason=watch.fault)
        self._good_until = min((watch.good_until for watch in fresh), default=math.inf)
        keys = tuple(key for watch in fresh for key in watch.keys)
        if keys != self._keys:  # else the same object, so that verdicts outlive a look that found nothing new
            self._keys = keys


def _tell_keys(keys: Sequence[VerificationKey]) -> None:
    log.info("keys_changed", count=len(keys), kids=[key.kid for key in keys if key.kid is not None])


@asynccontextmanager
async def open_ring(parts: Sequence[KeyPart], settings: RingSettings = RingSettings()) -> AsyncIterator[KeyRing]:
    """The keys of ``parts``, kept current until the block is left. ``ConfigError`` as ``KeyRing.start``."""
    ring = KeyRing(parts, settings)
    await ring.start()
    async with background(ring.keep_current):
        yield ring
