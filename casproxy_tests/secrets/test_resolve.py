"""Configuration in, the right source out, or a sentence about what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from casproxy.config.model import (
    AwsSource,
    AzureSource,
    CredentialsService,
    FileSource,
    GcpSource,
    SecretCache,
    VaultSource,
)
from casproxy.errors import ConfigError
from casproxy.secrets.cache import CacheSettings
from casproxy.secrets.resolve import cache_settings, open_source
from casproxy_tests.secrets.file_rig import MapRig


async def test_a_file(tmp_path: Path) -> None:
    rig = MapRig(tmp_path)
    rig.put("a", {"password": "x"})
    source = open_source(CredentialsService(file=FileSource(path=rig.path)))
    await source.check()
    assert (await source.read("a")).text("password") == "x"


@pytest.mark.parametrize(
    "service",
    [
        CredentialsService(vault=VaultSource(address="http://127.0.0.1:8200")),
        CredentialsService(aws_secret_manager=AwsSource(region="eu-west-1")),
        CredentialsService(gcp_secret_manager=GcpSource(project_id="p")),
        CredentialsService(azure_key_vault=AzureSource(vault_uri="https://v.example")),
    ],
)
def test_sources_this_version_does_not_have(service: CredentialsService) -> None:
    with pytest.raises(ConfigError, match=r"^credentials_service: not available in this version: [a-z_]+; use"):
        open_source(service)


def test_defaults_agree() -> None:
    assert cache_settings(CredentialsService()) == CacheSettings()


def test_settings_are_passed_on() -> None:
    service = CredentialsService(timeout=2.0, cache=SecretCache(ttl=1.0, stale=3.0, not_found_ttl=0.5))
    assert cache_settings(service) == CacheSettings(ttl=1.0, stale=3.0, not_found_ttl=0.5, timeout=2.0)
