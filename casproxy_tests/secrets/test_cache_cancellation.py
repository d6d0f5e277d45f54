"""A reader may leave at any moment: it takes nothing with it that another reader wants, and leaves nothing running."""

from __future__ import annotations

import trio
import trio.testing

from casproxy.secrets.cache import SecretCache, open_cache
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.secrets.scripted import ScriptedSource


async def test_the_flight_goes_on_while_anyone_waits() -> None:
    source = ScriptedSource()
    source.hold()
    async with open_cache(source) as cache, trio.open_nursery() as nursery:
        leavers = [trio.CancelScope() for _ in range(3)]
        for scope in leavers:
            nursery.start_soon(_read_in, scope, cache)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(cache.read, "a")
        for scope in leavers:
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
        assert all(scope.cancelled_caught for scope in leavers)
        assert source.cancelled == 0
        source.release()
    assert source.asked == ["a"]


async def test_the_flight_ends_with_its_last_waiter() -> None:
    source = ScriptedSource()
    source.hold()
    async with open_cache(source) as cache, trio.open_nursery() as nursery:
        leavers = [trio.CancelScope() for _ in range(2)]
        for scope in leavers:
            nursery.start_soon(_read_in, scope, cache)
        await trio.testing.wait_all_tasks_blocked()
        for scope in leavers:
            assert source.cancelled == 0
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
        assert source.cancelled == 1 and not cache._flights
        source.release()
        await cache.read("a")
    assert source.asked == ["a", "a"]


async def test_a_reader_that_comes_as_the_last_waiter_leaves_gets_a_flight_of_its_own() -> None:
    source = ScriptedSource()
    source.hold()
    async with open_cache(source) as cache, trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(_read_in, scope, cache)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        nursery.start_soon(cache.read, "a")
        await trio.testing.wait_all_tasks_blocked()
        source.release()
    assert len(source.asked) == 1 + source.cancelled


async def test_a_refresh_needs_no_reader() -> None:
    source = ScriptedSource()
    async with open_cache(source) as cache:
        source.hold()
        cache._take_off("a", background=True)  # as if its entry had been pushed out meanwhile
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read_in, scope, cache)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
        assert source.cancelled == 0
        source.release()
        await cache.read("a")
        assert source.asked == ["a"] and not cache._flights


async def test_cancelled_anywhere() -> None:
    caches: list[SecretCache] = []

    async def scenario() -> int:
        source = ScriptedSource()
        async with open_cache(source) as cache:
            caches.append(cache)
            async with trio.open_nursery() as nursery:
                for secret_id in ("a", "a", "b/c", "a"):
                    nursery.start_soon(_read_if_there, cache, secret_id)
            cache.drop("a")
            await cache.read("a")
        return len(source.asked)

    async def check(run: Run[int]) -> None:
        await trio.lowlevel.checkpoint()
        assert run.cancelled or run.value == 3
        assert not caches[-1]._flights

    assert await cancel_everywhere(scenario, check) > 5


async def _read_in(scope: trio.CancelScope, cache: SecretCache) -> None:
    with scope:
        await cache.read("a")


async def _read_if_there(cache: SecretCache, secret_id: str) -> None:
    from casproxy.errors import SecretNotFound

    try:
        await cache.read(secret_id)
    except SecretNotFound:
        assert secret_id == "b/c"
