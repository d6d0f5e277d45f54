"""Owns secrets in Azure Key Vault: the current version of each. Refuses to know Azure's other services.

The id of a secret is its name as given: one segment of letters, digits and hyphens. Redirects are not followed and
nothing is retried: the cache asks again.

Source: Key Vault REST API, Get Secret; Microsoft Entra ID, client credentials and workload identity.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeAlias

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential, WorkloadIdentityCredential
from azure.keyvault.secrets import SecretClient

from casproxy.config.model import AzureSource
from casproxy.errors import ConfigError, SecretDenied, SecretError, SecretMalformed, SecretNotFound, SecretUnavailable
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

_KEYS: Final = "credentials_service.azure_key_vault"
_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,127}", re.ASCII)

Credential: TypeAlias = ClientSecretCredential | WorkloadIdentityCredential


@asynccontextmanager
async def open_azure(
    section: AzureSource,
    prefix: str,
    timeout: float,
    sdk_options: Mapping[str, Any] | None = None,
    *,
    trust: TrustStore | None = None,
) -> AsyncIterator[AzureKeyVault]:
    """The vault of ``section``. ``prefix`` is where the start-up check looks; ``timeout`` in seconds.

    ``sdk_options`` go to Microsoft's clients, to lead them to a server that is not Azure's. ``ConfigError`` when there
    is neither a client secret nor a workload identity. ``trust`` None: the CAs that requests packs.
    """
    options = {
        "connection_timeout": timeout / 2,
        "read_timeout": timeout,
        "retry_total": 0,
        "permit_redirects": False,
        "connection_verify": True if trust is None else trust.bundle(),
        **(sdk_options or {}),
    }
    threads = SdkThreads()
    credential = _credential(section, options)
    client = SecretClient(section.vault_uri, credential, **options)
    try:
        yield AzureKeyVault(section, client, threads, prefix, timeout)
    finally:
        threads.close(partial(_close, client, credential))


class AzureKeyVault:
    """A ``SecretSource``. Made by ``open_azure``."""

    def __init__(
        self, section: AzureSource, client: SecretClient, threads: SdkThreads, prefix: str, timeout: float
    ) -> None:
        self._section = section
        self._client = client
        self._probe = "-".join(filter(None, (prefix.strip("-"), PROBE)))
        self._timeout = timeout
        self._threads = threads

    async def read(self, secret_id: str) -> Secret:
        """See ``SecretSource.read``."""
        if not _NAME.fullmatch(secret_id):
            raise SecretNotFound(f"Azure Key Vault can have no secret of the name {secret_id[:80]!r}")
        return to_secret(secret_id, await self._threads.run(partial(self._fetch, secret_id)))

    def _fetch(self, secret_id: str) -> str:
        failure: SecretError
        try:
            return self._client.get_secret(secret_id).value or ""
        except ResourceNotFoundError as error:
            failure = because(not_found(secret_id), _reason(error))
        except ClientAuthenticationError as error:
            failure = _login_failure(error)
        except HttpResponseError as error:
            failure = _refusal(error)
        except AzureError as error:
            failure = because(SecretUnavailable("Azure Key Vault cannot be reached"), _reason(error))
        except ValueError as error:  # a challenge that leads elsewhere, or none
            failure = because(SecretUnavailable("this is not the Azure Key Vault it should be"), error)
        try:
            raise failure
        finally:
            del failure

    async def check(self) -> None:
        """See ``SecretSource.check``: network and credentials. Access may be granted for single secrets."""
        await check_by_reading(self.read, self._probe, self._advise, self._timeout)

    def _advise(self, error: SecretError) -> str | None:
        if isinstance(error, LoginRefused):
            return f"{_KEYS}.client_secret: the login is refused ({cause_of(error)}); check tenant_id, client_id and it"
        if isinstance(error, SecretDenied):
            return None
        return f"{_KEYS}.vault_uri: {self._section.vault_uri} cannot be used: {cause_of(error)}"


def _close(client: SecretClient, credential: Credential) -> None:
    client.close()
    credential.close()


def _credential(section: AzureSource, options: Mapping[str, Any]) -> Credential:
    failure: ConfigError
    secret = section.client_secret
    try:
        if secret is None:
            return WorkloadIdentityCredential(tenant_id=section.tenant_id, client_id=section.client_id, **options)
        return ClientSecretCredential(section.tenant_id or "", section.client_id or "", secret.reveal(), **options)
    except ValueError as error:
        failure = ConfigError(f"{_KEYS}: {' '.join(str(error).split())}")
    raise failure


def _login_failure(error: ClientAuthenticationError) -> SecretError:
    """Microsoft's library raises one class for a login that was refused, and, with a cause, for one that failed."""
    if error.status_code in (400, 401, 403) or error.__cause__ is None:
        return because(LoginRefused("Azure does not accept this process's credentials"), _reason(error))
    return because(SecretUnavailable("Microsoft Entra ID is not available"), _reason(error))


def _refusal(error: HttpResponseError) -> SecretError:
    if error.status_code == 403:
        return because(SecretDenied("Azure Key Vault refuses this process the secret"), _reason(error))
    if error.status_code == 200:
        return SecretMalformed("Azure Key Vault's answer cannot be read")
    return because(SecretUnavailable("Azure Key Vault is not available"), _reason(error))


def _reason(error: AzureError) -> str:
    """Status, code and message of Azure's answer, which for an error holds no value; else what the network said."""
    if isinstance(error, HttpResponseError) and error.status_code:
        return f"HTTP {error.status_code}: {error.message}"
    return f"{type(error).__name__}: {error.message}"
