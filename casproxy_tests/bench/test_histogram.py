"""Latencies as counts: exact to 1 %, mergeable, never beyond the largest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.bench.histogram import Histogram

DURATIONS = st.lists(st.floats(min_value=1e-6, max_value=1e4), min_size=1, max_size=200)


def _of(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(DURATIONS, st.sampled_from([0.1, 1, 25, 50, 90, 99, 99.9, 100]))
def test_a_percentile_is_a_recorded_value_to_one_percent(values: list[float], percent: float) -> None:
    ordered = sorted(values)
    rank = next(index for index in range(len(ordered)) if (index + 1) >= len(ordered) * percent / 100)
    assert _of(values).percentile(percent) == pytest.approx(ordered[rank], rel=0.01, abs=2e-9)


@given(DURATIONS, DURATIONS)
def test_merging_is_recording_everything_in_one(first: list[float], second: list[float]) -> None:
    merged = Histogram.merged([_of(first), _of(second)])
    assert merged.summary() == _of(first + second).summary()
    assert merged.count == len(first) + len(second)


def test_the_maximum_is_exact_and_bounds_every_percentile() -> None:
    histogram = _of([0.001] * 99 + [0.123456789])
    assert histogram.max_seconds == 0.123456789
    assert histogram.percentile(100) == 0.123456789
    assert histogram.percentile(99) == pytest.approx(0.001, rel=0.01)


def test_nothing_recorded_is_zero_everywhere() -> None:
    assert set(Histogram().summary().values()) == {0.0}


def test_a_clock_that_steps_back_is_no_error() -> None:
    assert _of([-1.0]).percentile(50) == 0.0
