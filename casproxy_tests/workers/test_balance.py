"""Who gets the next connection."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.workers.balance import ON_THE_WAY, Standing, choose

IDLE = Standing(
    number=1, serves=True, ready=True, silent=False, connections=0, room=10, on_the_way=0, load=0
)  # fmt: skip


def test_nobody_serves_nobody_gets_it() -> None:
    assert choose([]) is None
    assert choose([replace(IDLE, serves=False)]) is None


def test_the_least_loaded_gets_it() -> None:
    busy, idler = replace(IDLE, load=3), replace(IDLE, number=2, load=2)
    assert choose([busy, idler]) == 2


def test_while_all_are_draining_the_one_that_ends_last_gets_it() -> None:
    busy, idler = replace(IDLE, load=3), replace(IDLE, number=2, load=2)
    assert choose([busy, idler], draining=True) == 1
    assert choose([replace(busy, silent=True), idler], draining=True) == 2
    assert choose([replace(busy, ready=False), idler], draining=True) == 1  # the idler's word of its drain is under way


@pytest.mark.parametrize("fault", [{"ready": False}, {"silent": True}, {"connections": 10}], ids=str)
def test_one_in_trouble_gets_it_only_when_all_are(fault: dict[str, int]) -> None:
    troubled, busy = replace(IDLE, **fault), replace(IDLE, number=2, load=1000)  # type: ignore[arg-type]
    assert choose([troubled, busy]) == 2
    assert choose([troubled]) == 1


def test_one_that_does_not_take_what_it_was_handed_gets_no_more() -> None:
    stuck = replace(IDLE, on_the_way=ON_THE_WAY, load=ON_THE_WAY)
    assert choose([stuck]) is None
    assert choose([stuck, replace(IDLE, number=2, load=5000)]) == 2


@given(st.integers(1, 8), st.integers(0, 200))
def test_a_burst_is_spread_evenly_before_any_news_comes(workers: int, burst: int) -> None:
    standings = {number: replace(IDLE, number=number, room=1000) for number in range(1, workers + 1)}
    for _ in range(min(burst, workers * ON_THE_WAY)):
        chosen = choose(standings.values())
        assert chosen is not None
        seen = standings[chosen]
        standings[chosen] = replace(seen, on_the_way=seen.on_the_way + 1, load=seen.load + 1)
    loads = [standing.load for standing in standings.values()]
    assert max(loads) - min(loads) <= 1
