"""Owns secrets in GCP Secret Manager: the latest version of each. Refuses to know Google's other services.

An id is one segment and names a secret of the configured project. Google's client works over gRPC: a call has one
deadline for everything, and the channel finds back to a server that was gone within a second or so.

Source: Secret Manager API v1, AccessSecretVersion.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import google.auth
import grpc
import requests
from google.api_core import exceptions
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError, RefreshError
from google.auth.transport.grpc import AuthMetadataPlugin
from google.auth.transport.requests import Request
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceGrpcTransport
from google.oauth2 import service_account

from casproxy.config.model import GcpSource
from casproxy.errors import ConfigError, SecretDenied, SecretError, SecretNotFound, SecretUnavailable
from casproxy.secrets.api import Secret
from casproxy.secrets.remote import (
    PROBE,
    LoginRefused,
    SdkThreads,
    because,
    cause_of,
    check_by_reading,
    not_found,
    to_secret,
)
from casproxy.trust import TrustStore

_KEYS: Final = "credentials_service.gcp_secret_manager"
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)
_RECONNECT: Final = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000))

OpenChannel = Callable[..., Any]
"""Makes a ``grpc.Channel`` from the arguments of the transport's ``create_channel``."""


@asynccontextmanager
async def open_gcp(
    section: GcpSource,
    prefix: str,
    timeout: float,
    trust: TrustStore | None = None,
    *,
    credentials: Credentials | None = None,
    open_channel: OpenChannel | None = None,
) -> AsyncIterator[GcpSecretManager]:
    """The Secret Manager of ``section``. ``prefix`` is where the start-up check looks; ``timeout`` in seconds.

    ``credentials`` and ``open_channel`` lead to a server that is not Google's. ``ConfigError`` for a key file that
    cannot be used, and when there is none and the machine offers no credentials. ``trust`` None: the CAs that Google's
    libraries pack.
    """
    threads = SdkThreads()
    known = credentials if credentials is not None else await threads.run(partial(_credentials, section, trust))
    client = await threads.run(partial(_make_client, known, open_channel or partial(secure_channel, trust)))
    try:
        yield GcpSecretManager(section, client, threads, prefix, timeout)
    finally:
        threads.close(client.transport.close)


class GcpSecretManager:
    """A ``SecretSource``. Made by ``open_gcp``."""

    def __init__(
        self, section: GcpSource, client: SecretManagerServiceClient, threads: SdkThreads, prefix: str, timeout: float
    ) -> None:
        self._section = section
        self._client = client
        self._probe = "-".join(filter(None, (prefix.strip("-"), PROBE)))
        self._timeout = timeout
        self._threads = threads

    async def read(self, secret_id: str) -> Secret:
        """See ``SecretSource.read``."""
        if not _ID.fullmatch(secret_id):
            raise SecretNotFound(f"GCP Secret Manager can have no secret of the id {secret_id[:80]!r}")
        return to_secret(secret_id, await self._threads.run(partial(self._fetch, secret_id)))

    def _fetch(self, secret_id: str) -> bytes:
        name = f"projects/{self._section.project_id}/secrets/{secret_id}/versions/latest"
        failure: SecretError
        try:
            return self._client.access_secret_version(name=name, retry=None, timeout=self._timeout).payload.data
        except exceptions.GoogleAPICallError as error:
            failure = _refusal(secret_id, error)
        except RefreshError as error:
            kind = SecretUnavailable if error.retryable else LoginRefused
            failure = because(kind("Google does not accept this process's credentials"), error)
        except (exceptions.GoogleAPIError, GoogleAuthError) as error:
            failure = because(SecretUnavailable("GCP Secret Manager cannot be reached"), error)
        try:
            raise failure
        finally:
            del failure

    async def check(self) -> None:
        """See ``SecretSource.check``: network and credentials. Access may be granted for single secrets."""
        await check_by_reading(self.read, self._probe, self._advise, self._timeout)

    def _advise(self, error: SecretError) -> str | None:
        if isinstance(error, LoginRefused):
            return (
                f"{_KEYS}.service_account_key: Google refuses it ({cause_of(error)}); give the key file of an account"
            )
        if isinstance(error, SecretDenied):
            return None
        return f"{_KEYS}: Secret Manager of project {self._section.project_id} cannot be used: {cause_of(error)}"


def _credentials(section: GcpSource, trust: TrustStore | None) -> Credentials:
    failure: ConfigError
    path = section.service_account_key
    try:
        return _load_credentials(path, trust)
    except OSError as error:
        failure = ConfigError(f"{_KEYS}.service_account_key: cannot read {path} ({error.strerror}); check the path")
    except (GoogleAuthError, ValueError) as error:
        what = f"{path} is no service account key file" if path else "is not set, and this machine has no credentials"
        failure = ConfigError(f"{_KEYS}.service_account_key: {what} ({type(error).__name__})")
    raise failure


def _load_credentials(path: Path | None, trust: TrustStore | None) -> Credentials:
    credentials: Credentials
    if path is None:
        credentials, _ = google.auth.default(scopes=_SCOPES, request=_https(trust))
    else:
        credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
            str(path), scopes=_SCOPES
        )
    return credentials


def secure_channel(
    trust: TrustStore | None, host: str, *, credentials: Credentials, options: Any, **_unused: Any
) -> grpc.Channel:
    """What the transport's own ``create_channel`` makes, but calls and log-ins believe ``trust``."""
    log_in = AuthMetadataPlugin(  # type: ignore[no-untyped-call]
        credentials, _https(trust), default_host=SecretManagerServiceGrpcTransport.DEFAULT_HOST
    )
    roots = grpc.ssl_channel_credentials(None if trust is None else trust.pem)
    together = grpc.composite_channel_credentials(roots, grpc.metadata_call_credentials(log_in))
    return grpc.secure_channel(host, together, options=options)


def _https(trust: TrustStore | None) -> Request:
    """What log-ins go through."""
    session = requests.Session()
    session.verify = True if trust is None else trust.bundle()
    return Request(session)


def _make_client(credentials: Credentials, open_channel: OpenChannel) -> SecretManagerServiceClient:
    def channel(host: str, *, options: Any = (), **settings: Any) -> Any:
        return open_channel(host, options=[*options, *_RECONNECT], **settings)

    return SecretManagerServiceClient(
        transport=SecretManagerServiceGrpcTransport(credentials=credentials, channel=channel)
    )


def _refusal(secret_id: str, error: exceptions.GoogleAPICallError) -> SecretError:
    """Only NOT_FOUND says that a secret is missing; FAILED_PRECONDITION is a version that was disabled or destroyed."""
    cause = f"{type(error).__name__}: {error.message}"
    if isinstance(error, exceptions.NotFound):
        return because(not_found(secret_id), cause)
    if isinstance(error, exceptions.Unauthenticated):
        return because(LoginRefused("Google does not accept this process's credentials"), cause)
    if isinstance(error, exceptions.Forbidden | exceptions.FailedPrecondition):
        return because(SecretDenied("GCP Secret Manager refuses this process the secret"), cause)
    return because(SecretUnavailable("GCP Secret Manager is not available"), cause)
