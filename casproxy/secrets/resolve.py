"""Owns the choice of a secret source: configuration in, source out. The only module that names a concrete one."""

from __future__ import annotations

from casproxy.config.model import SOURCES, CredentialsService
from casproxy.errors import ConfigError
from casproxy.secrets.api import SecretSource
from casproxy.secrets.cache import CacheSettings
from casproxy.secrets.file import FileSource


def open_source(service: CredentialsService) -> SecretSource:
    """The one source that ``credentials_service`` names. Opens nothing yet: call its ``check`` at start-up.

    ``ConfigError`` for a source this version does not have.
    """
    if service.file is not None:
        return FileSource(service.file.path)
    named = next(source for source in SOURCES if getattr(service, source) is not None)
    raise ConfigError(f"credentials_service: not available in this version: {named}; use credentials_service.file")


def cache_settings(service: CredentialsService) -> CacheSettings:
    """How long secrets are kept, as configured."""
    return CacheSettings(
        ttl=service.cache.ttl,
        stale=service.cache.stale,
        not_found_ttl=service.cache.not_found_ttl,
        timeout=service.timeout,
    )
