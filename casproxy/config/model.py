"""Owns every setting: its place, type, default, since when it exists and what it means. Refuses to know files or YAML.

An attribute path is the YAML path: ``config.server.grpc.addr`` is ``server.grpc.addr``. The loader, the reference table
and the JSON Schema are all made from the annotations below; there is no second list of settings.

Durations are seconds (float), sizes are bytes (int). A setting that is read by nothing yet says ``since=PLANNED``: the
loader then warns whoever sets it, so that no setting is silently without effect.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from casproxy.config.grpc_limits import GrpcLimits
from casproxy.config.kinds import (
    Address,
    Bytes,
    Count,
    CountOrAuto,
    FilePath,
    Flag,
    Networks,
    Seconds,
    SecretText,
    Text,
    Texts,
    TimeoutSeconds,
    choice,
    of_kind,
    sizes_up_to,
)
from casproxy.config.observability import Observability
from casproxy.config.section import PLANNED, Section, doc
from casproxy.errors import ConfigError

SOURCES = ("vault", "aws_secret_manager", "gcp_secret_manager", "azure_key_vault", "file")

_NETWORK = of_kind(choice("tcp", "tcp4", "tcp6"))
_NETWORK_DOC = doc("Address family to listen on.")


class Cors(Section, frozen=True, kw_only=True):
    """Cross-origin access for browsers."""

    allow_origins: Annotated[Texts, doc("Origins a browser may call from: exact origins, or `*`.")] = ()


class IgnoredCors(Section, frozen=True, kw_only=True):
    """Cross-origin access that existing files ask for where it means nothing."""

    allow_origins: Annotated[Texts, doc("Accepted because existing files have it; metrics need no CORS.")] = ()


class TlsConfig(Section, frozen=True, kw_only=True):
    """A server's certificate. The files are looked at every second; new ones are for connections from then on."""

    certificate: Annotated[FilePath, doc("PEM file with the certificate chain; read again when it changes.")]
    private_key: Annotated[FilePath, doc("PEM file with the private key, without a passphrase.")]
    client_ca_file: Annotated[
        FilePath | None,
        doc("PEM file of CAs; a client must show a certificate from one of them.", when_unset="clients show none"),
    ] = None


class HttpLimits(Section, frozen=True, kw_only=True):
    """What HTTP clients may ask for at most."""

    max_transfers: Annotated[
        Count, doc("Downloads and uploads at once; beyond, the answer is 503.", unit="transfers")
    ] = 1000
    max_connections: Annotated[Count, doc("Connections open at once.", unit="connections")] = 10_000
    max_header_size: Annotated[Bytes, doc("Headers of one request.")] = 32 << 10


class HttpServer(Section, frozen=True, kw_only=True):
    """The HTTP port: downloads and status."""

    network: Annotated[str, _NETWORK, _NETWORK_DOC] = "tcp"
    addr: Annotated[Address, doc("Address to listen on.")] = "0.0.0.0:8001"
    timeout: Annotated[TimeoutSeconds, doc("Bounds one download. `0s`: no limit.")] = 300.0
    cors: Annotated[Cors, doc("Cross-origin access to downloads.")] = Cors()
    tls_config: Annotated[TlsConfig | None, doc("Certificate; without it the port speaks cleartext HTTP.")] = None
    uploads: Annotated[Flag, doc("Accept uploads over HTTP.")] = False
    ui: Annotated[Flag, doc("Serve the web page.")] = False
    limits: Annotated[HttpLimits, doc("What HTTP clients may ask for at most.")] = HttpLimits()


class GrpcServer(Section, frozen=True, kw_only=True):
    """The gRPC port."""

    network: Annotated[str, _NETWORK, _NETWORK_DOC] = "tcp"
    addr: Annotated[Address, doc("Address to listen on.")] = "0.0.0.0:9001"
    timeout: Annotated[TimeoutSeconds, doc("Bounds one unary call, never a stream. `0s`: no limit.")] = 5.0
    tls_config: Annotated[TlsConfig | None, doc("Certificate; without it the port speaks cleartext HTTP/2.")] = None
    limits: Annotated[GrpcLimits, doc("What one peer may ask for at most.")] = GrpcLimits()


