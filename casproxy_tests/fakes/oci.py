"""Owns the way the tests open the OCI backend: as one process would, with loopback allowed and the tests' CA believed.

::

    async with open_process() as process:
        backend = process.backend(registry.host, "alice", "alices-password")
        ...
        process.forget_connections()      # nothing is lent: what is open after this is a leak
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from casproxy.errors import SecretNotFound
from casproxy.outbound.dial import guarded_dial
from casproxy.outbound.guard import LOOPBACK, Guard
from casproxy.outbound.message import DEFAULT_TIMEOUTS, Timeouts
from casproxy.secrets.api import Secret
from casproxy.storage.api import Backend, Tenant
from casproxy.storage.oci.retry import RetrySettings
from casproxy.storage.oci.stores import OciSettings, OciStores, open_oci
from casproxy.storage.stack import Stack

QUICK = Timeouts(connect=2.0, write=2.0, answer=2.0, read=2.0)
"""Patience of tests by the real clock."""


@dataclass(slots=True)
class OciProcess:
    """What one ``casproxy`` process shares between its tenants. A ``BackendResolver`` of ``secrets``, by secret id."""

    stores: OciStores
    secrets: dict[str, Secret] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    """Secret ids whose secret a registry refused, so that it is read again."""
    stack: Stack = field(init=False)

    def __post_init__(self) -> None:
        self.stack = Stack(self.read_secret, {"OCI": self.open}, drop_secret=self.refused.append)

    def backend(
        self, host: str, username: str = "anybody", password: str = "anything", path: str = "acme/cas"
    ) -> Backend:
        """A tenant's store at ``host``."""
        return self.stores.backend(secret(host, username, password, path))

    async def resolve(self, tenant: Tenant) -> Backend:
        return await self.stack.resolve(tenant)

    async def read_secret(self, secret_id: str) -> Secret:
        await trio.lowlevel.checkpoint()
        if secret_id not in self.secrets:
            raise SecretNotFound(secret_id)
        return self.secrets[secret_id]

    def open(self, secret: Secret, tenant: Tenant) -> Backend:
        return self.stores.backend(secret)

    def backend_types(self) -> list[str]:
        return ["OCI"]

    @property
    def lent(self) -> int:
        """Connections in an exchange."""
        return self.stores.pool.lent

    def forget_connections(self) -> None:
        """Close what is kept for later; nothing may be in an exchange."""
        assert self.lent == 0, "a connection is still in an exchange"
        self.stores.pool.close()


def secret(host: str, username: str, password: str, path: str = "acme/cas") -> Secret:
    return Secret({"Repo": f"{host}/{path}", "Username": username, "Password": password})


@asynccontextmanager
async def open_process(
    *,
    tls: ssl.SSLContext | None = None,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    retry: RetrySettings | None = None,
    staging_dir: Path | None = None,
    staging_quota: int = 1024**3,
    own_ports: tuple[int, ...] = (),
    secrets: Mapping[str, Secret] | None = None,
) -> AsyncIterator[OciProcess]:
    """One process for the block."""
    settings = OciSettings(
        own_ports=own_ports,
        staging_dir=staging_dir,
        staging_quota=staging_quota,
        timeouts=timeouts,
        retry=retry or RetrySettings(),
    )
    dial = guarded_dial(
        Guard(LOOPBACK, own_ports), tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), timeout=timeouts.connect
    )
    async with open_oci(settings, dial=dial) as stores:
        yield OciProcess(stores, dict(secrets or {}))
