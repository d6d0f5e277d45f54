"""The ring of keys on a clock that jumps: when parts are looked at, how long old keys serve, who may ask for a look."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from casproxy.auth.key_parts import KeyPart, Reading
from casproxy.auth.key_ring import KeyRing, RingSettings, open_ring
from casproxy.errors import ConfigError
from casproxy_tests.auth import forge
from casproxy_tests.cancellation import Run, cancel_everywhere

OLD, NEW, OTHER = forge.keys("P-521"), forge.keys("P-256"), forge.keys("Ed25519")


@dataclass
class Part:
    """A place whose content the test changes; ``wait`` delays each answer."""

    reading: Reading = field(default_factory=lambda: Reading(OLD))
    setting: str = "auth.part"
    every: float = 60.0
    max_stale: float = math.inf
    needed_at_start: bool = False
    wait: float = 0.0
    looks: list[float] = field(default_factory=list)
    raises: Exception | None = None

    async def read(self) -> Reading:
        self.looks.append(trio.current_time())
        reading = self.reading
        await trio.sleep(self.wait)
        if self.raises is not None:
            raise self.raises
        return reading

    def fails(self, *, keys: bool = True) -> None:
        self.reading = Reading(self.reading.keys if keys else (), "it is broken")


async def test_parts_are_looked_at_as_often_as_they_want(autojump_clock: trio.testing.MockClock) -> None:
    often, seldom = Part(every=1.0), Part(every=60.0)
    async with open_ring([often, seldom]) as ring:
        await trio.sleep(119.5)
    assert len(often.looks) == 120 and len(seldom.looks) == 2 and ring.looks == 122


async def test_keys_are_the_same_object_until_they_change(autojump_clock: trio.testing.MockClock) -> None:
    part = Part(every=1.0)
    async with open_ring([part]) as ring:
        first = ring.keys()
        part.reading = Reading(forge.keys("P-521"))  # equal, read again
        await trio.sleep(1.5)
        assert ring.keys() is first
        part.reading = Reading(NEW + OLD)
        await trio.sleep(1)
        assert ring.keys() == NEW + OLD


async def test_all_parts_count(autojump_clock: trio.testing.MockClock) -> None:
    async with open_ring([Part(), Part(Reading(NEW)), Part(Reading(OTHER))]) as ring:
        assert ring.keys() == OLD + NEW + OTHER


async def test_a_fault_keeps_the_keys_is_told_once_and_looked_at_soon(autojump_clock: trio.testing.MockClock) -> None:
    part = Part(every=60.0)
    with capture_logs() as logs:
        async with open_ring([part]) as ring:
            part.fails()
            await trio.sleep(99.5)
            assert ring.keys() == OLD
            assert ring.ages() == {"auth.part": 99.5}
            part.reading = Reading(NEW)
            await trio.sleep(6)
            assert ring.keys() == NEW and ring.ages() == {"auth.part": 5.5}
    assert part.looks == [0.0, *(60.0 + 5 * retry for retry in range(8)), 100.0]
    assert [line["event"] for line in logs] == ["keys_changed", "keys_not_read", "keys_read_again", "keys_changed"]
    assert logs[1] == {
        "event": "keys_not_read",
        "log_level": "warning",
        "setting": "auth.part",
        "reason": "it is broken",
        "serving_last_known": True,
    }


async def test_old_keys_serve_for_max_stale_and_not_a_moment_longer(autojump_clock: trio.testing.MockClock) -> None:
    part, other = Part(every=60.0, max_stale=100.0), Part(Reading(OTHER), every=1e6)
    with capture_logs() as logs:
        async with open_ring([part, other]) as ring:
            part.fails()
            await trio.sleep(60 + 99.999)  # the fault is found at 60
            assert ring.keys() == OLD + OTHER
            await trio.sleep(0.001)
            assert ring.keys() == OTHER
            await trio.sleep(1000)
            assert ring.keys() == OTHER
            part.reading = Reading(OLD)
            await trio.sleep(5.5)
            assert ring.keys() == OLD + OTHER
    assert [line["event"] for line in logs].count("keys_too_old") == 1


async def test_an_outage_that_ends_in_time_starts_the_count_anew(autojump_clock: trio.testing.MockClock) -> None:
    part = Part(every=10.0, max_stale=100.0)
    async with open_ring([part]) as ring:
        for _ in range(3):
            good = part.reading
            part.fails()
            await trio.sleep(80)
            assert ring.keys() == OLD
            part.reading = good
            await trio.sleep(20)
        part.fails(keys=False)
        await trio.sleep(20)
        assert ring.keys() == ()


async def test_max_stale_0_gives_up_at_the_first_fault(autojump_clock: trio.testing.MockClock) -> None:
    part = Part(every=10.0, max_stale=0.0)
    async with open_ring([part]) as ring:
        await trio.sleep(35)
        assert ring.keys() == OLD
        part.fails()
        await trio.sleep(5.001)
        assert ring.keys() == ()


async def test_a_part_that_hangs_is_given_up_and_holds_up_nobody(autojump_clock: trio.testing.MockClock) -> None:
    hanging, other = Part(every=1.0), Part(Reading(OTHER), every=1.0)
    with capture_logs() as logs:
        async with open_ring([hanging, other]) as ring:
            hanging.wait = math.inf
            await trio.sleep(49.5)
            assert ring.keys() == OLD + OTHER and len(other.looks) == 50
    assert [line["reason"] for line in logs if line["event"] == "keys_not_read"] == ["no answer within 10 s"]


async def test_an_unforeseen_failure_ends_nothing(autojump_clock: trio.testing.MockClock) -> None:
    part = Part(every=10.0)
    with capture_logs() as logs:
        async with open_ring([part]) as ring:
            part.raises = RuntimeError("surprise")
            await trio.sleep(12)
            assert ring.keys() == OLD
            part.raises, part.reading = None, Reading(NEW)
            await trio.sleep(10)
            assert ring.keys() == NEW
    assert {"unexpected RuntimeError"} == {line["reason"] for line in logs if "reason" in line}


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([Part(Reading((), "broken"), needed_at_start=True, setting="a"), Part()], "a: broken"),
        ([Part(Reading(OLD, "partly broken"), needed_at_start=True, setting="a")], "a: partly broken"),
        ([Part(Reading((), "down"), setting="b")], "b: down"),
    ],
)
async def test_what_stops_the_start(parts: list[KeyPart], text: str) -> None:
    with capture_logs() as logs, pytest.raises(ConfigError, match=f"^{text}$"):
        async with open_ring(parts):
            raise AssertionError("it started")
    assert not logs


async def test_a_server_that_is_down_at_start_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    url = Part(Reading((), "down"), setting="url")
    with capture_logs() as logs:
        async with open_ring([Part(), url]) as ring:
            assert ring.keys() == OLD
    assert [(line["event"], line.get("reason")) for line in logs] == [("keys_not_read", "down"), ("keys_changed", None)]
    async with open_ring([Part(), url]) as ring:
        assert ring.keys() == OLD and ring.ages()["url"] == math.inf
        url.reading = Reading(NEW)
        await trio.sleep(5.5)
        assert ring.keys() == OLD + NEW


# -- unknown keys -----------------------------------------------------------------------------------


async def test_seekers_share_one_look_and_are_rationed(autojump_clock: trio.testing.MockClock) -> None:
    part = Part(every=1e6, wait=0.5)
    async with open_ring([part], RingSettings(seek_interval=10.0)) as ring:
        part.reading = Reading(NEW)
        for looks in (2, 3):
            for _ in range(3):
                async with trio.open_nursery() as seekers:
                    for _ in range(1_000):
                        seekers.start_soon(ring.seek)
                assert ring.keys() == NEW and len(part.looks) == looks
            await trio.sleep(10)


async def test_whoever_seeks_gets_a_look_that_began_later(autojump_clock: trio.testing.MockClock) -> None:
    """The one in flight may have asked before the key was published."""
    part = Part(every=1.0, wait=0.0)
    async with open_ring([part]) as ring:
        part.wait = 0.5
        await trio.sleep(1.2)  # a look is in flight, and will say OLD
        part.reading = Reading(NEW)
        await ring.seek()
        assert ring.keys() == NEW


async def test_every_part_is_asked_at_once(autojump_clock: trio.testing.MockClock) -> None:
    parts = [Part(every=1e6, wait=2.0), Part(every=1e6, wait=3.0)]
    async with open_ring(parts) as ring:
        start = trio.current_time()
        await ring.seek()
        assert trio.current_time() - start == 3.0


async def test_a_seeker_who_leaves_takes_nobody_along(autojump_clock: trio.testing.MockClock) -> None:
    part = Part(every=1e6, wait=1.0)
    async with open_ring([part]) as ring, trio.open_nursery() as nursery:
        part.reading = Reading(NEW)
        with trio.move_on_after(0.5) as leaving:
            nursery.start_soon(ring.seek)
            await ring.seek()
        assert leaving.cancelled_caught
        await ring.seek()
        assert ring.keys() == NEW and len(part.looks) == 2


async def test_seeking_in_an_outage_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    part = Part(every=1e6)
    async with open_ring([part]) as ring:
        part.wait = math.inf
        start = trio.current_time()
        await ring.seek()
        assert trio.current_time() - start <= 10.0 and ring.keys() == OLD


# -- the end ----------------------------------------------------------------------------------------


async def test_seekers_are_let_go_at_the_end(autojump_clock: trio.testing.MockClock) -> None:
    part = Part(every=1e6)
    async with trio.open_nursery() as nursery:
        async with open_ring([part]) as ring:
            part.wait = math.inf
            nursery.start_soon(ring.seek)
            await trio.testing.wait_all_tasks_blocked(0.01)
        await ring.seek()  # and who comes later


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with open_ring([Part()]):
            raise KeyError("mine")


async def test_cancelled_anywhere_nothing_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async def scenario() -> KeyRing:
        async with open_ring([Part(every=1.0, wait=0.1), Part(every=2.0)]) as ring, trio.open_nursery() as nursery:
            nursery.start_soon(ring.seek)
            await ring.seek()
            await trio.sleep(3)
            return ring

    async def check(run: Run[KeyRing]) -> None:
        assert run.cancelled or (run.value is not None and run.value.looks >= 6)

    assert await cancel_everywhere(scenario, check) > 15