class MetricsServer(Section, frozen=True, kw_only=True):
    """The Prometheus port."""

    network: Annotated[str, _NETWORK, _NETWORK_DOC] = "tcp"
    addr: Annotated[Address, doc("Address to listen on.")] = "0.0.0.0:5001"
    timeout: Annotated[TimeoutSeconds, doc("Bounds one scrape. `0s`: no limit.", since=PLANNED)] = 30.0
    cors: Annotated[IgnoredCors, doc("Accepted because existing files have it.")] = IgnoredCors()


class Server(Section, frozen=True, kw_only=True):
    """Ports, processes, drain and memory."""

    http: Annotated[HttpServer, doc("The HTTP port.")] = HttpServer()
    grpc: Annotated[GrpcServer, doc("The gRPC port.")] = GrpcServer()
    http_metrics: Annotated[MetricsServer, doc("The Prometheus port.")] = MetricsServer()
    workers: Annotated[
        CountOrAuto,
        doc(
            "Processes that serve. `auto`: one for each core this process may use; 1: no other process is started.",
            unit="processes",
        ),
    ] = 1
    drain_grace: Annotated[Seconds, doc("After SIGTERM, how long calls in flight may go on.")] = 30.0
    memory_budget: Annotated[
        Bytes | None,
        doc(
            "Payload bytes all workers together may hold on their way, either way, in equal shares of tenants.",
            when_unset="256MiB, or a quarter of the cgroup's memory limit if that is less",
        ),
    ] = None


class Jwks(Section, frozen=True, kw_only=True):
    """Keys from a JWKS document, matched by ``kid``. Times below a second where it matters: ``ConfigError``."""

    url: Annotated[Text | None, doc("Address of the document, http or https. Redirects are not followed.")] = None
    path: Annotated[FilePath | None, doc("File or directory with such documents, read again when it changes.")] = None
    refresh: Annotated[Seconds, doc("How often `url` is read again; at least `1s`.")] = 300.0
    max_stale: Annotated[Seconds, doc("How long the last good keys serve once the document cannot be read.")] = 86_400.0
    refetch_interval: Annotated[
        Seconds, doc("An unknown `kid` has all keys read again, at most this often; at least `1s`.")
    ] = 10.0

    def __post_init__(self) -> None:
        for name in ("refresh", "refetch_interval"):
            if getattr(self, name) < 1.0:
                raise ConfigError(f"auth.jwks.{name}: want 1s or more, for the sake of the document's server")


class Auth(Section, frozen=True, kw_only=True):
    """How tokens are verified."""

    public_key_path: Annotated[
        FilePath | None,
        doc("PEM file with the key or keys that verify tokens, or a directory of such files; read again on change."),
    ] = None
    robot_account_public_key_path: Annotated[
        FilePath | None, doc("Deprecated name of `public_key_path`.", alias_of="public_key_path")
    ] = None
    jwks: Annotated[Jwks, doc("Keys from a JWKS document, matched by `kid`.")] = Jwks()
    require_exp: Annotated[Flag, doc("Refuse tokens that never expire.")] = False
    issuer: Annotated[Text | None, doc("Refuse tokens of any other issuer (`iss`).")] = None


class FileSource(Section, frozen=True, kw_only=True):
    """Secrets in a file."""

    path: Annotated[FilePath, doc("A map of secret id to credentials object (0600), or a directory of such objects.")]


class AppRole(Section, frozen=True, kw_only=True):
    """A login to Vault with the AppRole method."""

    role_id: Annotated[Text, doc("Id of the role.")]
    secret_id: Annotated[SecretText, doc("The role's secret id.")]
    mount_path: Annotated[Text, doc("Mount of the login method.")] = "approle"


class KubernetesLogin(Section, frozen=True, kw_only=True):
    """A login to Vault with this pod's service account."""

    role: Annotated[Text, doc("Name of the role.")]
    mount_path: Annotated[Text, doc("Mount of the login method.")] = "kubernetes"
    token_file: Annotated[FilePath, doc("File with the service account's token, read at each login.")] = Path(
        "/var/run/secrets/kubernetes.io/serviceaccount/token"
    )


