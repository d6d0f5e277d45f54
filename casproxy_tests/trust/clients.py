"""Every client of ours that speaks TLS: one small errand each, done or not done depending on whom it believes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import httpx
import pytest
import sentry_sdk
import trio
from google.oauth2.credentials import Credentials

from casproxy.auth.resolve import open_keys
from casproxy.config.kinds import SecretStr
from casproxy.config.model import Auth, AwsCreds, AwsSource, AzureSource, GcpSource, Jwks, VaultSource
from casproxy.errors import ConfigError, SecretUnavailable
from casproxy.observe.nats import NatsUnavailable, open_nats, parse_servers
from casproxy.observe.sentry import open_sentry
from casproxy.observe.tracing import TracingSettings, open_tracing
from casproxy.outbound.address import Url
from casproxy.outbound.errors import TlsFailed
from casproxy.outbound.guard import LOOPBACK
from casproxy.outbound.message import Request
from casproxy.secrets.aws import open_aws
from casproxy.secrets.azure import open_azure
from casproxy.secrets.gcp import open_gcp, secure_channel
from casproxy.secrets.vault import open_vault
from casproxy.storage.oci.stores import OciSettings, open_oci
from casproxy.trust import TrustStore
from casproxy_tests.fakes.azure_key_vault import CLIENT_SECRET, TENANT
from casproxy_tests.real.certificates import client_context
from casproxy_tests.trust.server import REPORTS, SECRET

_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the servers are."""

    https: int
    grpc: int
    nats: int


Errand: TypeAlias = Callable[[TrustStore, Ports], Awaitable[None]]
"""Returns when it was done; raises when the server was not believed."""


class NotDelivered(Exception):
    """What should have arrived did not; these clients tell nobody why."""


async def registry(trust: TrustStore, ports: Ports) -> None:
    settings = OciSettings(allow=LOOPBACK, tls=trust.context("http/1.1"))
    url = Url.parse(f"https://127.0.0.1:{ports.https}/v2/")
    async with open_oci(settings) as stores, stores.pool.send(Request("GET", url)) as answer:
        assert answer.status == 200


async def jwks(trust: TrustStore, ports: Ports) -> None:
    auth = Auth(jwks=Jwks(url=f"https://127.0.0.1:{ports.https}/keys.json"))
    async with open_keys(auth, trust.context("http/1.1")) as ring:
        [key] = ring.keys()
        assert key.kid == "a"


async def vault(trust: TrustStore, ports: Ports) -> None:
    section = VaultSource(address=f"https://127.0.0.1:{ports.https}", token=SecretStr("t"))
    async with open_vault(section, "", _SECONDS, trust) as source:
        assert (await source.read("a")).text("Path") == SECRET["Path"]


async def aws(trust: TrustStore, ports: Ports) -> None:
    section = AwsSource(region="eu-west-1", creds=AwsCreds(access_key="AKIAEXAMPLE", secret_key=SecretStr("none")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"https://127.0.0.1:{ports.https}")
        async with open_aws(section, "", _SECONDS, trust) as source:
            assert (await source.read("a")).text("Path") == SECRET["Path"]


async def azure(trust: TrustStore, ports: Ports) -> None:
    address = f"https://127.0.0.1:{ports.https}"
    login = {"tenant_id": TENANT, "client_id": "casproxy", "client_secret": SecretStr(CLIENT_SECRET)}
    elsewhere = {"authority": address, "disable_instance_discovery": True, "verify_challenge_resource": False}
    async with open_azure(AzureSource(vault_uri=address, **login), "", _SECONDS, elsewhere, trust=trust) as source:  # type: ignore[arg-type]
        assert (await source.read("a")).text("Path") == SECRET["Path"]


async def google(trust: TrustStore, ports: Ports) -> None:
    """The log-in goes over HTTPS, the call over gRPC; both have to believe."""
    credentials = Credentials(  # type: ignore[no-untyped-call]
        None,
        refresh_token="r",
        token_uri=f"https://127.0.0.1:{ports.https}/google-log-in",
        client_id="c",
        client_secret="s",
    )
    channel = partial(_channel_to, f"127.0.0.1:{ports.grpc}", trust)
    source = open_gcp(GcpSource(project_id="p"), "", _SECONDS, trust, credentials=credentials, open_channel=channel)
    async with source as opened:
        assert (await opened.read("a")).text("Path") == SECRET["Path"]


def _channel_to(address: str, trust: TrustStore, _host: str, **settings: object) -> object:
    return secure_channel(trust, address, **settings)  # type: ignore[arg-type]


async def nats(trust: TrustStore, ports: Ports) -> None:
    [server] = parse_servers(f"tls://127.0.0.1:{ports.nats}")
    async with open_nats(server, trust.context()):
        """Connected, which ends with the server's word after the handshake."""


async def traces(trust: TrustStore, ports: Ports) -> None:
    async with open_tracing(TracingSettings(f"127.0.0.1:{ports.grpc}", roots=trust.pem)) as tracing:
        with tracing.begin_call("call", {}, {}):
            """A span."""
    if tracing.counts() != {"exported": 1, "lost": 0}:
        raise NotDelivered


async def sentry(trust: TrustStore, ports: Ports) -> None:
    before = await trio.to_thread.run_sync(_reports, ports)
    async with open_sentry(f"https://public@127.0.0.1:{ports.https}/42", "", trust.bundle()):
        sentry_sdk.capture_exception(LookupError("for the report"))
    if await trio.to_thread.run_sync(_reports, ports) != before + 1:
        raise NotDelivered


def _reports(ports: Ports) -> int:
    url = f"https://127.0.0.1:{ports.https}{REPORTS}"
    return int(httpx.get(url, verify=client_context(), trust_env=False).text)


ERRANDS: Final[Mapping[Errand, type[Exception]]] = {
    registry: TlsFailed,
    jwks: ConfigError,
    vault: SecretUnavailable,
    aws: SecretUnavailable,
    azure: SecretUnavailable,
    google: SecretUnavailable,
    nats: NatsUnavailable,
    traces: NotDelivered,
    sentry: NotDelivered,
}
"""Each errand, and what comes of it when the server is not believed."""
