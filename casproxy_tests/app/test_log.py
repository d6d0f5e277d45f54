"""What a log line may hold, whoever wrote it."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from casproxy.observe import log as logs


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_carry_level_time_and_facts() -> None:
    out = io.StringIO()
    logs.configure("info", "json", out)
    structlog.get_logger("casproxy.test").info("call", bytes=3)
    [line] = lines(out)
    assert line["event"] == "call"
    assert line["level"] == "info"
    assert line["bytes"] == 3
    assert line["time"].endswith("Z")


def test_auto_is_json_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    logs.configure("info", "auto", out)
    structlog.get_logger().info("x")
    assert len(lines(out)) == 1


def test_the_level_holds_for_both_kinds_of_loggers() -> None:
    out = io.StringIO()
    logs.configure("warning", "json", out)
    structlog.get_logger().info("no")
    logging.getLogger("somebody").info("no")
    structlog.get_logger().warning("yes")
    logging.getLogger("somebody").warning("yes")
    assert [line["event"] for line in lines(out)] == ["yes", "yes"]


TOKEN = "eyJhbGciOiJFUzUxMiJ9.eyJyb2xlIjoidXBsb2FkZXIifQ.AbC-_d"


def test_a_kept_logger_hears_of_every_configuration() -> None:
    """``casproxy dev`` is quiet during its first trip, and then tells of every call."""
    quiet, loud = io.StringIO(), io.StringIO()
    logs.configure("warning", "json", quiet)
    kept = logs.KeptLogger("casproxy.calls")
    kept.now.info("unheard")
    logs.configure("info", "json", loud)
    kept.now.info("heard")
    assert quiet.getvalue() == ""
    assert json.loads(loud.getvalue())["event"] == "heard"


@pytest.mark.parametrize("threshold", ["debug", "info", "warning", "error"])
@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_a_kept_logger_writes_what_structlog_would(level: str, threshold: str) -> None:
    out = io.StringIO()
    kept = logs.KeptLogger("casproxy.calls")
    logs.configure(threshold, "json", out)
    facts: dict[str, Any] = {"peer": f"\n{TOKEN}\u2028", "api_key": "opaque", "seconds": 0.25, "odd": Decimal(1)}
    with structlog.contextvars.bound_contextvars(request_id="r", peer="overruled"):
        for logger in (structlog.get_logger(), kept.now):
            getattr(logger, level)("call", **facts)
            getattr(logger, level)("call", bytes=1)
    written = [re.sub(r'"time": ?"[0-9T:.-]+Z"', "", line) for line in out.getvalue().split("\n")[:-1]]
    severity = logging.getLevelNamesMapping()
    assert len(written) == (4 if severity[level.upper()] >= severity[threshold.upper()] else 0)
    assert written[:2] == written[2:]


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"authentication with {TOKEN} failed",
        f"GET http://host:8001/download/sha256:abc?t={TOKEN}",
        "GET /download/sha256:abc?t=opaque-token HTTP/1.1",
        "Authorization: Bearer opaque-token",
        "https://bucket.example/key?X-Amz-Signature=opaque-token&a=b",
    ],
)
def test_tokens_and_queries_never_reach_a_line(text: str) -> None:
    out = io.StringIO()
    logs.configure("info", "json", out)
    structlog.get_logger().info(text, note=text)
    logging.getLogger("sdk").warning("%s", text)
    try:
        int(text)
    except ValueError:
        structlog.get_logger().exception("failed")
    assert len(lines(out)) == 3
    assert TOKEN not in out.getvalue()
    assert "opaque-token" not in out.getvalue()


@pytest.mark.parametrize("key", ["token", "uploader_token", "authorization", "password", "secret", "api_key"])
def test_values_under_telling_keys_are_hidden(key: str) -> None:
    out = io.StringIO()
    logs.configure("info", "json", out)
    structlog.get_logger().info("x", **{key: "opaque", "secret_id": "shown"})
    [line] = lines(out)
    assert line[key] == "[hidden]"
    assert line["secret_id"] == "shown"


@given(st.text("?eEyYjJ.bBaArR /:hptx", max_size=30))
def test_text_that_is_not_looked_at_closely_holds_nothing_to_hide(text: str) -> None:
    assert logs._may_tell(text) or logs.clean(text) == text


class _Guarded:
    """Shows nothing of what it holds; msgspec would."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = "opaque"

    def __repr__(self) -> str:
        return "<guarded>"


@pytest.mark.parametrize("value", ["\ud800", 2**70, [1, "a"], {"a": None}, _Guarded(), b"raw", {1: 2}])
def test_values_of_any_kind_are_written_as_json_or_as_they_show_themselves(value: object) -> None:
    out = io.StringIO()
    logs.configure("info", "json", out)
    structlog.get_logger().info("x", value=value, true=True, none=None, text="é\u2028")
    wanted = {"value": value, "true": True, "none": None, "text": "é\u2028", "event": "x"}
    [line] = out.getvalue().removesuffix("\n").split("\n")
    assert json.loads(line).items() >= json.loads(json.dumps(wanted, default=repr)).items()


@pytest.mark.parametrize("log_format", ["json", "console"])
@given(text=st.text(max_size=50))
def test_no_text_can_write_a_line_of_its_own(log_format: str, text: str) -> None:
    out = io.StringIO()
    logs.configure("info", log_format, out)
    structlog.get_logger().info("call", name=text)
    written = out.getvalue()
    assert written.endswith("\n")
    assert written.count("\n") == 1
    assert "\x1b" not in written
