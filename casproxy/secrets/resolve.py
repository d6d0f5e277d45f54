"""Owns the choice of a secret source: configuration in, source out. The only module that names a concrete one.

A vendor's SDK takes up to a second to import, so only the chosen source's module is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from casproxy.config.model import SOURCES, CredentialsService
from casproxy.secrets.api import SecretSource
from casproxy.secrets.cache import CacheSettings
from casproxy.trust import TrustStore


def open_source(service: CredentialsService, trust: TrustStore) -> AbstractAsyncContextManager[SecretSource]:
    """The one source that ``credentials_service`` names; leaving the block ends its log-in and connections.

    Entering asks no store yet: call ``check`` at start-up. It raises ``ConfigError`` for credentials that cannot be
    used, such as a broken key file. ``trust`` stays open as long as the source.
    """
    prefix, timeout = service.secret_prefix, service.timeout
    if service.vault is not None:
        from casproxy.secrets.vault import open_vault

        return open_vault(service.vault, prefix, timeout, trust)
    if service.aws_secret_manager is not None:
        from casproxy.secrets.aws import open_aws

        return open_aws(service.aws_secret_manager, prefix, timeout, trust)
    if service.gcp_secret_manager is not None:
        from casproxy.secrets.gcp import open_gcp

        return open_gcp(service.gcp_secret_manager, prefix, timeout, trust)
    if service.azure_key_vault is not None:
        from casproxy.secrets.azure import open_azure

        return open_azure(service.azure_key_vault, prefix, timeout, trust=trust)
    from casproxy.secrets.file import FileSource

    assert service.file is not None  # noqa: S101 - the model names it when there is no other
    return nullcontext(FileSource(service.file.path))


@asynccontextmanager
async def open_checked_source(service: CredentialsService, trust: TrustStore) -> AsyncIterator[SecretSource]:
    """``open_source`` with its start-up check done: ``ConfigError`` names the key to fix."""
    async with open_source(service, trust) as source:
        await source.check()
        yield source


def source_name(service: CredentialsService) -> str:
    """The key of the source under ``credentials_service``."""
    return next(name for name in SOURCES if getattr(service, name) is not None)


def cache_settings(service: CredentialsService) -> CacheSettings:
    """How long secrets are kept, as configured."""
    return CacheSettings(
        ttl=service.cache.ttl,
        stale=service.cache.stale,
        not_found_ttl=service.cache.not_found_ttl,
        timeout=service.timeout,
    )
