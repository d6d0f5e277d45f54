"""Traces as a collector receives them: one connected tree per call, and nobody who waits for the collector."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from casproxy.auth.claims import Claims, Role
from casproxy.auth.mint import mint
from casproxy.client import open_client
from casproxy.config import Config
from casproxy.config.model import CredentialsService, FileSource, Oci, Outbound
from casproxy.config.observability import Observability, Tracing
from casproxy.dev.place import ORG_ID, Place
from casproxy.digest import Digest
from casproxy.gob import encode_resource_name
from casproxy.observe.tracing import TracingSettings, open_tracing
from casproxy.outbound.address import Origin, Url
from casproxy.outbound.message import Request
from casproxy.outbound.pool import open_pool
from casproxy.rpc.channel import open_channel
from casproxy.rpc.errors import RpcError
from casproxy.wire.metadata import Metadata
from casproxy_tests.app.serving import Serving, config_of, serving
from casproxy_tests.cas import PLAIN
from casproxy_tests.fakes.otlp import OtlpReceiver, otlp_receiver
from casproxy_tests.real.process import free_port
from casproxy_tests.real.registry import running_registry

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
WRITE = "google.bytestream.ByteStream/Write"
SERVER_KIND = 2


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as found:
        yield found


def traced(config: Config, endpoint: str, **more: Any) -> Config:
    tracing = Tracing(enabled=True, endpoint=endpoint, insecure=True, **more)
    return msgspec.structs.replace(config, observability=Observability(tracing=tracing))


@asynccontextmanager
async def serving_a_registry(place: Place, endpoint: str, directory: Path) -> AsyncIterator[tuple[Serving, str]]:
    """A traced server, and a token for a tenant whose artifacts are in a real registry."""
    async with running_registry(directory / "registry") as registry:
        secrets = place.root / "tenants.yaml"
        secrets.touch(0o600)
        repo = {"Repo": f"{registry.host}/traced", "Username": "alice", "Password": "x"}
        secrets.write_text(json.dumps({"tenant": repo}))
        config = msgspec.structs.replace(
            traced(config_of(place), endpoint),
            credentials_service=CredentialsService(file=FileSource(path=secrets)),
            outbound=Outbound(allow=("127.0.0.0/8",)),
            oci=Oci(insecure_registries=(registry.host,)),
        )
        async with serving(config) as server:
            yield server, token(place, Role.UPLOADER, "OCI", "tenant")


def token(place: Place, role: Role, backend: str, secret_id: str) -> str:
    claims = Claims(role, secret_id, backend, ORG_ID, expires_at=2e9)
    return mint(place.private_key.read_bytes(), claims, now=1.7e9)


async def write(server: Serving, bearer: str, content: bytes, *headers: tuple[str, str]) -> None:
    host, _, port = server.grpc.rpartition(":")
    name = encode_resource_name("x", Digest.of(content)).encode()
    message = b"\x0a" + bytes([len(name) & 0x7F | 0x80, len(name) >> 7]) + name + b"\x18\x01"
    message += b"\x52" + bytes([len(content)]) + content
    async with open_channel(host, int(port)) as channel:
        await channel.unary(f"/{WRITE}", message, metadata=Metadata([("authorization", f"Bearer {bearer}"), *headers]))


async def test_an_upload_is_one_trace_from_the_clients_span_to_the_registry(
    place: Place, receiver: OtlpReceiver, tmp_path: Path, log_lines: io.StringIO
) -> None:
    async with serving_a_registry(place, receiver.address, tmp_path) as (server, bearer):
        await write(server, bearer, b"content", ("traceparent", SAMPLED), ("x-request-id", "mine"), ("baggage", "a=b"))
    call = receiver.only(WRITE)
    assert (call.trace, call.parent, call.kind, call.failed) == (TRACE, PARENT, SERVER_KIND, False)
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert call.attributes["casproxy.request_id"] == "mine"
    assert call.attributes["casproxy.digest"] == str(Digest.of(b"content"))
    assert {span.trace for span in receiver.spans} == {TRACE}
    assert not any(span.failed for span in receiver.spans if not span.name.isupper())
    for name in ("secret.read", "storage.describe", "storage.ingest"):
        assert receiver.ancestors(receiver.only(name)) == [WRITE]
    for name in ("pipeline.chunk", "pipeline.hash", "pipeline.ingest", "storage.commit"):
        assert receiver.ancestors(receiver.only(name))[-2:] == ["storage.ingest", WRITE]
    posts = [span for span in receiver.named("POST") if span.attributes["http.response.status_code"] == 202]
    assert posts and all(receiver.ancestors(span)[-1] == WRITE for span in posts)
    assert receiver.named("PUT") and not any("?" in str(span.attributes) for span in receiver.spans)
    [line] = [line for line in map(json.loads, log_lines.getvalue().splitlines()) if line["event"] == "call"]
    assert (line["trace_id"], line["request_id"]) == (TRACE, "mine")


async def test_a_download_over_http_is_one_trace(place: Place, receiver: OtlpReceiver) -> None:
    digest = Digest.of(b"content")
    async with serving(traced(config_of(place), receiver.address)) as server:
        async with open_client(server.grpc, place.uploader_token, insecure=True) as client:
            await client.upload(b"content")
        async with httpx.AsyncClient(verify=PLAIN, trust_env=False) as http:
            url = f"http://{server.http}/download/{digest}"
            answer = await http.get(url, params={"t": place.downloader_token}, headers={"traceparent": SAMPLED})
            assert answer.content == b"content"
    call = receiver.only("GET /download/{digest}")
    assert (call.trace, call.parent, call.kind) == (TRACE, PARENT, SERVER_KIND)
    assert call.attributes["http.response.status_code"] == 200
    reading = [span for span in receiver.named("storage.read") if span.trace == TRACE]
    assert [receiver.ancestors(span)[-1] for span in reading] == [call.name]
    assert place.downloader_token not in str(receiver.spans)


async def test_who_we_are(place: Place, receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(traced(config_of(place), receiver.address)) as server:
        await write(server, place.uploader_token, b"1")
    assert receiver.resources[0]["service.name"] == "chainloop-cas"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "another")
    async with serving(traced(config_of(place), receiver.address)) as server:
        await write(server, place.uploader_token, b"2")
    assert receiver.resources[-1]["service.name"] == "another"


@pytest.mark.parametrize(
    ("ratio", "headers", "calls"),
    [
        (0.0, (), 0),
        (0.0, (("traceparent", SAMPLED),), 1),
        (1.0, (("traceparent", UNSAMPLED),), 0),
        (1.0, (("traceparent", "nonsense"),), 1),
        (1.0, (), 1),
    ],
)
async def test_the_caller_decides_and_else_the_ratio(
    place: Place, receiver: OtlpReceiver, ratio: float, headers: tuple[tuple[str, str], ...], calls: int
) -> None:
    async with serving(traced(config_of(place), receiver.address, sampling_ratio=ratio)) as server:
        await write(server, place.uploader_token, b"1", *headers)
    assert len(receiver.named(WRITE)) == calls
    assert bool(receiver.spans) == bool(calls), "a call that is not sampled has no spans below it"


async def test_a_failed_call_says_so(place: Place, receiver: OtlpReceiver) -> None:
    bearer = token(place, Role.DOWNLOADER, "FS", "no-such-secret")
    async with (
        serving(traced(config_of(place), receiver.address)) as server,
        open_client(server.grpc, bearer, insecure=True) as client,
    ):
        with pytest.raises(RpcError):
            await client.describe(Digest.of(b"x"))
    assert receiver.only("cas.v1.ResourceService/Describe").attributes["rpc.grpc.status_code"] == 9
    assert receiver.only("secret.read").failed


async def test_an_endpoint_that_is_down_costs_spans_and_nothing_else(place: Place, log_lines: io.StringIO) -> None:
    async with serving(traced(config_of(place), f"127.0.0.1:{free_port()}")) as server:
        for number in range(50):
            await write(server, place.uploader_token, b"%d" % number)
    logged = [json.loads(line) for line in log_lines.getvalue().splitlines()]
    assert [line["code"] for line in logged if line["event"] == "call"] == ["OK"] * 50
    assert len([line for line in logged if line["event"] == "traces_lost"]) <= 1


@pytest.mark.parametrize("propagate", [False, True])
async def test_other_servers_hear_of_the_trace_only_when_that_is_switched_on(
    receiver: OtlpReceiver, propagate: bool
) -> None:
    async with (
        open_tracing(TracingSettings(receiver.address, insecure=True, propagate=propagate)) as tracing,
        open_pool(_dial_loopback) as pool,
        trio.open_nursery() as nursery,
    ):
        heads: list[bytes] = []

        async def answer(stream: trio.SocketStream) -> None:
            heads.append(await stream.receive_some(10_000))
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with tracing.begin_call("call", {"traceparent": SAMPLED, "baggage": "tenant=secret"}, {}):
            async with pool.send(Request("GET", Url(Origin("http", "127.0.0.1", port), "/v2/?t=token"))):
                pass
        nursery.cancel_scope.cancel()
    request = receiver.only("GET")
    header = f"traceparent: 00-{TRACE}-{request.id}-01".encode()
    assert (header in heads[0].lower()) == propagate
    assert b"baggage" not in heads[0].lower()
    assert "token" not in str(request.attributes)


async def _dial_loopback(origin: Origin) -> trio.SocketStream:
    return await trio.open_tcp_stream(origin.host, origin.port)
