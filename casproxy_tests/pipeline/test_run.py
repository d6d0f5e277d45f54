"""One place decides what a caller hears."""

from __future__ import annotations

import itertools

import pytest
import trio

from casproxy.digest import EMPTY_DIGEST
from casproxy.errors import (
    BackendBroken,
    BackendUnavailable,
    DigestMismatch,
    InvalidRequest,
    PeerGone,
    PeerTooSlow,
    SizeLimitExceeded,
)
from casproxy.pipeline.run import one_cause, run_stages

BY_RANK: list[Exception] = [
    PeerGone("gone"),
    SizeLimitExceeded(want=2, max_bytes=1),
    InvalidRequest("rule"),
    DigestMismatch(got="0", want=EMPTY_DIGEST.hex),
    PeerTooSlow("slow"),
    ValueError("a bug"),
    BackendUnavailable("down"),
    trio.BrokenResourceError("echo"),
]


@pytest.mark.parametrize(("above", "below"), list(itertools.combinations(BY_RANK, 2)))
@pytest.mark.parametrize("swapped", [False, True])
def test_the_higher_cause_is_heard(above: Exception, below: Exception, swapped: bool) -> None:
    pair = [below, above] if swapped else [above, below]
    with pytest.raises(type(above)) as caught, one_cause():
        raise ExceptionGroup("both", [ExceptionGroup("nested", pair[:1]), pair[1]])
    assert caught.value is above


@pytest.mark.parametrize("error", BY_RANK[:-1], ids=lambda error: type(error).__name__)
def test_a_single_error_leaves_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, one_cause():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "raw", [ConnectionResetError("reset"), OSError(28, "no space"), trio.BrokenResourceError(), trio.EndOfChannel()]
)
@pytest.mark.parametrize("grouped", [False, True])
def test_a_raw_error_is_the_stores_and_never_a_client_that_left(raw: Exception, grouped: bool) -> None:
    with pytest.raises(BackendBroken) as caught, one_cause():
        raise ExceptionGroup("", [raw]) if grouped else raw
    assert caught.value.__cause__ is raw


def test_the_cause_of_the_chosen_error_is_kept() -> None:
    chosen, cause = BackendUnavailable("down"), OSError("refused")
    chosen.__cause__ = cause
    with pytest.raises(BackendUnavailable) as caught, one_cause():
        raise ExceptionGroup("", [trio.BrokenResourceError(), chosen])
    assert caught.value.__cause__ is cause


async def test_the_first_failure_cancels_the_siblings() -> None:
    async def fail() -> None:
        raise BackendUnavailable("down")

    with pytest.raises(BackendUnavailable), one_cause():
        await run_stages(first=trio.sleep_forever, second=fail, third=trio.sleep_forever)


@pytest.mark.parametrize("error", [BackendUnavailable("down"), PeerGone("gone"), OSError("raw")])
async def test_a_cancellation_from_outside_wins_over_our_errors(error: Exception) -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    with trio.CancelScope() as scope:
        scope.cancel()
        with one_cause():
            await run_stages(first=fail_when_cancelled, second=trio.sleep_forever)
    assert scope.cancelled_caught


async def test_a_bug_is_seen_even_beside_a_cancellation() -> None:
    async def bug() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True), trio.CancelScope() as scope:
        scope.cancel()
        with one_cause():
            await run_stages(first=bug, second=trio.sleep_forever)
