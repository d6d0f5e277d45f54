"""A failed call leads from what its client was told to the log lines of its cause."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest

from casproxy._proto.cas.v1 import resource_pb2 as pb
from casproxy.auth.claims import Claims, Role
from casproxy.auth.mint import mint
from casproxy.dev.place import ORG_ID, Place
from casproxy.digest import Digest
from casproxy.rpc.channel import open_channel
from casproxy.rpc.errors import RpcError
from casproxy.services import registry
from casproxy.wire.metadata import Metadata
from casproxy_tests.app.serving import Serving, config_of, serving

TRACE = "0af7651916cd43dd8448eb211c80319c"
REQUEST = pb.ResourceServiceDescribeRequest(digest=Digest.of(b"x").hex).SerializeToString()


async def describe(server: Serving, token: str, *headers: tuple[str, str]) -> tuple[RpcError | None, Metadata]:
    """The error of a Describe, and its trailers."""
    host, _, port = server.grpc.rpartition(":")
    metadata = Metadata([("authorization", f"Bearer {token}"), *headers])
    async with (
        open_channel(host, int(port)) as channel,
        channel.call(registry.DESCRIBE.path, metadata=metadata) as call,
    ):
        await call.send_message(REQUEST)
        await call.half_close()
        try:
            while await call.receive_message() is not None:
                pass
        except RpcError as error:
            return error, call.trailing_metadata
        return None, call.trailing_metadata


def logged(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


async def test_trouble_names_the_id_that_its_log_lines_have(place: Place, log_lines: io.StringIO) -> None:
    claims = Claims(Role.UPLOADER, "no-such-secret", "FS", ORG_ID, expires_at=time.time() + 60)
    token = mint(place.private_key.read_bytes(), claims, now=time.time())
    async with serving(config_of(place)) as server:
        error, trailers = await describe(server, token, ("x-request-id", "mine-1"))
    assert error is not None and trailers.text("x-request-id") == "mine-1"
    assert b"mine-1" in error.details
    lines = [line for line in logged(log_lines) if line.get("request_id") == "mine-1"]
    assert [line["event"] for line in lines][-1] == "call"
    assert any("exception" in line for line in lines)


async def test_a_refusal_has_the_id_in_its_trailers_and_success_needs_none(
    place: Place, log_lines: io.StringIO
) -> None:
    async with serving(config_of(place)) as server:
        error, trailers = await describe(server, "nonsense")
        _, of_missing = await describe(server, place.uploader_token)
    ids = [line["request_id"] for line in logged(log_lines) if line["event"] == "call"]
    assert error is not None
    assert [trailers.text("x-request-id"), of_missing.text("x-request-id")] == ids


@pytest.mark.parametrize(
    ("header", "trace_id"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
        (f"00-{TRACE}-0000000000000000-01", None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"ff-{TRACE}-b7ad6b7169203331-01", None),
        (f"00-{TRACE.upper()}-b7ad6b7169203331-01", None),
        ("nonsense", None),
    ],
)
async def test_without_tracing_the_callers_trace_is_in_the_log_all_the_same(
    place: Place, log_lines: io.StringIO, header: str, trace_id: str | None
) -> None:
    async with serving(config_of(place)) as server:
        await describe(server, place.uploader_token, ("traceparent", header))
    [line] = [line for line in logged(log_lines) if line["event"] == "call"]
    assert line.get("trace_id") == trace_id
