"""Whether the secret source is up, known in time, by virtual time; and once against a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from casproxy.errors import SecretDenied, SecretError, SecretMalformed, SecretNotFound, SecretUnavailable
from casproxy.secrets.api import Secret
from casproxy.secrets.cache import CacheSettings, open_cache
from casproxy.secrets.remote import PROBE
from casproxy.secrets.watch import EAGER, SourceWatch, WatchSettings

LIMIT = 5.0
"""Seconds within which an outage and its end must be known where readiness depends on it."""


class Source:
    """A secret source that a test can break. ``error``: what it raises; ``silent``: it never answers."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.silent = False
        self.asked: list[str] = []

    async def read(self, secret_id: str) -> Secret:
        self.asked.append(secret_id)
        await trio.lowlevel.checkpoint()
        if self.silent:
            await trio.sleep_forever()
        if self.error is not None:
            raise self.error
        if secret_id == PROBE:
            raise SecretNotFound(secret_id)
        return Secret({"Path": "x"})

    async def check(self) -> None:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def watching(source: Source, settings: WatchSettings = EAGER) -> AsyncIterator[tuple[SourceWatch, list[float]]]:
    """A running watch, and the times at which it changed its mind."""
    changes: list[float] = []
    watch = SourceWatch(
        source,
        settings,
        report=lambda _result, _seconds: None,
        on_change=lambda _up: changes.append(trio.current_time()),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        yield watch, changes
        nursery.cancel_scope.cancel()


def break_down(source: Source, how: str) -> None:
    if how == "silent":
        source.silent = True
    else:
        source.error = SecretUnavailable("down") if how == "refuses" else OSError("broken")


@pytest.mark.parametrize("how", ["silent", "refuses", "breaks"])
@pytest.mark.parametrize("after", [0.0, 0.9, 1.7, 33.3])
async def test_an_outage_and_its_end_are_known_in_time(
    autojump_clock: trio.testing.MockClock, how: str, after: float
) -> None:
    source = Source()
    async with watching(source) as (watch, changes):
        await trio.sleep(after)
        break_down(source, how)
        died = trio.current_time()
        await trio.sleep(LIMIT)
        assert not watch.up
        source.error, source.silent = None, False
        recovered = trio.current_time()
        await trio.sleep(LIMIT)
        assert watch.up
    assert len(changes) == 2
    assert changes[0] - died < LIMIT and changes[1] - recovered < LIMIT


@pytest.mark.parametrize("how", ["silent", "refuses"])
async def test_the_cache_goes_on_serving_meanwhile(autojump_clock: trio.testing.MockClock, how: str) -> None:
    source = Source()
    async with (
        watching(source) as (watch, _),
        open_cache(watch, CacheSettings(ttl=10.0, stale=600.0)) as cache,
    ):
        first = await cache.read("tenant")
        break_down(source, how)
        for _ in range(20):
            await trio.sleep(5.0)
            assert await cache.read("tenant") is first
        assert not watch.up
        assert 100 <= cache.oldest_age() < 110


async def test_one_slow_answer_is_no_outage(autojump_clock: trio.testing.MockClock) -> None:
    source = Source()
    async with watching(source) as (watch, changes):
        source.silent = True
        await trio.sleep(2.0)
        assert source.asked == [PROBE]
        source.silent = False
        await trio.sleep(60.0)
        assert watch.up and not changes


async def test_a_secret_that_breaks_its_reader_is_no_outage(autojump_clock: trio.testing.MockClock) -> None:
    source = Source()
    async with watching(source) as (watch, changes):
        for _ in range(10):
            source.error = ValueError("a bug")
            with pytest.raises(ValueError, match="a bug"):
                await watch.read("poison")
            source.error = None
            await trio.sleep(0.1)
        assert watch.up and not changes


@pytest.mark.parametrize("error", [SecretNotFound("x"), SecretDenied("x"), SecretMalformed("x")])
async def test_a_source_that_says_no_is_up(autojump_clock: trio.testing.MockClock, error: SecretError) -> None:
    source = Source()
    source.error = error
    async with watching(source) as (watch, changes):
        with pytest.raises(type(error)):
            await watch.read("x")
        await trio.sleep(60.0)
        assert watch.up and not changes


async def test_nobody_is_asked_while_look_ups_tell(autojump_clock: trio.testing.MockClock) -> None:
    source = Source()
    async with watching(source, WatchSettings(interval=30.0)) as (watch, _):
        for _ in range(100):
            await trio.sleep(20.0)
            await watch.read("tenant")
        assert PROBE not in source.asked
        await trio.sleep(301.0)
        assert source.asked.count(PROBE) == 10
