"""Owns ``casproxy config check --live``: one line per tenant, whether login, pull and push work. Leaves nothing behind.

Login is not a request of its own: it works if the store answered anything but a refusal of the credentials.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from casproxy.app import oci_settings
from casproxy.config import Config
from casproxy.digest import Digest
from casproxy.errors import (
    ArtifactNotFound,
    BackendRefused,
    CasproxyError,
    ConfigError,
    LookupRefused,
)
from casproxy.secrets.resolve import open_checked_source, source_name
from casproxy.storage.api import Backend, BackendResolver, Tenant
from casproxy.storage.stack import OCI, open_stack
from casproxy.trust import TrustStore, open_trust

_PROBE: Final = Digest.of(b"casproxy config check --live")
_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A line for the operator, and whether it is good news."""

    text: str
    good: bool


def parse_tenant(text: str) -> Tenant:
    """``BACKEND:SECRET_ID``, or ``SECRET_ID`` alone for OCI."""
    backend, colon, secret_id = text.partition(":")
    return Tenant(backend, secret_id) if colon else Tenant(OCI, text)


async def check_live(config: Config, tenants: Sequence[Tenant]) -> list[Finding]:
    """Ask the secret source, then each tenant's store, all at once. Raises nothing but cancellation."""
    name = f"credentials_service.{source_name(config.credentials_service)}"
    try:
        with open_trust(config.outbound.ca_file) as trust:
            return [Finding(f"{name}: ok", good=True), *await _check_stores(config, tenants, trust)]
    except CasproxyError as error:
        return [Finding(f"{name}: {error}" if not isinstance(error, ConfigError) else str(error), good=False)]


async def _check_stores(config: Config, tenants: Sequence[Tenant], trust: TrustStore) -> list[Finding]:
    oci = oci_settings(config, own_ports=(), trust=trust)
    async with (
        open_checked_source(config.credentials_service, trust) as source,
        open_stack(fs_root=config.storage.fs.root, read_secret=source.read, oci=oci) as stack,
    ):
        return await _check_all(stack, tenants)


async def _check_all(stack: BackendResolver, tenants: Sequence[Tenant]) -> list[Finding]:
    found: dict[int, Finding] = {}

    async def check(index: int, tenant: Tenant) -> None:
        found[index] = await _check(stack, tenant)

    async with trio.open_nursery() as nursery:
        for index, tenant in enumerate(tenants):
            nursery.start_soon(check, index, tenant)
    return [found[index] for index in range(len(tenants))]


async def _check(stack: BackendResolver, tenant: Tenant) -> Finding:
    name = f"{tenant.backend_type} {tenant.secret_id}"
    try:
        backend = await stack.resolve(tenant)
    except CasproxyError as error:
        return Finding(f"{name}: {error}", good=False)
    pull, push = await _tried(lambda: _pull(backend)), await _tried(backend.check_writable)
    refused = [error for error in (pull, push) if isinstance(error, BackendRefused)]
    if push is None:  # a registry may refuse to look where nothing was ever stored
        pull = None if isinstance(pull, LookupRefused) else pull
        login = "ok"
    else:
        login = "failed" if len(refused) == 2 else "ok" if pull is None else "unknown"
    text = f"{name}: login {login}, pull {_word(pull)}, push {_word(push)}"
    return Finding(text, good=pull is None and push is None)


async def _pull(backend: Backend) -> None:
    try:
        await backend.describe(_PROBE)
    except ArtifactNotFound:
        return


async def _tried(step: Callable[[], Awaitable[None]]) -> Exception | None:
    with trio.move_on_after(_SECONDS):
        try:
            await step()
        except CasproxyError as error:
            return error
        return None
    return CasproxyError(f"no answer within {_SECONDS:g} s")


def _word(error: Exception | None) -> str:
    return "ok" if error is None else f"failed ({error})"
