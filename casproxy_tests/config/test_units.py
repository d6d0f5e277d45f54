"""Durations and sizes: what people and existing files write."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casproxy.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("1m30s", 90),
        ("300s", 300),
        ("1.5s", 1.5),
        ("3.000000001s", 3.000000001),
        ("250ms", 0.25),
        ("1h0m1s", 3601),
        ("2h45m", 9900),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("1ns", 1e-9),
        (".5s", 0.5),
        ("1.s", 1),
        ("+5s", 5),
        ("0", 0),
        ("0s", 0),
    ],
)
def test_reads_go_and_protobuf_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "+",
        "-5s",
        "5 s",
        "5s ",
        "5 parsecs",
        "5S",
        "1d",
        "1e3s",
        "infs",
        "nans",
        "..5s",
        "٥s",
        "1m30",
        "9" * 100 + "s",
    ],
)
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="a duration"):
        parse_duration(text)


def test_refuses_a_duration_beyond_ten_years() -> None:
    with pytest.raises(ValueError, match="ten years"):
        parse_duration("100000h")


@given(st.integers(0, 10**17).map(lambda nanoseconds: nanoseconds / 1e9))
def test_a_shown_duration_reads_back(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (5, "5s"), (90, "1m30s"), (3600, "1h"), (0.25, "250ms"), (61.5, "1m1.5s"), (300.0, "5m")],
)
def test_shows_durations_as_people_write_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("100MiB", 100 << 20),
        ("256 KiB", 256 << 10),
        ("1.5GiB", 3 << 29),
        ("100MB", 10**8),
        ("1k", 1000),
        ("8Mi", 8 << 20),
        ("8mib", 8 << 20),
        ("7B", 7),
    ],
)
def test_reads_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5", "1.5B", "1e3", "10 000", "5 parsecs", "٣", "9EiB", "1" * 100])
def test_refuses_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="a size"):
        parse_size(text)


@given(st.integers(0, 2**63 - 1))
def test_a_shown_size_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0
