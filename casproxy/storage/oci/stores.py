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

from casproxy.errors import ConfigError
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

    ``ca_file``: PEM, trusted beside the system's CAs. ``staging_dir``: None when nothing can be staged;
    ``staging_quota`` in bytes.
    """

    allow: tuple[str, ...] = RFC1918
    own_ports: tuple[int, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    ca_file: Path | None = None
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
    """Open the OCI backend; leaving closes every connection. Raises ``ConfigError`` for an unusable ``ca_file``.

    ``dial`` replaces the guarded one (tests), ``staging`` the one of the settings (it is shared).
    """
    guard = Guard(settings.allow, settings.own_ports)
    chosen = dial or guarded_dial(guard, client_tls(settings.ca_file), timeout=settings.timeouts.connect)
    area = staging or Staging(settings.staging_dir, settings.staging_quota)
    async with open_pool(chosen, settings.timeouts) as pool:
        yield OciStores(pool, area, settings)


def client_tls(ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, the system's CAs and those in ``ca_file``; HTTP/1.1 is asked for."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"outbound.ca_file: cannot use {ca_file}; name a PEM file with certificates") from error
    return context
