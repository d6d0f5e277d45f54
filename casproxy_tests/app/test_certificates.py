"""A certificate that is renewed under a running server, on both ports: nothing in flight notices."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
import trio
from cryptography import x509

from casproxy._proto.google.bytestream import bytestream_pb2
from casproxy.client import open_client
from casproxy.config import Config
from casproxy.config.model import TlsConfig
from casproxy.dev.place import Place
from casproxy.digest import Digest
from casproxy.rpc.channel import open_channel
from casproxy.rpc.errors import RpcError
from casproxy.tls import TlsStream
from casproxy.wire.metadata import Metadata
from casproxy.wire.status import StatusCode
from casproxy_tests.app.serving import Serving, config_of, place_at, serving
from casproxy_tests.real.certificates import Identity, client_context, new_authority, new_localhost
from casproxy_tests.real.projected import Projected

WRITE = "/google.bytestream.ByteStream/Write"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_at(tmp_path) as made:
        yield made


def pair(identity: Identity) -> dict[str, bytes]:
    return {"tls.crt": identity.certificate_pem, "tls.key": identity.key_pem}


def with_tls(config: Config, mount: Projected, client_ca: Path | None = None) -> Config:
    """Both ports with the certificate of ``mount``. ``client_ca``: for clients that show one of its CAs."""
    tls = TlsConfig(certificate=mount / "tls.crt", private_key=mount / "tls.key", client_ca_file=client_ca)
    server = config.server
    ports = {name: msgspec.structs.replace(getattr(server, name), tls_config=tls) for name in ("grpc", "http")}
    return msgspec.structs.replace(config, server=msgspec.structs.replace(server, **ports))


def context(*alpn: str) -> ssl.SSLContext:
    made = client_context()
    if alpn:
        made.set_alpn_protocols(list(alpn))
    return made


async def connect(address: str, *alpn: str) -> TlsStream:
    host, _, port = address.rpartition(":")
    stream = TlsStream(await trio.open_tcp_stream(host, int(port)), context(*alpn), server_hostname="localhost")
    await stream.handshake()
    return stream


async def shown(address: str) -> int:
    """The serial number of the certificate that a new client sees."""
    async with await connect(address, "h2") as stream:
        der = stream._tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


async def until_shown(server: Serving, identity: Identity) -> None:
    with trio.fail_after(30):
        for address in (server.grpc, server.http):
            while await shown(address) != identity.certificate.serial_number:  # noqa: ASYNC110 - files are looked at
                await trio.sleep(0.1)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


async def scrape(server: Serving) -> str:
    async with httpx.AsyncClient(trust_env=False, verify=client_context()) as client:
        return (await client.get(f"http://{server.metrics}/metrics")).text


def request(digest: Digest, data: bytes, *, finish: bool) -> bytes:
    return bytestream_pb2.WriteRequest(resource_name=str(digest), data=data, finish_write=finish).SerializeToString()


async def test_a_renewed_certificate_drops_no_call(place: Place, tmp_path: Path) -> None:
    first, second = new_localhost(), new_localhost()
    mount = Projected(tmp_path / "server-certs", pair(first))
    digest = Digest.of(b"begun under the first, ended under the second")
    async with serving(with_tls(config_of(place), mount)) as server:
        await until_shown(server, first)
        token = Metadata([("authorization", f"Bearer {place.uploader_token}")])
        port = port_of(server.grpc)
        async with (
            open_channel("localhost", port, tls=context("h2")) as channel,
            channel.call(WRITE, metadata=token) as call,
            httpx.AsyncClient(verify=client_context(), trust_env=False) as browser,
        ):
            await call.send_message(request(digest, b"begun under the first, ", finish=False))
            infoz = f"https://localhost:{server.http.rpartition(':')[2]}/infoz"
            old = (await browser.get(infoz)).extensions["network_stream"]

            mount.replace(pair(second))
            await until_shown(server, second)

            await call.send_message(request(digest, b"ended under the second", finish=True))
            answer = await call.receive_message()
            assert answer is not None and bytestream_pb2.WriteResponse.FromString(answer).committed_size == 45
            assert (await browser.get(infoz)).extensions["network_stream"] is old
        async with open_client(f"localhost:{port}", place.downloader_token, tls=context("h2")) as client:
            assert (await client.describe(digest)).size == 45
        metrics = await scrape(server)
    ends = f"{second.certificate.not_valid_after_utc.timestamp():.9g}"
    for setting in ("server.grpc.tls_config", "server.http.tls_config"):
        label = f'{{setting="{setting}"}}'
        assert f"casproxy_tls_certificate_age_seconds{label}" in metrics
        line = next(line for line in metrics.splitlines() if f"expiry_timestamp_seconds{label}" in line)
        assert f"{float(line.split()[-1]):.9g}" == ends


@pytest.mark.parametrize("alpn", [("http/1.1",), ()], ids=["http/1.1", "none"])
async def test_whoever_does_not_ask_for_h2_is_told_so(alpn: tuple[str, ...], place: Place, tmp_path: Path) -> None:
    mount = Projected(tmp_path / "server-certs", pair(new_localhost()))
    async with serving(with_tls(config_of(place), mount)) as server:
        async with await connect(server.grpc, *alpn) as stream:
            said = b""
            while part := await stream.receive_some():
                said += part
        assert said.startswith(b"HTTP/1.1 505 ") and b"by ALPN as h2" in said
        metrics = await scrape(server)
        assert 'casproxy_limit_reached_total{limit="tls_handshake"} 1.0' in metrics


async def test_a_refused_client_is_told_why_every_time(place: Place, tmp_path: Path) -> None:
    """TLS 1.3 refuses after the client's handshake, while its first bytes are under way and its writes fail."""
    mount = Projected(tmp_path / "server-certs", pair(new_localhost()))
    clients = tmp_path / "clients.pem"
    clients.write_bytes(new_authority("clients").certificate_pem)
    async with serving(with_tls(config_of(place), mount, clients)) as server:
        for _ in range(50):
            async with open_channel("localhost", port_of(server.grpc), tls=context("h2")) as channel:
                with pytest.raises(RpcError, match="CERTIFICATE_REQUIRED") as caught:
                    await channel.unary("/test.Any/Call", bytes(100_000))
            assert caught.value.code is StatusCode.UNAVAILABLE
            assert isinstance(caught.value.__cause__, ssl.SSLError)
