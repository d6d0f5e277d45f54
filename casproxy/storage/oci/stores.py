"""Owns opening and closing the OCI backend: the pool, the staging area, one ``Access`` per registry and credential.

Accesses are kept in an LRU. One that is in use stays alive with its users; the next backend simply learns anew.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from casproxy.outbound.dial import Dial, guarded_dial
from casproxy.outbound.guard import RFC1918, Guard
from casproxy.outbound.message import DEFAULT_TIMEOUTS, Timeouts
from casproxy.outbound.pool import Pool, open_pool
from casproxy.secrets.api import Secret
from casproxy.storage.oci.access import Access
from casproxy.storage.oci.backend import OciBackend
from casproxy.storage.oci.reference import Repo, parse_repo
from casproxy.storage.oci.retry import DEFAULT_RETRY, RetrySettings
from casproxy.storage.oci.staging import Staging
from casproxy.storage.oci.tokens import Credentials

_KEPT_ACCESSES: Final = 1024


@dataclass(frozen=True, slots=True)
class OciSettings:
    """How registries are reached. ``own_ports``: where this process listens; never connected to.

    ``tls``: for https; None believes the CAs that OpenSSL finds. ``staging_dir``: None when nothing can be staged;
    ``staging_quota`` in bytes.
    """

    allow: tuple[str, ...] = RFC1918
    own_ports: tuple[int, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None
    staging_dir: Path | None = None
    staging_quota: int = 10 * 1024**3
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    retry: RetrySettings = DEFAULT_RETRY


class OciStores:
    """Opens tenants' backends. Made by ``open_oci``."""

    def __init__(self, pool: Pool, staging: Staging, settings: OciSettings) -> None:
        self.pool = pool
        self.staging = staging
        self._settings = settings
        self._insecure = frozenset(name.lower() for name in settings.insecure_registries)
        self._accesses: OrderedDict[tuple[Repo, str], Access] = OrderedDict()

    def backend(self, secret: Secret) -> OciBackend:
        """The backend that ``secret`` (Repo, Username, Password) opens, without I/O. Raises ``SecretMalformed``."""
        repo = parse_repo(secret.text("Repo"), self._insecure)
        credentials = Credentials(secret.text("Username"), secret.text("Password"), secret.fingerprint)
        return OciBackend(self._access(repo, credentials), repo, self.staging)

    def _access(self, repo: Repo, credentials: Credentials) -> Access:
        key = (repo, credentials.fingerprint)
        access = self._accesses.get(key)
        if access is None:
            access = self._accesses[key] = Access(self.pool, repo, credentials, self._settings.retry)
            if len(self._accesses) > _KEPT_ACCESSES:
                self._accesses.popitem(last=False)
        self._accesses.move_to_end(key)
        return access


@asynccontextmanager
async def open_oci(
    settings: OciSettings, *, dial: Dial | None = None, staging: Staging | None = None
) -> AsyncIterator[OciStores]:
    """Open the OCI backend; leaving closes every connection.

    ``dial`` replaces the guarded one (tests), ``staging`` the one of the settings (it is shared).
    """
    guard = Guard(settings.allow, settings.own_ports)
    tls = settings.tls or ssl.create_default_context()
    chosen = dial or guarded_dial(guard, tls, timeout=settings.timeouts.connect)
    area = staging or Staging(settings.staging_dir, settings.staging_quota)
    async with open_pool(chosen, settings.timeouts) as pool:
        yield OciStores(pool, area, settings)
