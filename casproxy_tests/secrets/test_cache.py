"""When the cache asks its source and what it answers meanwhile. Time is virtual: no test waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog.testing
import trio
import trio.testing

from casproxy.errors import (
    SecretDenied,
    SecretError,
    SecretMalformed,
    SecretNotFound,
    SecretUnavailable,
)
from casproxy.secrets.cache import CacheSettings, SecretCache, open_cache
from casproxy_tests.secrets.scripted import ScriptedSource, secret

DOWN = SecretUnavailable("down")
DEFAULT = CacheSettings()


class Bench:
    """A cache, its source and the clock."""

    def __init__(self, cache: SecretCache, source: ScriptedSource, clock: trio.testing.MockClock) -> None:
        self.cache = cache
        self.source = source
        self._clock = clock

    async def after(self, seconds: float) -> None:
        """Let virtual time pass, and whatever it sets in motion settle."""
        self._clock.jump(seconds)
        await self.settle()

    async def settle(self) -> None:
        await trio.testing.wait_all_tasks_blocked()

    async def password(self, name: str = "a") -> str:
        return (await self.cache.read(name)).text("password")

    def lookups(self) -> int:
        return len(self.source.asked)


@asynccontextmanager
async def bench(clock: trio.testing.MockClock, settings: CacheSettings = DEFAULT) -> AsyncIterator[Bench]:
    source = ScriptedSource()
    async with open_cache(source, settings) as cache:
        yield Bench(cache, source, clock)


async def test_fresh_for_a_minute(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        assert await b.password() == "first"
        b.source.answers["a"] = secret("second")
        await b.after(29.9)
        assert await b.password() == "first" and b.lookups() == 1
        await b.after(60)
        assert await b.password() == "second" and b.lookups() == 2
        assert (b.cache.stats.hits, b.cache.stats.lookups, b.cache.stats.stale) == (1, 2, 0)


async def test_refreshed_behind_the_readers_when_half_spent(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        await b.password()
        b.source.answers["a"] = secret("second")
        b.source.hold()
        await b.after(30)
        assert [await b.password() for _ in range(3)] == ["first"] * 3
        await b.settle()
        assert b.lookups() == 2
        b.source.release()
        await b.settle()
        assert await b.password() == "second" and b.lookups() == 2


async def test_a_refresh_still_under_way_when_the_minute_ends_delays_nobody(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with bench(mock_clock) as b:
        await b.password()
        await b.after(59)
        b.source.hold()
        await b.password()
        await b.after(2)
        assert await b.password() == "first" and b.lookups() == 2


async def test_a_thousand_readers_share_one_lookup(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        b.source.hold()
        async with trio.open_nursery() as nursery:
            for _ in range(1_000):
                nursery.start_soon(b.password)
            await b.settle()
            b.source.release()
        assert b.lookups() == 1


async def test_one_slow_secret_delays_no_other(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        b.source.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.password)
            await b.settle()
            b.source._gate, slow = trio.Event(), b.source._gate
            b.source.release()
            b.source.answers["b"] = secret("other")
            assert await b.password("b") == "other"
            slow.set()


async def test_errors_reach_every_waiter_as_its_own_exception(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        b.source.answers["a"] = SecretDenied("no")
        b.source.hold()
        caught: list[SecretDenied] = []

        async def read() -> None:
            with pytest.raises(SecretDenied, match=r"^no$") as error:
                await b.password()
            caught.append(error.value)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(read)
            await b.settle()
            b.source.release()
        assert b.lookups() == 1 and len({id(error) for error in caught}) == 3


async def test_missing_is_remembered_for_five_seconds(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        for delay, lookups in ((0, 1), (4.9, 1), (0.1, 2)):
            await b.after(delay)
            with pytest.raises(SecretNotFound):
                await b.password("missing")
            assert b.lookups() == lookups
        b.source.answers["missing"] = secret("found")
        await b.after(5)
        assert await b.password("missing") == "found"


@pytest.mark.parametrize("error", [SecretNotFound("gone"), SecretDenied("denied"), SecretMalformed("broken")])
async def test_an_old_secret_never_outlives_a_clear_no(mock_clock: trio.testing.MockClock, error: SecretError) -> None:
    async with bench(mock_clock) as b:
        await b.password()
        b.source.answers["a"] = error
        await b.after(30)
        assert await b.password() == "first"  # and a look-up starts behind it
        await b.settle()
        with pytest.raises(type(error)):
            await b.password()
        b.source.answers["a"] = DOWN
        await b.after(5)
        with pytest.raises(SecretUnavailable):
            await b.password()


async def test_stale_while_the_source_is_down(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        await b.password()
        b.source.answers["a"] = DOWN
        await b.after(61)
        with structlog.testing.capture_logs() as lines:
            assert await b.password() == "first"
        assert lines == [
            {
                "event": "secret_unavailable",
                "log_level": "warning",
                "secret_id": "a",
                "error": "down",
                "serving_last_known": True,
            }
        ]
        assert (b.cache.stats.stale, b.cache.stats.failures) == (1, 1)
        await b.after(598)
        assert await b.password() == "first"
        await b.after(2)
        with pytest.raises(SecretUnavailable, match=r"^down$"):
            await b.password()


async def test_an_outage_that_hangs_adds_latency_to_one_read_at_most(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        await b.password()
        b.source.hold()
        await b.after(61)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.password)
            await b.settle()
            await b.after(5)  # the look-up's deadline
        for _ in range(20):
            await b.after(3)
            with trio.CancelScope() as scope:
                scope.cancel()  # would end any wait
                assert await b.password() == "first"
        b.source.answers["a"] = secret("second")
        b.source.release()
        await b.after(6)
        assert await b.password() == "first"
        await b.settle()
        assert await b.password() == "second"


async def test_a_source_that_is_down_is_asked_once_a_second(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        await b.password()
        b.source.answers["a"] = DOWN
        await b.after(61)
        await b.password()
        assert b.lookups() == 2
        for _ in range(10):
            await b.after(0.5)
            await b.password()
            await b.settle()
        assert b.lookups() == 7


async def test_an_unknown_secret_has_no_fallback(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        b.source.answers["a"] = DOWN
        for lookups in (1, 2):
            with pytest.raises(SecretUnavailable, match=r"^down$"):
                await b.password()
            assert b.lookups() == lookups


async def test_a_lookup_ends_after_five_seconds(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        b.source.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_unavailable, b, "the secret source did not answer within 5 s")
            await b.settle()
            await b.after(4.9)
            assert b.source.cancelled == 0
            await b.after(0.1)
        assert b.source.cancelled == 1


async def test_an_unforeseen_failure_is_an_outage(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        b.source.answers["b"] = KeyError("hunter2")
        await _unavailable(b, "the secret source failed unexpectedly", "b")
        await b.password()
        b.source.answers["a"] = KeyError("hunter2")
        await b.after(61)
        assert await b.password() == "first"


async def test_zero_ttl_keeps_nothing(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock, CacheSettings(ttl=0, not_found_ttl=0)) as b:
        await b.password()
        await b.password()
        b.source.answers["a"] = DOWN
        await _unavailable(b, "down")
        for _ in range(2):
            with pytest.raises(SecretNotFound):
                await b.password("missing")
        assert b.lookups() == 5 and not b.cache._entries


async def test_the_least_recently_used_entry_goes_first(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock, CacheSettings(max_entries=2)) as b:
        b.source.answers |= {"b": secret(), "c": secret()}
        for secret_id in ("a", "b", "a", "c", "a"):
            await b.password(secret_id)
        assert b.source.asked == ["a", "b", "c"]
        await b.password("b")
        assert b.lookups() == 4


@pytest.mark.parametrize("secret_id", ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a b", "a?b", "a\n", "é", "a\\b"])
async def test_odd_ids_never_reach_a_source(mock_clock: trio.testing.MockClock, secret_id: str) -> None:
    async with bench(mock_clock) as b:
        with pytest.raises(SecretNotFound, match=r"^no secret can have the id"):
            await b.cache.read(secret_id)
        assert b.lookups() == 0


async def test_drop_asks_again_once_in_thirty_seconds(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        await b.password()
        b.source.answers["a"] = secret("second")
        assert b.cache.drop("a") is True
        assert await b.password() == "second"
        assert b.cache.drop("a") is False
        assert b.cache.drop("b") is True
        await b.after(29.9)
        assert b.cache.drop("a") is False and await b.password() == "second" and b.lookups() == 2
        await b.after(0.1)
        assert b.cache.drop("a") is True
        await b.password()
        assert b.lookups() == 3
        await b.after(31)
        assert b.cache.drop("c") is True and set(b.cache._dropped) == {"c"}


async def test_drop_overtakes_a_lookup_that_may_have_read_the_old_value(mock_clock: trio.testing.MockClock) -> None:
    async with bench(mock_clock) as b:
        b.source.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.password)
            await b.settle()
            old_gate, b.source._gate = b.source._gate, trio.Event()
            assert b.cache.drop("a")
            b.source.answers["a"] = secret("second")
            b.source.release()
            assert await b.password() == "second"
            b.source.answers["a"] = secret("late answer of the old look-up")
            old_gate.set()
        assert await b.password() == "second"


async def test_dropped_while_the_source_is_down_the_old_secret_still_serves(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with bench(mock_clock) as b:
        await b.password()
        b.source.answers["a"] = DOWN
        assert b.cache.drop("a")
        assert await b.password() == "first" and b.lookups() == 2


async def test_leaving_ends_lookups_and_their_readers(mock_clock: trio.testing.MockClock) -> None:
    source = ScriptedSource()
    source.hold()
    async with trio.open_nursery() as nursery:
        async with open_cache(source) as cache:
            nursery.start_soon(_unavailable, Bench(cache, source, mock_clock), "this process is stopping")
            await trio.testing.wait_all_tasks_blocked()
        assert source.cancelled == 1


async def test_an_error_in_the_block_comes_out_as_it_is(mock_clock: trio.testing.MockClock) -> None:
    async def fail() -> None:
        async with bench(mock_clock) as b:
            b.source.hold()
            b.cache._take_off("a", background=True)
            raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        await fail()


async def _unavailable(b: Bench, text: str, name: str = "a") -> None:
    with pytest.raises(SecretUnavailable, match=text):
        await b.password(name)
