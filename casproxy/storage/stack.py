"""Owns the way from a verified token to an open store. Refuses to know how a store works; only this module names them.

::

    async with open_stack(fs_root=config.storage.fs.root, read_secret=secrets.read) as stack:   # the app's start
        backend = await stack.resolve(Tenant("FS", secret_id, org_id))                          # each call

A backend type is here only when it is configured. Opened backends are kept in an LRU under what entitles to them: type,
secret id, the fingerprint of the whole secret, organisation. A secret that changes therefore opens another backend.
Uploads of one artifact through the same backend share a flight (``wrappers/flights.py``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from casproxy.errors import BackendNotFound
from casproxy.secrets.api import Secret
from casproxy.storage.api import Backend, Tenant
from casproxy.storage.local.root import open_local_root
from casproxy.storage.oci.staging import Staging
from casproxy.storage.oci.stores import OciSettings, open_oci
from casproxy.storage.refusals import RefusalTeller
from casproxy.storage.wrappers.flights import SharedBackend

ReadSecret: TypeAlias = Callable[[str], Awaitable[Secret]]
"""``SecretSource.read``, cached and with a deadline of its own."""

DropSecret: TypeAlias = Callable[[str], object]
"""``SecretCache.drop``: a store refused the secret of this id, which may be old."""

BackendFactory: TypeAlias = Callable[[Secret, Tenant], Backend]
"""Opens a tenant's store without I/O. Errors: ``SecretMalformed``, ``BackendRefused``."""

FS: Final = "FS"
"""The backend type of a local directory."""
OCI: Final = "OCI"
"""The backend type of a container registry."""

_OPEN_BACKENDS: Final = 1024


class Stack:
    """The ``BackendResolver`` of the process."""

    def __init__(
        self,
        read_secret: ReadSecret,
        factories: Mapping[str, BackendFactory],
        *,
        capacity: int = _OPEN_BACKENDS,
        drop_secret: DropSecret | None = None,
    ) -> None:
        self._read_secret = read_secret
        self._drop_secret = drop_secret
        self._factories = dict(factories)
        self._capacity = capacity
        self._open: OrderedDict[tuple[str, str, str, str], Backend] = OrderedDict()

    def backend_types(self) -> list[str]:
        """See ``BackendResolver.backend_types``."""
        return sorted(self._factories)

    async def resolve(self, tenant: Tenant) -> Backend:
        """See ``BackendResolver.resolve``."""
        factory = self._factories.get(tenant.backend_type)
        if factory is None:
            raise BackendNotFound(tenant.backend_type)
        secret = await self._read_secret(tenant.secret_id)
        key = (tenant.backend_type, tenant.secret_id, secret.fingerprint, tenant.org_id)
        backend = self._open.get(key)
        if backend is None:
            backend = self._open[key] = SharedBackend(factory(secret, tenant))
            if len(self._open) > self._capacity:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        if self._drop_secret is None:
            return backend
        return RefusalTeller(backend, partial(self._drop_secret, tenant.secret_id))


@asynccontextmanager
async def open_stack(
    *,
    fs_root: Path | None,
    read_secret: ReadSecret,
    drop_secret: DropSecret | None = None,
    oci: OciSettings | None = None,
    staging: Staging | None = None,
) -> AsyncIterator[Stack]:
    """Open every configured place; leaving closes them. ``fs_root``, ``oci``: None when there is no such backend.

    ``drop_secret`` is told when a store refuses a tenant, so that the next call reads the secret again.
    ``staging`` is the process's one staging area. Entering creates ``fs_root`` if need be and sweeps what crashed
    uploads left there. Raises ``ConfigError``.
    """
    async with AsyncExitStack() as opened:
        factories: dict[str, BackendFactory] = {}
        if fs_root is not None:
            root = await opened.enter_async_context(open_local_root(fs_root))
            factories[FS] = lambda secret, tenant: root.backend(secret.text("Path"))
        if oci is not None:
            stores = await opened.enter_async_context(open_oci(oci, staging=staging))
            factories[OCI] = lambda secret, tenant: stores.backend(secret)
        yield Stack(read_secret, factories, drop_secret=drop_secret)
