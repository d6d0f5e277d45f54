"""Unexpected exceptions are reported, once and without secrets; expected ones are not."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import msgspec
import pytest
import structlog

from casproxy.client import open_client
from casproxy.config import Config
from casproxy.config.kinds import SecretStr
from casproxy.config.observability import Observability, Sentry
from casproxy.dev.place import Place
from casproxy.digest import Digest
from casproxy.observe.sentry import open_sentry
from casproxy.rpc.errors import RpcError
from casproxy.storage.local.backend import LocalBackend
from casproxy_tests.app.serving import config_of, serving
from casproxy_tests.fakes.sentry import SentryServer, sentry_server

JWT = "eyJhbGciOiJFUzUxMiJ9.eyJhIjoxfQ.c2lnbmF0dXJl"
SECRETS = [
    f"Bearer {JWT}",
    JWT,
    "password=hunter2!",
    "{'Password': 'hunter2!'}",
    '"secret_key": "hunter2!"',
    "https://registry/v2/?token=hunter2!",
    "access_key=hunter2!",
]


@pytest.fixture
def sentry(log_lines: io.StringIO) -> Iterator[SentryServer]:
    with sentry_server() as server:
        yield server


def reporting(place: Place, sentry: SentryServer) -> Config:
    chosen = Sentry(dsn=SecretStr(sentry.dsn), environment="tests")
    return msgspec.structs.replace(config_of(place), observability=Observability(sentry=chosen))


async def test_an_unexpected_exception_arrives_once(
    place: Place, sentry: SentryServer, log_lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_self: LocalBackend, _digest: Digest) -> None:
        credentials = {"Password": "hunter2!"}
        raise KeyError(f"no Username beside password={credentials['Password']}")

    monkeypatch.setattr(LocalBackend, "describe", broken)
    async with (
        serving(reporting(place, sentry)) as server,
        open_client(server.grpc, place.uploader_token, insecure=True) as client,
    ):
        with pytest.raises(RpcError, match="an unexpected error") as failed:
            await client.describe(Digest.of(b"x"))
    [event] = sentry.events
    [raised] = event["exception"]["values"]
    assert raised["type"] == "KeyError"
    assert event["fingerprint"][0] == "KeyError"
    assert event["fingerprint"][1].startswith("casproxy.")
    assert (event["environment"], event["level"]) == ("tests", "error")
    assert event["tags"]["request_id"] in failed.value.message, "the caller's text leads to the report"
    assert "hunter2!" not in sentry.raw and place.uploader_token not in sentry.raw
    assert not any("vars" in frame for frame in raised["stacktrace"]["frames"])
    line = next(line for line in map(json.loads, log_lines.getvalue().splitlines()) if "error_id" in line)
    assert line["error_id"] == line["request_id"] == event["tags"]["request_id"]


async def test_expected_errors_are_not_reported(place: Place, sentry: SentryServer) -> None:
    async with serving(reporting(place, sentry)) as server:
        for token in (place.uploader_token, "nonsense"):
            async with open_client(server.grpc, token, insecure=True) as client:
                with pytest.raises(RpcError):
                    await client.describe(Digest.of(b"x"))
    assert not sentry.events


@pytest.mark.parametrize("secret", SECRETS)
async def test_secrets_are_cut_out_of_messages(sentry: SentryServer, secret: str) -> None:
    async with open_sentry(sentry.dsn, ""):
        try:
            raise ValueError(f"it broke: {secret} and so on")
        except ValueError:
            structlog.get_logger().exception("page failed", request_id="r1", authorization=secret)
    [event] = sentry.events
    assert event["tags"]["request_id"] == "r1"
    assert "hunter2" not in sentry.raw and "eyJ" not in sentry.raw
    assert "it broke" in event["exception"]["values"][0]["value"]


async def test_what_the_standard_library_logs_is_reported_too(sentry: SentryServer) -> None:
    async with open_sentry(sentry.dsn, ""):
        for _ in range(2):
            try:
                raise ValueError("on a connection")
            except ValueError as error:
                logging.getLogger("casproxy.rpc").exception("unexpected error")
                logging.getLogger("casproxy.rpc").warning("no error", exc_info=error)
    assert [event["exception"]["values"][0]["value"] for event in sentry.events] == ["on a connection"] * 2
    assert sentry.events[0]["fingerprint"] == sentry.events[1]["fingerprint"]


async def test_nothing_is_reported_after_the_block(sentry: SentryServer) -> None:
    async with open_sentry(sentry.dsn, ""):
        pass
    structlog.get_logger().error("late", exc_info=ValueError("late"))
    assert not sentry.events
