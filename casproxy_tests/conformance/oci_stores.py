"""Owns the OCI backend's entries in ``backends.BACKENDS``: in front of the fake registry, and of real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from casproxy.digest import Digest
from casproxy_tests.conformance.store import OpenStore, Store
from casproxy_tests.fakes.oci import OciProcess, open_process
from casproxy_tests.fakes.registry import serve_registry
from casproxy_tests.real.certificates import client_context
from casproxy_tests.real.registry import ACCOUNTS, Access, RealRegistry, running_registry
from casproxy_tests.soak import LONG

TOKEN_LIFETIME_SECONDS = 5
STRIDE = 9
"""The same awaits as in front of the fake registry, where each is cancelled."""
USER = "alice"


@asynccontextmanager
async def fake_registry_store(directory: Path) -> AsyncIterator[Store]:
    async with serve_registry() as registry, open_process() as process, open_process() as other:

        async def settle() -> None:
            process.forget_connections()
            other.forget_connections()
            await registry.server.settle_closed()

        def cut(digest: Digest) -> None:
            registry.cut(str(digest))

        yield Store(
            process.backend(registry.host),
            other.backend(registry.host),
            registry.store.visible,
            settle,
            lambda digest: registry.flip(str(digest)),
            cut=cut,
        )


def real_registry_store(access: Access) -> OpenStore:
    """A store in a real registry with this kind of access control."""

    @asynccontextmanager
    async def open_store(directory: Path) -> AsyncIterator[Store]:
        tls = client_context()
        async with (
            running_registry(directory, access, token_lifetime=TOKEN_LIFETIME_SECONDS) as registry,
            open_process(tls=tls) as process,
            open_process(tls=tls) as other,
        ):
            yield _store(registry, process, other)

    return open_store


def _store(registry: RealRegistry, process: OciProcess, other: OciProcess) -> Store:
    """Without ``cut``: what was asked for is in the kernel's buffers before anything could be taken away."""
    password = ACCOUNTS[USER].password
    settle: Callable[[], Awaitable[None]] = _settle(process, other)
    snapshot: Callable[[], Mapping[str, str]] = registry.visible

    def flip(digest: Digest) -> None:
        with open(registry.blob_path(str(digest)), "r+b") as file:
            first = file.read(1)
            file.seek(0)
            file.write(bytes([first[0] ^ 0xFF]))

    backends = (opened.backend(registry.host, USER, password) for opened in (process, other))
    return Store(next(backends), next(backends), snapshot, settle, flip, stride=1 if LONG else STRIDE)


def _settle(process: OciProcess, other: OciProcess) -> Callable[[], Awaitable[None]]:
    async def settle() -> None:
        await trio.lowlevel.checkpoint()
        process.forget_connections()
        other.forget_connections()

    return settle