class VaultSource(Section, frozen=True, kw_only=True):
    """Secrets in Vault or OpenBao, KV version 2. Exactly one way to log in is not None, else ``ConfigError``."""

    address: Annotated[Text, doc("Address of the server.")]
    token: Annotated[SecretText | None, doc("Token to show, used as it is.")] = None
    app_role: Annotated[AppRole | None, doc("Log in with AppRole, and renew.")] = None
    kubernetes: Annotated[KubernetesLogin | None, doc("Log in with this pod's service account, and renew.")] = None
    mount_path: Annotated[Text, doc("Mount of the KV engine.")] = "secret"
    namespace: Annotated[Text, doc("Namespace of mounts and logins.")] = ""
    ca_file: Annotated[
        FilePath | None,
        doc(
            "PEM file with the CA of the server, which is then the only one believed.",
            when_unset="all that are trusted",
        ),
    ] = None

    def __post_init__(self) -> None:
        ways = [way for way in ("token", "app_role", "kubernetes") if getattr(self, way) is not None]
        if len(ways) != 1:
            found = f"names {' and '.join(ways)}" if ways else "names no way to log in"
            raise ConfigError(f"credentials_service.vault: {found}; give exactly one of token, app_role and kubernetes")


class AwsCreds(Section, frozen=True, kw_only=True):
    """Static AWS keys."""

    access_key: Annotated[Text, doc("Access key id.")]
    secret_key: Annotated[SecretText, doc("Secret access key.")]


class AwsSource(Section, frozen=True, kw_only=True):
    """Secrets in AWS Secrets Manager."""

    region: Annotated[Text, doc("AWS region.")]
    creds: Annotated[AwsCreds | None, doc("Static keys; absent: the ambient chain.")] = None


class GcpSource(Section, frozen=True, kw_only=True):
    """Secrets in GCP Secret Manager."""

    project_id: Annotated[Text, doc("Project that holds the secrets.")]
    service_account_key: Annotated[
        FilePath | None,
        doc("Service account key file.", when_unset="application default credentials"),
    ] = None


class AzureSource(Section, frozen=True, kw_only=True):
    """Secrets in Azure Key Vault."""

    vault_uri: Annotated[Text, doc("Address of the vault.")]
    tenant_id: Annotated[Text | None, doc("Directory (tenant) id.")] = None
    client_id: Annotated[Text | None, doc("Application (client) id.")] = None
    client_secret: Annotated[SecretText | None, doc("Client secret.", when_unset="workload identity")] = None


class SecretCache(Section, frozen=True, kw_only=True):
    """How long secrets are kept."""

    ttl: Annotated[Seconds, doc("A secret is fresh for this long. `0s`: no cache.")] = 60.0
    stale: Annotated[Seconds, doc("How long an old value serves while the source is unavailable.")] = 600.0
    not_found_ttl: Annotated[Seconds, doc("How long a missing secret is remembered as missing.")] = 5.0


class CredentialsService(Section, frozen=True, kw_only=True):
    """Where the tenants' storage credentials come from: exactly one source is not None.

    Without any, ``file`` is ``secrets.yaml`` in the working directory. Two of them: ``ConfigError``.
    """

    secret_prefix: Annotated[Text, doc("Where the check at start looks for a secret that must be missing.")] = ""
    file: Annotated[
        FileSource | None,
        doc("Secrets in a file.", when_unset="`secrets.yaml` in the working directory, if there is no other source"),
    ] = None
    vault: Annotated[VaultSource | None, doc("Secrets in Vault or OpenBao.")] = None
    aws_secret_manager: Annotated[AwsSource | None, doc("Secrets in AWS Secrets Manager.")] = None
    gcp_secret_manager: Annotated[GcpSource | None, doc("Secrets in GCP Secret Manager.")] = None
    azure_key_vault: Annotated[AzureSource | None, doc("Secrets in Azure Key Vault.")] = None
    timeout: Annotated[Seconds, doc("Bounds one look-up.")] = 5.0
    cache: Annotated[SecretCache, doc("How long secrets are kept.")] = SecretCache()

    def __post_init__(self) -> None:
        named = [source for source in SOURCES if getattr(self, source) is not None]
        if len(named) > 1:
            raise ConfigError(f"credentials_service: names {' and '.join(named)}; keep exactly one of them")
        if not named:
            msgspec.structs.force_setattr(self, "file", FileSource(path=Path("secrets.yaml")))


