"""The composition root: start-up, readiness, drain, TLS, and what every call leaves in log and metrics."""

from __future__ import annotations

import datetime
import io
import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from casproxy._proto.google.bytestream import bytestream_pb2
from casproxy.app import App
from casproxy.client import open_client
from casproxy.config import Config
from casproxy.config.model import Fs, Storage, TlsConfig
from casproxy.dev.place import ORG_ID, Place
from casproxy.digest import Digest
from casproxy.errors import ConfigError
from casproxy.gob import encode_resource_name
from casproxy.observe import log
from casproxy.ports import open_ports
from casproxy.rpc.channel import open_channel
from casproxy.rpc.errors import RpcError
from casproxy.wire.metadata import Metadata
from casproxy.wire.status import StatusCode
from casproxy_tests.app.serving import Serving, config_of, place_at, serving
from casproxy_tests.cancellation.harness import Run, cancel_everywhere
from casproxy_tests.cas import PLAIN

WRITE = "/google.bytestream.ByteStream/Write"
INFOZ = "/cas.v1.StatusService/Infoz"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_at(tmp_path) as made:
        yield made


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    out = io.StringIO()
    log.configure("debug", "json", out)
    yield out
    structlog.reset_defaults()


async def get(address: str, path: str) -> httpx.Response:
    async with httpx.AsyncClient(verify=PLAIN, trust_env=False) as client:
        return await client.get(f"http://{address}{path}")


def calls(out: io.StringIO) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, out.getvalue().splitlines()) if line["event"] == "call"]


async def metric(server: Serving, name: str, **labels: str) -> float:
    text = (await get(server.metrics, "/metrics")).text
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    [line] = [
        line for line in text.splitlines() if line.startswith(f"{name}{{") and all(label in line for label in wanted)
    ]
    return float(line.rsplit(" ", 1)[1])


# -- start-up ---------------------------------------------------------------------------------------


async def test_an_artifact_goes_up_and_comes_back(place: Place) -> None:
    received = bytearray()

    async def keep(piece: memoryview) -> None:
        received.extend(piece)

    async with serving(config_of(place)) as server:
        async with open_client(server.grpc, place.uploader_token, insecure=True) as client:
            uploaded = await client.upload(b"first light", name="light.txt")
        async with open_client(server.grpc, place.downloader_token, insecure=True) as client:
            resource = await client.download(uploaded.digest, keep)
    assert received == b"first light"
    assert resource.file_name == "light.txt"


async def test_what_cannot_start_says_so_and_leaves_nothing(place: Place) -> None:
    config = config_of(place)
    plain_file = place.root / "file"
    plain_file.write_text("not a directory")
    broken = msgspec.structs.replace(config, storage=Storage(fs=Fs(root=plain_file)))
    with pytest.raises(ConfigError, match=r"storage\.fs\.root"), open_ports(broken) as ports:
        await App(broken).serve(ports)


async def test_cancelled_at_every_await_of_its_life_it_leaves_nothing(place: Place) -> None:
    config = config_of(place)

    async def live() -> None:
        async with serving(config) as server:
            assert server.app.readiness.ready

    async def check(run: Run[None]) -> None:
        assert os.listdir(place.root / "store/.staging") == ["lock"], run

    assert await cancel_everywhere(live, check) > 10


# -- readiness and drain ----------------------------------------------------------------------------


async def test_readiness_flips_first_and_is_told_until_the_last_call_has_ended(place: Place) -> None:
    content = b"slow but welcome"
    name = encode_resource_name("slow.txt", Digest.of(content))
    async with serving(config_of(place)) as server, open_client(server.grpc, insecure=True) as bystander:
        assert (await get(server.http, "/statusz?readiness=1")).status_code == 200
        await bystander.statusz(readiness=True)
        async with (
            connection(server.grpc) as channel,
            channel.call(WRITE, metadata=bearer(place.uploader_token)) as call,
        ):
            await call.send_message(write_request(name, content[:4]))
            await call_is_running(server)
            server.app.drain()
            assert (await get(server.http, "/statusz?readiness=1")).status_code == 503
            assert (await get(server.http, "/statusz")).status_code == 200
            await call.send_message(write_request(name, content[4:], finish=True))
            await call.half_close()
            assert await call.receive_message() is not None
    host, _, port = server.grpc.rpartition(":")
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream(host, int(port))


async def test_draining_twice_is_draining_once(place: Place) -> None:
    async with serving(config_of(place)) as server:
        server.app.drain()
        server.app.drain()


# -- TLS --------------------------------------------------------------------------------------------


def self_signed(directory: Path) -> TlsConfig:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    tls = TlsConfig(certificate=directory / "cert.pem", private_key=directory / "key.pem")
    tls.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    tls.private_key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return tls


def with_tls(config: Config, tls: TlsConfig) -> Config:
    grpc = msgspec.structs.replace(config.server.grpc, tls_config=tls)
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, grpc=grpc))


