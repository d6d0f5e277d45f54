"""When a worker is started again, and when no more."""

from __future__ import annotations

from casproxy.workers.restarts import Patience, Restarts

PATIENCE = Patience(first=1.0, longest=8.0, settled=10.0, tries=3)


def test_one_that_was_at_work_is_replaced_at_once() -> None:
    restarts = Restarts(PATIENCE)
    assert [restarts.ended(10.0) for _ in range(5)] == [0.0] * 5


def test_one_that_ends_soon_again_and_again_is_started_ever_more_slowly() -> None:
    restarts = Restarts(PATIENCE)
    assert [restarts.ended(ready_for) for ready_for in (1.0, None, 9.9, None, None, None)] == [1, 2, 4, 8, 8, 8]
    assert restarts.ended(60.0) == 0.0
    assert restarts.ended(None) == 1.0


def test_a_very_long_trouble_is_no_overflow() -> None:
    restarts = Restarts(PATIENCE)
    assert {restarts.ended(None) for _ in range(5000)} == {1.0, 2.0, 4.0, 8.0}


def test_giving_up_takes_several_failed_starts_and_nobody_who_serves() -> None:
    restarts = Restarts(PATIENCE)
    for failures in range(1, 6):
        restarts.ended(None)
        assert restarts.pointless(others_serve=False) == (failures >= 3)
        assert not restarts.pointless(others_serve=True)
    restarts.ended(0.1)  # it could start
    assert not restarts.pointless(others_serve=False)
