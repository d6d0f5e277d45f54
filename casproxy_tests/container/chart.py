"""Owns what the chart gives its container: mounts, files, user, limits, environment; and real counterparts behind them.

OpenBao holds the tenants' secrets, and a registry with TLS, whose CA only ``/etc/pki/tls/certs`` knows, the artifacts.
Refuses to know runc.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trio

from casproxy.auth.claims import Claims, Role
from casproxy.auth.mint import generate_keypair, mint
from casproxy_tests.cas import PLAIN
from casproxy_tests.container.build import Image
from casproxy_tests.container.runc import Container, Settings, running_container
from casproxy_tests.real.certificates import authority, client_context, localhost
from casproxy_tests.real.openbao import OpenBao
from casproxy_tests.real.process import free_port
from casproxy_tests.real.registry import Access, RealRegistry, running_registry

MEMORY = 384 << 20
CPUS = 0.375
CHART_VERSION = "1.99.0"
_PREFIX = "chainloop"
_ORG_ID = "00000000-0000-4000-8000-000000000001"
_READY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Pod:
    """A container that is ready. ``seconds``: from its start until a readiness probe passed."""

    container: Container
    registry: RealRegistry
    grpc: int
    http: int
    metrics: int
    uploader: str
    downloader: str
    seconds: float

    @property
    def tls(self) -> ssl.SSLContext:
        """For gRPC: HTTP/2 by ALPN, the CA of the tests."""
        context = client_context()
        context.set_alpn_protocols(["h2"])
        return context

    async def get(self, path: str, *, port: int | None = None) -> httpx.Response:
        async with httpx.AsyncClient(verify=PLAIN, trust_env=False) as client:
            return await client.get(f"http://127.0.0.1:{port or self.http}{path}")


@dataclass(frozen=True, slots=True)
class Chart:
    """What is the same for each container of a deployment: its files, ports and counterparts."""

    image: Image
    directory: Path
    settings: Settings
    ports: Mapping[str, int]
    registry: RealRegistry
    tokens: Mapping[Role, str]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Pod]:
        """A container; drained at the end, and then its exit code is 0."""
        began = time.monotonic()
        with running_container(self.image, self.directory, self.settings) as container:
            await _until_ready(container, self.ports["http"])
            yield Pod(
                container=container,
                registry=self.registry,
                grpc=self.ports["grpc"],
                http=self.ports["http"],
                metrics=self.ports["http_metrics"],
                uploader=self.tokens[Role.UPLOADER],
                downloader=self.tokens[Role.DOWNLOADER],
                seconds=time.monotonic() - began,
            )
            code = await trio.to_thread.run_sync(container.stop)
            assert code == 0, container.log.read_text()[-3000:]


@asynccontextmanager
async def installed(image: Image, directory: Path, openbao: OpenBao, *, cpus: float = 0.0) -> AsyncIterator[Chart]:
    """The image as the chart would run it, again and again. ``cpus`` 0: no limit."""
    private, public = generate_keypair()
    ports = {name: free_port() for name in ("grpc", "http", "http_metrics")}
    async with running_registry(directory / "registry", Access.BEARER_TLS) as registry:
        secret = {"Repo": f"{registry.host}/pod", "Username": "alice", "Password": "alices-password"}
        await trio.to_thread.run_sync(openbao.ask, "POST", f"secret/data/{_PREFIX}/tenant", {"data": secret})
        mounts = _mounts(directory, _server_yaml(ports), _secret_yaml(openbao), public)
        settings = Settings(mounts, {"CHART_VERSION": CHART_VERSION}, MEMORY, cpus)
        yield Chart(image, directory, settings, ports, registry, {role: _token(private, role) for role in Role})


@asynccontextmanager
async def running_pod(image: Image, directory: Path, openbao: OpenBao, *, cpus: float = 0.0) -> AsyncIterator[Pod]:
    """One container of it."""
    async with installed(image, directory, openbao, cpus=cpus) as chart, chart.running() as pod:
        yield pod


def _mounts(directory: Path, server: object, secret: object, public_key: bytes) -> dict[str, Path]:
    certificate = localhost()
    files: dict[str, dict[str, bytes]] = {
        "/data/conf": {"server.yaml": _yaml(server), "config.secret.yaml": _yaml(secret)},
        "/tmp": {"cas.public.pem": public_key},
        "/data/server-certs": {"tls.crt": certificate.certificate_pem, "tls.key": certificate.key_pem},
        "/etc/pki/tls/certs": {"custom-ca.pem": authority().certificate_pem},
    }
    return {at: _projected(directory / at.strip("/").replace("/", "-"), content) for at, content in files.items()}


def _projected(directory: Path, files: dict[str, bytes]) -> Path:
    """As kubelet writes a volume: a dated directory, ``..data`` that leads to it, and a link for each file."""
    dated = directory / "..2026_01_02_03_04_05.000000000"
    dated.mkdir(parents=True)
    (directory / "..data").symlink_to(dated.name)
    for name, content in files.items():
        (dated / name).write_bytes(content)
        (dated / name).chmod(0o644)
        (directory / name).symlink_to(Path("..data", name))
    return directory


def _server_yaml(ports: dict[str, int]) -> dict[str, Any]:
    server: dict[str, Any] = {name: {"addr": f"0.0.0.0:{port}"} for name, port in ports.items()}
    server["http"]["timeout"] = "300s"
    certs = "/data/server-certs"
    server["grpc"]["tls_config"] = {"certificate": f"{certs}/tls.crt", "private_key": f"{certs}/tls.key"}
    return {
        "server": server,
        "auth": {"public_key_path": "/tmp/cas.public.pem"},
        "outbound": {"allow": ["127.0.0.0/8"]},  # the one line of ours: the registry is on the loopback
    }


def _secret_yaml(openbao: OpenBao) -> dict[str, Any]:
    vault = {"address": f"http://127.0.0.1:{openbao.port}", "token": openbao.root_token, "mount_path": "secret"}
    return {"credentials_service": {"secret_prefix": _PREFIX, "vault": vault}}


def _yaml(content: object) -> bytes:
    return json.dumps(content, indent=1).encode()  # JSON is YAML


def _token(private: bytes, role: Role) -> str:
    now = time.time()
    claims = Claims(role, f"{_PREFIX}/tenant", "OCI", _ORG_ID, expires_at=now + 24 * 3600)
    return mint(private, claims, now=now)


async def _until_ready(container: Container, port: int) -> None:
    with trio.move_on_after(_READY_SECONDS):
        async with httpx.AsyncClient(verify=PLAIN, trust_env=False) as client:
            while not await _passes(client, f"http://127.0.0.1:{port}/statusz?readiness=1"):
                assert container.process.poll() is None, container.log.read_text()[-3000:]
                await trio.sleep(0.01)
        return
    raise AssertionError(f"not ready after {_READY_SECONDS} s: {container.log.read_text()[-3000:]}")


async def _passes(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False
