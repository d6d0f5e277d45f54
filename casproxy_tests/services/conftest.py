"""What the tests of the services share: a store behind a resolver, and calls with the right claims."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio

from casproxy.auth.claims import Claims, Role
from casproxy.digest import Digest
from casproxy.pipeline.api import Limits
from casproxy.rpc.api import Method, MethodInfo
from casproxy.rpc.errors import RpcError
from casproxy.services.errors import error_interceptor
from casproxy.services.readiness import Readiness
from casproxy.services.registry import Dependencies, methods
from casproxy.storage.api import Backend, NewResource, Tenant
from casproxy.storage.memory import MemoryBackend
from casproxy.wire.budget import Budget
from casproxy_tests.fakes.call import FakeCall
from casproxy_tests.fakes.faulty_backend import FaultyBackend


@dataclass
class Resolver:
    """A ``BackendResolver`` with one store for everybody; remembers who asked."""

    backend: Backend
    error: Exception | None = None
    stall: bool = False
    asked: list[Tenant] = field(default_factory=list)

    async def resolve(self, tenant: Tenant) -> Backend:
        self.asked.append(tenant)
        await trio.lowlevel.checkpoint()
        if self.stall:
            await trio.sleep_forever()
        if self.error is not None:
            raise self.error
        return self.backend

    def backend_types(self) -> list[str]:
        return ["OCI", "FS"]


@dataclass
class Services:
    """Everything that is served, on one store."""

    memory: MemoryBackend = field(default_factory=MemoryBackend)
    limits: Limits = field(default_factory=Limits)
    readiness: Readiness = field(default_factory=Readiness)
    budget: Budget = field(default_factory=lambda: Budget(1 << 28))

    def __post_init__(self) -> None:
        self.backend = FaultyBackend(self.memory)
        self.resolver = Resolver(self.backend)
        self.readiness.started()
        self.methods: dict[MethodInfo, Method] = {
            method.info: method
            for method in methods(
                Dependencies(
                    self.resolver,
                    self.limits,
                    self.budget,
                    version="1.2.3",
                    chart_version="4.5",
                    readiness=self.readiness,
                )
            )
        }

    async def put(self, data: bytes, name: str = "stored") -> Digest:
        """Store directly."""
        digest = Digest.of(data)
        async with self.memory.ingest(NewResource(digest, name)) as ingest:
            await ingest.write(data)
            await ingest.commit(digest, len(data))
        return digest

    async def get(self, digest: Digest) -> bytes:
        """What is stored, read directly."""
        found = b""
        async with self.memory.read(digest) as reader:
            while piece := await reader.receive():
                found += piece
        return found

    def call(
        self, info: MethodInfo, *, role: Role | None = None, max_bytes: int = 0, window: int = 1 << 20
    ) -> FakeCall:
        """A call of ``info`` whose token was found good."""
        call = FakeCall(info, window=window)
        call.attach(Claims(role or Role.UPLOADER, secret_id="secret", backend="OCI", org_id="org", max_bytes=max_bytes))
        return call

    async def serve(self, call: FakeCall) -> RpcError | None:
        """Run the call to its end, as the server does; returns its status when that is not OK."""
        intercept = error_interceptor()
        try:
            await call.run(lambda served: intercept(served, self.methods[call.info].handler))
        except RpcError as error:
            return error
        return None

    async def ask(
        self, info: MethodInfo, request: bytes, *, role: Role | None = None
    ) -> tuple[FakeCall, RpcError | None]:
        """One request there, whatever comes back."""
        call = self.call(info, role=role)
        call.client_push_message(request)
        call.client_half_close()
        return call, await self.serve(call)


@pytest.fixture
def services() -> Services:
    return Services()
