"""Kinds of value: secrets that hide, addresses, and the small ones."""

from __future__ import annotations

import math

import pytest

from casproxy.config.kinds import COUNT, FLAG, RATIO, TIMEOUT, Kind, SecretStr, choice, parse_address, sizes_up_to


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = SecretStr("hunter2")
    shown = f"{secret} {secret!r} {[secret]} {secret!s:>10}"
    assert "hunter2" not in shown
    assert secret.reveal() == "hunter2"


def test_secrets_compare_by_their_text() -> None:
    assert SecretStr("a") == SecretStr("a")
    assert SecretStr("a") != SecretStr("b")
    assert SecretStr("a") != "a"
    assert len({SecretStr("a"), SecretStr("a")}) == 1


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0.0.0.0:9001", ("0.0.0.0", 9001)),
        (":9001", ("", 9001)),
        ("[::]:0", ("::", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_reads_an_address(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "9001",
        "localhost",
        "localhost:",
        "host:65536",
        "host:-1",
        "host:http",
        "::1:80",
        "[host]:80",
        "http://h:80",
        "a b:1",
        "h:٣",
        "h:" + "9" * 9,
        "h:00000099999",
    ],
)
def test_refuses_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_address(text)


@pytest.mark.parametrize(
    ("kind", "good", "value", "bad"),
    [
        (FLAG, "true", True, ["yes", "1", "on"]),
        (FLAG, "False", False, [""]),
        (COUNT, "1000", 1000, ["0", "-1", "1.5", "many", "9" * 30, "0" * 19 + "9" * 19]),
        (RATIO, "0.25", 0.25, ["1.1", "-0.1", "nan", "half"]),
        (TIMEOUT, "0s", math.inf, ["never"]),
        (sizes_up_to(1 << 20), "1MiB", 1 << 20, ["0", "1025KiB"]),
        (choice("json", "console"), "json", "json", ["JSON", "xml"]),
    ],
)
def test_a_kind_reads_its_own_and_nothing_else(kind: Kind, good: str, value: object, bad: list[str]) -> None:
    assert kind.parse(good) == value
    for text in bad:
        with pytest.raises(ValueError, match=r".*"):
            kind.parse(text)


def test_no_limit_is_shown_as_it_is_written() -> None:
    assert TIMEOUT.show(TIMEOUT.parse("0s")) == "0s"
    assert TIMEOUT.show(TIMEOUT.parse("90s")) == "1m30s"
