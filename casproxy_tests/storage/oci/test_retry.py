"""When something is tried again: virtual time, and chance replaced by its upper bound."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from casproxy.errors import BackendRefused, BackendUnavailable
from casproxy.storage.oci.errors import Busy
from casproxy.storage.oci.retry import Retries, RetrySettings, parse_retry_after

SETTINGS = RetrySettings(attempts=4, first_wait=1.0, longest_pause=3.0, longest_wait=10.0, budget=5.0)


class Operation:
    """Fails with ``errors``, one after another, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.called_at: list[float] = []

    async def __call__(self) -> str:
        await trio.lowlevel.checkpoint()
        self.called_at.append(trio.current_time())
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def retries() -> Retries:
    return Retries(SETTINGS, draw=lambda low, high: high)


async def test_pauses_double_up_to_their_bound(autojump_clock: MockClock) -> None:
    operation = Operation(*[BackendUnavailable("down")] * 3)
    assert await retries().run(operation) == "done"
    assert operation.called_at == [0, 1, 3, 6]


async def test_it_is_given_up(autojump_clock: MockClock) -> None:
    operation = Operation(*[BackendUnavailable("down")] * 9)
    with pytest.raises(BackendUnavailable):
        await retries().run(operation)
    assert len(operation.called_at) == SETTINGS.attempts


async def test_what_a_retry_cannot_help_is_not_retried() -> None:
    operation = Operation(BackendRefused("no"))
    with pytest.raises(BackendRefused):
        await retries().run(operation)
    assert len(operation.called_at) == 1


async def test_a_registry_is_left_alone_as_it_asks(autojump_clock: MockClock) -> None:
    operation = Operation(Busy("429", retry_after=7.0))
    await retries().run(operation)
    assert operation.called_at == [0, 8]


async def test_a_registry_that_asks_for_too_long_is_unavailable() -> None:
    operation = Operation(Busy("429", retry_after=11.0))
    with pytest.raises(Busy):
        await retries().run(operation)
    assert len(operation.called_at) == 1


async def test_what_was_asked_of_one_request_holds_for_all(autojump_clock: MockClock) -> None:
    shared = retries()
    shared.note(5.0)
    operation = Operation()
    await shared.run(operation)
    assert operation.called_at == [5]
    shared.note(3600.0)
    with pytest.raises(Busy):
        await shared.run(operation)
    assert trio.current_time() == 5


async def test_an_outage_is_not_multiplied(autojump_clock: MockClock) -> None:
    shared = retries()
    operations = [Operation(*[BackendUnavailable("down")] * 9) for _ in range(10)]
    for operation in operations:
        with pytest.raises(BackendUnavailable):
            await shared.run(operation)
    assert sum(len(operation.called_at) for operation in operations) == len(operations) + SETTINGS.budget


async def test_success_earns_retries_back(autojump_clock: MockClock) -> None:
    shared = Retries(RetrySettings(attempts=2, budget=1.0), draw=lambda low, high: 0.0)
    assert await shared.run(Operation(BackendUnavailable("down"))) == "done"
    with pytest.raises(BackendUnavailable):
        await shared.run(Operation(BackendUnavailable("down")))
    for _ in range(5):
        await shared.run(Operation())
    assert await shared.run(Operation(BackendUnavailable("down"))) == "done"


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Fri, 02 Jan 2026 03:04:15 GMT", 10.0),
        ("Fri, 02 Jan 2026 03:04:15 -0000", 10.0),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("٣", None),
        ("Fri, 99 Jan 2026 03:04:15 GMT", None),
        ("9" * 65, None),
    ],
)
def test_retry_after(value: str | None, want: float | None) -> None:
    assert parse_retry_after(value, NOW) == want


@given(st.text(max_size=70))
def test_nonsense_is_no_failure(value: str) -> None:
    assert (parse_retry_after(value, NOW) or 0.0) >= 0.0
