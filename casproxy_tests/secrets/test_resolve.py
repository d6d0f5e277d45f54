"""Configuration in, the right source out, or a sentence about what to do."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from casproxy.config.files import parse
from casproxy.config.kinds import SecretStr
from casproxy.config.load import interpret
from casproxy.config.model import (
    SOURCES,
    AwsCreds,
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
from casproxy.secrets.resolve import cache_settings, open_checked_source, open_source, source_name
from casproxy.trust import TrustStore
from casproxy_tests.secrets.file_rig import MapRig

KEYS = AwsCreds(access_key="AKIAEXAMPLE", secret_key=SecretStr("none"))
AZURE = AzureSource(
    vault_uri="https://v.vault.azure.net", tenant_id="t", client_id="c", client_secret=SecretStr("none")
)


@pytest.fixture
def trust() -> Iterator[TrustStore]:
    with closing(TrustStore(())) as store:
        yield store


async def test_a_file(tmp_path: Path, trust: TrustStore) -> None:
    rig = MapRig(tmp_path)
    rig.put("a", {"password": "x"})
    async with open_checked_source(CredentialsService(file=FileSource(path=rig.path)), trust) as source:
        assert (await source.read("a")).text("password") == "x"


@pytest.mark.parametrize(
    ("service", "kind"),
    [
        (CredentialsService(vault=VaultSource(address="http://127.0.0.1:8200", token=SecretStr("t"))), "Vault"),
        (CredentialsService(aws_secret_manager=AwsSource(region="eu-west-1", creds=KEYS)), "AwsSecretsManager"),
        (CredentialsService(azure_key_vault=AZURE), "AzureKeyVault"),
    ],
)
async def test_each_key_opens_its_source(service: CredentialsService, kind: str, trust: TrustStore) -> None:
    async with open_source(service, trust) as source:
        assert type(source).__name__ == kind
    assert source_name(service) in repr(service)


async def test_a_missing_key_file_is_named(tmp_path: Path, trust: TrustStore) -> None:
    section = GcpSource(project_id="p", service_account_key=tmp_path / "none.json")
    with pytest.raises(
        ConfigError, match=r"^credentials_service\.gcp_secret_manager\.service_account_key: cannot read"
    ):
        async with open_source(CredentialsService(gcp_secret_manager=section), trust):
            pass


def test_a_vault_without_a_login_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^credentials_service\.vault: names no way to log in; give exactly one of"):
        VaultSource(address="http://127.0.0.1:8200")


def test_a_source_imports_no_other_vendors_sdk() -> None:
    """``casproxy serve`` with secrets in a file must not pay for cloud SDKs."""
    program = (
        "import sys, casproxy.app\n"
        "sdks = {'hvac', 'boto3', 'botocore', 'google.cloud.secretmanager_v1', 'grpc', 'azure.identity', 'requests'}\n"
        "print(sorted(sdks & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_what_the_how_to_shows_is_what_the_model_knows() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "secrets.md").read_text("utf-8")
    shown = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    sources = set()
    for text in shown:
        loaded = interpret(parse(text, "secrets.md"), {"CAS_VAULT_SECRET_ID": "x", "CAS_AWS_SECRET": "x"})
        assert not loaded.warnings and not loaded.unknown_keys
        sources.add(source_name(loaded.config.credentials_service))
    assert sources == set(SOURCES)


def test_defaults_agree() -> None:
    assert cache_settings(CredentialsService()) == CacheSettings()


def test_settings_are_passed_on() -> None:
    service = CredentialsService(timeout=2.0, cache=SecretCache(ttl=1.0, stale=3.0, not_found_ttl=0.5))
    assert cache_settings(service) == CacheSettings(ttl=1.0, stale=3.0, not_found_ttl=0.5, timeout=2.0)
