"""Owns secrets in AWS Secrets Manager. Refuses to know where credentials come from if none are configured: boto3 does.

The id of a secret is its name there, and its ``SecretString`` (or ``SecretBinary``) is the JSON object.

Source: AWS Secrets Manager API, GetSecretValue; AWS common errors.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from casproxy.config.model import AwsSource
from casproxy.errors import ConfigError, SecretDenied, SecretError, SecretUnavailable
from casproxy.secrets.api import Secret
from casproxy.secrets.remote import (
    MAX_THREADS,
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

_KEYS: Final = "credentials_service.aws_secret_manager"
_MISSING: Final = frozenset(
    {
        "ResourceNotFoundException",
        "InvalidRequestException",  # of a secret that is marked for deletion
        "ValidationException",  # of an id that no secret can have: too long
    }
)
_BAD_LOGIN: Final = frozenset(
    {
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "DecryptionFailure"})


@asynccontextmanager
async def open_aws(
    section: AwsSource, prefix: str, timeout: float, trust: TrustStore | None = None
) -> AsyncIterator[AwsSecretsManager]:
    """The Secrets Manager of ``section``. ``prefix`` is where the start-up check looks; ``timeout`` in seconds.

    Entering may ask the machine's metadata service for credentials. ``ConfigError`` for a region that cannot be one.
    ``trust`` None: the CAs that botocore packs.
    """
    threads = SdkThreads()
    client = await threads.run(partial(_make_client, section, timeout, trust))
    try:
        yield AwsSecretsManager(section, client, threads, prefix, timeout)
    finally:
        threads.close(client.close)


class AwsSecretsManager:
    """A ``SecretSource``. Made by ``open_aws``."""

    def __init__(self, section: AwsSource, client: Any, threads: SdkThreads, prefix: str, timeout: float) -> None:
        self._section = section
        self._client = client
        self._probe = "/".join(filter(None, (prefix.strip("/"), PROBE)))
        self._timeout = timeout
        self._threads = threads

    async def read(self, secret_id: str) -> Secret:
        """See ``SecretSource.read``."""
        return to_secret(secret_id, await self._threads.run(partial(self._fetch, secret_id)))

    def _fetch(self, secret_id: str) -> str | bytes:
        failure: SecretError
        try:
            return _payload(self._client.get_secret_value(SecretId=secret_id))
        except ClientError as error:
            failure = _refusal(secret_id, error.response)
        except (NoCredentialsError, PartialCredentialsError) as error:
            failure = because(LoginRefused("this process has no AWS credentials"), error)
        except BotoCoreError as error:
            failure = because(SecretUnavailable("AWS Secrets Manager cannot be reached"), error)
        try:
            raise failure
        finally:
            del failure

    async def check(self) -> None:
        """See ``SecretSource.check``: network and credentials. A policy may name single secrets; its no is no error."""
        await check_by_reading(self.read, self._probe, self._advise, self._timeout)

    def _advise(self, error: SecretError) -> str | None:
        if isinstance(error, LoginRefused):
            what = "needs the two keys" if self._section.creds is None else "is refused"
            return f"{_KEYS}.creds: {what} ({cause_of(error)}); give an access key and its secret key that AWS accepts"
        if isinstance(error, SecretDenied):
            return None
        return f"{_KEYS}.region: no use of Secrets Manager in {self._section.region}: {cause_of(error)}"


def _make_client(section: AwsSource, timeout: float, trust: TrustStore | None) -> Any:
    keys = section.creds
    failure: ConfigError
    try:
        session = boto3.session.Session(
            aws_access_key_id=keys.access_key if keys is not None else None,
            aws_secret_access_key=keys.secret_key.reveal() if keys is not None else None,
            region_name=section.region,
            botocore_session=_sdk_session(trust),
        )
        return session.client("secretsmanager", config=_sdk_config(timeout))
    except (BotoCoreError, ValueError) as error:
        failure = ConfigError(f"{_KEYS}.region: {error}")
    raise failure


def _sdk_session(trust: TrustStore | None) -> Any:
    """A session whose every client believes ``trust``, those that fetch credentials included.

    AWS's own variable for it stays above that, as its documentation promises.
    """
    session = botocore.session.Session()
    if trust is not None and not os.environ.get("AWS_CA_BUNDLE"):
        session.set_config_variable("ca_bundle", trust.bundle())
    return session


def _sdk_config(timeout: float) -> Config:
    """No retries: the cache asks again, and serves what it knows meanwhile."""
    return Config(
        connect_timeout=timeout / 2,
        read_timeout=timeout,
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=MAX_THREADS,
    )


def _payload(answer: Mapping[str, Any]) -> str | bytes:
    payload: str | bytes = answer.get("SecretString") or answer.get("SecretBinary") or ""
    return payload


def _refusal(secret_id: str, answer: Mapping[str, Any]) -> SecretError:
    """``answer`` is a parsed error, which holds no secret: a code and a message."""
    error = answer.get("Error", {})
    code = str(error.get("Code", ""))
    cause = f"{code}: {error.get('Message', '')}"
    if code in _MISSING:
        return because(not_found(secret_id), cause)
    if code in _BAD_LOGIN:
        return because(LoginRefused("AWS does not accept this process's credentials"), cause)
    if code in _DENIED or answer.get("ResponseMetadata", {}).get("HTTPStatusCode") == HTTPStatus.FORBIDDEN:
        return because(SecretDenied("AWS Secrets Manager refuses this process the secret"), cause)
    return because(SecretUnavailable("AWS Secrets Manager is not available"), cause)
