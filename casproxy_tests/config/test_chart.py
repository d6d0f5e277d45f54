"""What the original's chart renders for its container loads unchanged: every secret backend, with and without the rest.

``golden/`` holds the files as the chart's templates give them (``server.yaml`` of its ConfigMap, the others of its
Secret), comments left out. Here they are projected into one directory, as the pod sees them.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from casproxy.config import Config, load
from casproxy.config.kinds import SecretStr
from casproxy.config.model import (
    AwsCreds,
    AwsSource,
    AzureSource,
    CredentialsService,
    GcpSource,
    NatsServer,
    TlsConfig,
    VaultSource,
)
from casproxy.config.observability import Sentry
from casproxy_tests.real.projected import Projected

GOLDEN = Path(__file__).parent / "golden"
SOURCES = {
    "vault": CredentialsService(
        secret_prefix="chainloop",
        vault=VaultSource(address="https://vault.example.com:8200", token=SecretStr("s.0123")),
    ),
    "vault-development": CredentialsService(
        secret_prefix="chainloop",
        vault=VaultSource(address="http://chainloop-vault-server:8200", token=SecretStr("notapassword")),
    ),
    "awsSecretManager": CredentialsService(
        secret_prefix="chainloop",
        aws_secret_manager=AwsSource(
            region="us-east-1", creds=AwsCreds(access_key="AKIAEXAMPLE", secret_key=SecretStr("aws+secret/key="))
        ),
    ),
    "gcpSecretManager": CredentialsService(
        secret_prefix="chainloop",
        gcp_secret_manager=GcpSource(
            project_id="522312304548", service_account_key=Path("/gcp-secrets/serviceAccountKey.json")
        ),
    ),
    "azureKeyVault": CredentialsService(
        secret_prefix="chainloop",
        azure_key_vault=AzureSource(
            tenant_id="AD-tenant-id",
            client_id="Service Principal ID",
            client_secret=SecretStr("Service Principal secret"),
            vault_uri="https://myvault.vault.azure.net/",
        ),
    ),
}
TLS = TlsConfig(certificate=Path("/data/server-certs/tls.crt"), private_key=Path("/data/server-certs/tls.key"))
ORIGINS = ("https://app.example.com", "http://localhost:3000")


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.yaml").read_bytes()


def render(directory: Path, source: str, *, tls: bool, cors: bool, sentry: bool, nats: bool) -> Path:
    """The directory that the pod mounts at ``/data/conf``."""
    server = "-".join(name for name, wanted in (("tls", tls), ("cors", cors)) if wanted) or "plain"
    files = {"server.yaml": golden(f"server/{server}"), "config.secret.yaml": golden(f"secret/{source}")}
    if sentry:
        files["config.observability.yaml"] = golden("observability/sentry")
    if nats:
        files["config.nats.yaml"] = golden("nats/token")
    return Projected(directory / "conf", files).path


def load_quietly(path: Path) -> Config:
    """``config``; the one thing there is to say of it is that the chart gives a key its deprecated name as well."""
    loaded = load(path, {})
    assert loaded.unknown_keys == []
    [warning] = loaded.warnings
    assert "auth.robot_account_public_key_path is deprecated" in warning
    return loaded.config


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("tls", "cors", "sentry", "nats"), list(product([False, True], repeat=4)))
def test_loads_unchanged(tmp_path: Path, source: str, tls: bool, cors: bool, sentry: bool, nats: bool) -> None:
    config = load_quietly(render(tmp_path, source, tls=tls, cors=cors, sentry=sentry, nats=nats))
    server = config.server
    assert (server.http.addr, server.grpc.addr, server.http_metrics.addr) == (
        "0.0.0.0:8000",
        "0.0.0.0:9000",
        "0.0.0.0:5000",
    )
    assert (server.http.timeout, server.grpc.timeout) == (300.0, 5.0)
    assert server.grpc.tls_config == (TLS if tls else None)
    assert server.http.tls_config is None
    assert server.http.cors.allow_origins == (ORIGINS if cors else ())
    assert config.auth.public_key_path == Path("/tmp/cas.public.pem")
    assert config.credentials_service == SOURCES[source]
    wanted = Sentry(dsn=SecretStr("https://public@sentry.example.com/42"), environment="production")
    assert config.observability.sentry == (wanted if sentry else Sentry())
    bus = NatsServer(uri="nats://nats.example.com:4222", token=SecretStr("n4ts"))
    assert config.nats_server == (bus if nats else NatsServer())


def test_origins_where_one_version_of_the_chart_writes_them(tmp_path: Path) -> None:
    """Beside the ports instead of in one: no effect, as with the original, but it is said where they belong."""
    conf = Projected(
        tmp_path / "conf",
        {"server.yaml": golden("server/misplaced-cors"), "config.secret.yaml": golden("secret/vault")},
    )
    loaded = load(conf.path, {})
    assert loaded.config.server.http.cors.allow_origins == ()
    [unknown] = loaded.unknown_keys
    assert unknown.endswith("server.yaml:10: unknown key server.cors; the nearest known key is server.http.cors")


def test_a_renewed_mount_is_read_the_same(tmp_path: Path) -> None:
    """Kubernetes leaves hidden directories of several versions behind for a moment; only the linked files count."""
    path = render(tmp_path, "vault", tls=True, cors=False, sentry=False, nats=False)
    before = load_quietly(path)
    (path / "..2026_0").mkdir()
    (path / "..2026_0" / "server.yaml").write_text("server: {http: {addr: 'old:1'}}")
    assert load_quietly(path) == before
