"""The HTTP port in a test's own event loop: the real application, protocols and sockets over a store that may fail."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import trio
from prometheus_client import CollectorRegistry

from casproxy.auth.claims import Claims, Role
from casproxy.auth.keys import StaticKeys, parse_pem
from casproxy.auth.mint import generate_keypair, mint
from casproxy.auth.verifier import Verifier
from casproxy.digest import Digest
from casproxy.errors import BackendNotFound, SecretError
from casproxy.pipeline.api import Limits
from casproxy.storage.api import Backend, NewResource, Tenant
from casproxy.storage.memory import MemoryBackend
from casproxy.storage.oci.staging import Staging
from casproxy.web.port import Dependencies, PortSettings, http_app
from casproxy.web.server import HttpSettings, serve_http
from casproxy.wire.budget import Budget
from casproxy_tests.cas import PLAIN
from casproxy_tests.fakes.faulty_backend import Fault, FaultyBackend

SECRET_ID = "tenant/one"
ORIGIN = "https://app.example"


@cache
def _keys() -> tuple[bytes, bytes]:
    return generate_keypair()


def token(role: Role = Role.DOWNLOADER, *, backend: str = "FS", max_bytes: int = 0, lifetime: float = 600) -> str:
    claims = Claims(role, SECRET_ID, backend, "org", max_bytes=max_bytes, expires_at=time.time() + lifetime)
    return mint(_keys()[0], claims, now=time.time())


def bearer(role: Role = Role.DOWNLOADER, **claims: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {token(role, **claims)}"}


class Resolver:
    """A ``BackendResolver`` with one store; ``secret_error`` stands for a secret source in trouble."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.secret_error: SecretError | None = None

    async def resolve(self, tenant: Tenant) -> Backend:
        await trio.lowlevel.checkpoint()
        if tenant.backend_type != "FS":
            raise BackendNotFound(tenant.backend_type)
        if self.secret_error is not None:
            raise self.secret_error
        return self.backend

    def backend_types(self) -> list[str]:
        return ["FS"]


@dataclass(slots=True)
class World:
    """A running port. ``not_ready`` and ``draining`` may be changed at any time."""

    store: FaultyBackend
    resolver: Resolver
    staging: Staging
    registry: CollectorRegistry
    stop: trio.Event
    budget: Budget
    port: int = 0
    not_ready: str = ""
    draining: bool = False
    limits_reached: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def put(self, content: bytes, name: str = "artifact.bin") -> Digest:
        """Store an artifact behind the port's back."""
        digest = Digest.of(content)
        async with self.store.inner.ingest(NewResource(digest, name)) as ingest:
            for start in range(0, len(content), 1024 * 1024):
                await ingest.write(content[start : start + 1024 * 1024])
            await ingest.commit(digest, len(content))
        return digest

    async def stored(self, digest: Digest) -> bytes:
        """What the store has."""
        async with self.store.inner.read(digest) as reader:
            content = b""
            while piece := await reader.receive():
                content += piece
            return content

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(base_url=self.url, verify=PLAIN, trust_env=False, timeout=30, **options) as client:
            yield client

    async def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> httpx.Response:
        async with self.client() as client:
            return await client.request(method, path, headers=headers)


async def until(condition: Callable[[], bool]) -> None:
    """Let the port, which works in the same loop, go on until ``condition`` is true."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - what is waited for is a number in the port, not an event
            await trio.sleep(0.001)


@asynccontextmanager
async def world(
    *faults: Fault,
    backend: Backend | None = None,
    limits: Limits | None = None,
    http: HttpSettings | None = None,
    memory_budget: int = 1 << 28,
    staging_dir: Path | None = Path("/tmp"),
    staging_quota: int = 64 << 20,
    **settings: Any,
) -> AsyncIterator[World]:
    """A port that accepts; stopped at the end, so that the block ends only when nothing is left."""
    store = FaultyBackend(MemoryBackend() if backend is None else backend, *faults)
    staging = Staging(staging_dir, staging_quota)
    made = World(store, Resolver(store), staging, CollectorRegistry(), trio.Event(), Budget(memory_budget))
    dependencies = Dependencies(
        verifier=Verifier(StaticKeys(parse_pem(_keys()[1], origin="test"))),
        backends=made.resolver,
        limits=limits or Limits(),
        accounts=made.budget,
        staging=staging,
        registry=made.registry,
        version="1.2.3",
        chart_version="",
        not_ready=lambda: made.not_ready,
        draining=lambda: made.draining,
        on_limit=made.limits_reached.append,
    )
    app = http_app(dependencies, PortSettings(**{"uploads": True, "ui": True} | settings))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    made.port = listener.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_http, app, listener, made.stop, http or HttpSettings())
        yield made
        made.stop.set()
    assert store.open_readers == 0 and store.open_ingests == 0
    assert staging.reserved == 0