async def test_tls(place: Place, tmp_path: Path) -> None:
    tls = self_signed(tmp_path)
    context = ssl.create_default_context(cafile=str(tls.certificate))
    context.set_alpn_protocols(["h2"])
    async with serving(with_tls(config_of(place), tls)) as server:
        address = f"localhost:{server.grpc.rpartition(':')[2]}"
        async with open_client(address, place.uploader_token, tls=context) as client:
            assert (await client.upload(b"over TLS")).size == 8
        old = ssl.create_default_context(cafile=str(tls.certificate))
        old.set_alpn_protocols(["h2"])
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        async with open_client(address, place.uploader_token, tls=old) as client:
            with pytest.raises((ssl.SSLError, RpcError, trio.BrokenResourceError)):
                await client.infoz(timeout=5)


# -- what a call leaves behind ----------------------------------------------------------------------


def bearer(token: str, *more: tuple[str, str]) -> Metadata:
    return Metadata([("authorization", f"Bearer {token}"), *more])


def write_request(name: str, data: bytes, *, finish: bool = False) -> bytes:
    return bytestream_pb2.WriteRequest(resource_name=name, data=data, finish_write=finish).SerializeToString()


def connection(address: str) -> Any:
    host, _, port = address.rpartition(":")
    return open_channel(host, int(port))


async def call_is_running(server: Serving) -> None:
    """Return when the server counts a Write as started."""
    while await metric(server, "grpc_server_started_total", grpc_method="Write") == 0:
        await trio.lowlevel.checkpoint()


async def test_a_call_is_one_line_with_everything_an_operator_asks_for(place: Place, log_lines: io.StringIO) -> None:
    content = b"x" * 1000
    async with (
        serving(config_of(place)) as server,
        open_client(server.grpc, place.uploader_token, insecure=True) as client,
    ):
        await client.upload(content)
    [line] = calls(log_lines)
    assert line["method"] == "google.bytestream.ByteStream/Write"
    assert line["code"] == "OK"
    assert line["peer"].startswith("127.0.0.1:")
    assert (line["org"], line["role"], line["backend"]) == (ORG_ID, "uploader", "FS")
    assert line["digest"] == str(Digest.of(content))
    assert line["bytes"] > len(content)
    assert line["seconds"] > 0
    assert len(line["request_id"]) == 16
    assert place.uploader_token not in log_lines.getvalue()


async def test_a_refused_call_is_logged_without_a_caller(place: Place, log_lines: io.StringIO) -> None:
    async with serving(config_of(place)) as server, open_client(server.grpc, insecure=True) as client:
        with pytest.raises(RpcError) as refused:
            await client.describe(Digest.of(b""))
    assert refused.value.code is StatusCode.UNAUTHENTICATED
    [line] = calls(log_lines)
    assert line["code"] == "UNAUTHENTICATED"
    assert "org" not in line


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2_3", True), ("a b", False), ("x" * 65, False), ("é", False)])
async def test_a_harmless_request_id_is_kept(place: Place, log_lines: io.StringIO, given: str, kept: bool) -> None:
    async with serving(config_of(place)) as server, connection(server.grpc) as channel:
        metadata = Metadata([("x-request-id", given)]) if given.isascii() else Metadata()
        await channel.unary(INFOZ, b"", metadata=metadata)
    [line] = calls(log_lines)
    assert (line["request_id"] == given) == kept


async def test_calls_are_counted_by_method_and_code(place: Place) -> None:
    describe = {"grpc_service": "cas.v1.ResourceService", "grpc_method": "Describe", "grpc_type": "unary"}
    write = {"grpc_service": "google.bytestream.ByteStream", "grpc_method": "Write", "grpc_type": "client_stream"}
    async with serving(config_of(place)) as server:
        assert await metric(server, "grpc_server_handled_total", grpc_code="NotFound", **describe) == 0
        async with open_client(server.grpc, place.uploader_token, insecure=True) as client:
            with pytest.raises(RpcError):
                await client.describe(Digest.of(b"nowhere"))
            await client.upload(b"y" * 5000)
        assert await metric(server, "grpc_server_handled_total", grpc_code="NotFound", **describe) == 1
        assert await metric(server, "grpc_server_handled_total", grpc_code="OK", **write) == 1
        assert await metric(server, "grpc_server_handling_seconds_count", **write) == 1
        assert await metric(server, "grpc_server_msg_received_total", **write) >= 1
        assert await metric(server, "grpc_server_msg_sent_total", **write) == 1
        assert await metric(server, "casproxy_message_bytes_total", direction="in", backend="FS") > 5000


async def test_a_call_given_up_by_its_client_is_cancelled(place: Place, log_lines: io.StringIO) -> None:
    name = encode_resource_name("x", Digest.of(b"never"))
    async with (
        serving(config_of(place)) as server,
        connection(server.grpc) as channel,
        channel.call(WRITE, metadata=bearer(place.uploader_token)) as call,
    ):
        await call.send_message(write_request(name, b"ne"))
        await call_is_running(server)
    assert [line["code"] for line in calls(log_lines)] == ["CANCELLED"]