class Fs(Section, frozen=True, kw_only=True):
    """The FS backend."""

    root: Annotated[FilePath | None, doc("Directory of the FS backend.", when_unset="there is no FS backend")] = None


class Storage(Section, frozen=True, kw_only=True):
    """The backends of this process itself; tenants' backends are in their secrets."""

    fs: Annotated[Fs, doc("The FS backend.")] = Fs()


class Staging(Section, frozen=True, kw_only=True):
    """Where bodies wait that a registry may ask for twice, or whose digest is not known before their end."""

    dir: Annotated[
        FilePath | None, doc("Directory for staged bodies.", when_unset="nothing is staged, no temporary file written")
    ] = None
    quota: Annotated[Bytes, doc("What all staged bodies together may take.")] = 10 << 30


class Transfer(Section, frozen=True, kw_only=True):
    """How artifacts move."""

    piece_size: Annotated[int, of_kind(sizes_up_to(1 << 20)), doc("Payload handed on at once, at most 1MiB.")] = (
        256 << 10
    )
    idle_timeout: Annotated[Seconds, doc("A client without progress for this long, though it may send, is ended.")] = (
        60.0
    )
    min_rate: Annotated[Bytes, doc("Bytes per second that count as progress.", unit="bytes/s")] = 1
    verify_resume: Annotated[Flag, doc("Hash the skipped prefix of a resumed download.")] = True


class Outbound(Section, frozen=True, kw_only=True):
    """Where this process may connect to for a tenant."""

    allow: Annotated[Networks, doc("Private networks that tenants' stores may be in.")] = (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
    )
    ca_file: Annotated[
        FilePath | None,
        doc(
            "PEM file of CAs, or directory of such, trusted beside the system's wherever this process connects.",
            when_unset="the system's alone",
        ),
    ] = None


class Oci(Section, frozen=True, kw_only=True):
    """The OCI backend."""

    insecure_registries: Annotated[Texts, doc("Registries (`host:port`) where http is tried when https fails.")] = ()


class NatsServer(Section, frozen=True, kw_only=True):
    """Audit events to NATS JetStream."""

    uri: Annotated[
        Text | None,
        doc("Address: `nats://host:4222` or `tls://…`; several joined by commas.", when_unset="no audit events"),
    ] = None
    token: Annotated[SecretText | None, doc("Token to connect with.")] = None


class Readiness(Section, frozen=True, kw_only=True):
    """What readiness depends on."""

    require_secrets: Annotated[Flag, doc("Not ready while the secret source is down.")] = False


class Config(Section, frozen=True, kw_only=True):
    """The whole configuration; ``Config()`` is what an empty file means."""

    server: Annotated[Server, doc("Ports, processes, drain and memory.")] = Server()
    auth: Annotated[Auth, doc("How tokens are verified.")] = Auth()
    credentials_service: Annotated[CredentialsService, doc("Where the tenants' storage credentials come from.")] = (
        CredentialsService()
    )
    storage: Annotated[Storage, doc("The backends of this process itself.")] = Storage()
    staging: Annotated[Staging, doc("Where bodies wait that cannot be passed on at once.")] = Staging()
    transfer: Annotated[Transfer, doc("How artifacts move.")] = Transfer()
    outbound: Annotated[Outbound, doc("Where this process may connect to for a tenant.")] = Outbound()
    oci: Annotated[Oci, doc("The OCI backend.")] = Oci()
    observability: Annotated[Observability, doc("Logs, traces, reports.")] = Observability()
    nats_server: Annotated[NatsServer, doc("Audit events to NATS JetStream.")] = NatsServer()
    readiness: Annotated[Readiness, doc("What readiness depends on.")] = Readiness()
