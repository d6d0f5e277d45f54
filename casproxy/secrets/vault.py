"""Owns secrets in Vault or OpenBao: the KV engine, version 2, over HTTP. Refuses to know when a token is renewed.

The answers that count are Vault's own: a 404 of some proxy on the way is an outage and not a missing secret. Redirects
are not followed, for they would carry the token to wherever they point; a standby node that answers with one is
unavailable.

Source: Vault API, KV secrets engine version 2; auth methods AppRole and Kubernetes; ``/sys/health``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import hvac.adapters
import trio

from casproxy.config.model import VaultSource
from casproxy.errors import SecretDenied, SecretError, SecretMalformed, SecretUnavailable
from casproxy.secrets.api import Secret
from casproxy.secrets.remote import (
    MAX_THREADS,
    PROBE,
    LoginRefused,
    SdkThreads,
    background,
    because,
    cause_of,
    check_by_reading,
    not_found,
)
from casproxy.secrets.vault_token import GivenToken, Lease, LoginToken, Tokens

_KEYS: Final = "credentials_service.vault"


@asynccontextmanager
async def open_vault(section: VaultSource, prefix: str, timeout: float) -> AsyncIterator[Vault]:
    """Secrets in the Vault of ``section``; a token from a login is renewed until the block ends.

    ``prefix`` is where the start-up check looks; ``timeout`` bounds one request, in seconds.
    """
    http = _Http(section, timeout)
    try:
        source = Vault(section, http, prefix, timeout)
        async with background(source.tokens.keep_fresh):
            yield source
    finally:
        http.close()


class Vault:
    """A ``SecretSource`` over one KV mount. Made by ``open_vault``."""

    def __init__(self, section: VaultSource, http: _Http, prefix: str, timeout: float) -> None:
        self._section = section
        self._mount = quote(section.mount_path.strip("/"), safe="/")
        self._http = http
        self._probe = "/".join(filter(None, (prefix.strip("/"), PROBE)))
        self._timeout = timeout
        self.tokens = _tokens(section, http)

    async def read(self, secret_id: str) -> Secret:
        """See ``SecretSource.read``. A refused token is replaced once, if it came from a login."""
        token = await self.tokens.get()
        try:
            return await self._read(secret_id, token)
        except SecretDenied:
            if not await self.tokens.replace(token):
                raise
        return await self._read(secret_id, await self.tokens.get())

    async def _read(self, secret_id: str, token: str) -> Secret:
        answer = await self._http.ask("get", f"/v1/{self._mount}/data/{secret_id}", token)
        if answer.status == HTTPStatus.OK:
            return _to_secret(secret_id, answer)
        raise _read_failure(secret_id, answer)

    async def check(self) -> None:
        """See ``SecretSource.check``: address, login, mount and policy."""
        await check_by_reading(self.read, self._probe, self._advise, self._timeout)

    def _advise(self, error: SecretError) -> str:
        host = _without_password(self._section.address)
        if isinstance(error, LoginRefused):
            return f"{_login_key(self._section)}: {host} refuses the login ({cause_of(error)}); check every key in it"
        if isinstance(error, SecretDenied):
            return (
                f"{_login_key(self._section)}: {host} refuses to read {self._mount}/data/{self._probe} "
                f"({cause_of(error)}); give one whose policy allows to read below {_KEYS}.mount_path"
            )
        if isinstance(error, _NoMount):
            return f"{_KEYS}.mount_path: {host} has no KV engine of version 2 at {self._mount} ({cause_of(error)})"
        return f"{_KEYS}.address: {host} cannot be used: {cause_of(error)}; check the address and the server's state"


class _NoMount(SecretUnavailable):
    """Nothing is mounted where secrets should be."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """An HTTP status with Vault's JSON object; None when the body is none, and so not from Vault."""

    status: int
    body: Mapping[str, Any] | None = field(repr=False)

    @property
    def errors(self) -> str:
        """What Vault gives as reasons; they hold names and paths, never values."""
        errors = self.body.get("errors") if self.body is not None else None
        return "; ".join(map(str, errors)) if isinstance(errors, list) else ""

    def __str__(self) -> str:
        return f"HTTP {self.status}" + (f": {self.errors}" if self.errors else "")


class _Http:
    """Requests to one server, in worker threads."""

    def __init__(self, section: VaultSource, timeout: float) -> None:
        self._adapter = hvac.adapters.RawAdapter(
            base_uri=section.address,
            token=None,  # given with each request: hvac would take one from the environment's ideas of it
            verify=str(section.ca_file) if section.ca_file is not None else True,
            timeout=(timeout / 2, timeout),
            allow_redirects=False,
            namespace=section.namespace or None,
            ignore_exceptions=True,
        )
        self._threads = SdkThreads(MAX_THREADS)

    async def ask(self, method: str, path: str, token: str = "", body: Mapping[str, object] | None = None) -> _Answer:
        """One exchange. ``SecretUnavailable`` when there is no answer; any answer is returned."""
        return await self._threads.run(partial(self._ask, method, path, token, body))

    def _ask(self, method: str, path: str, token: str, body: Mapping[str, object] | None) -> _Answer:
        headers = {"X-Vault-Token": token} if token else {}
        failure: SecretError
        try:
            response = self._adapter.request(method, path, headers=headers, json=body)
            return _Answer(response.status_code, _json_object(response))
        except (OSError, ValueError) as error:  # every error of requests is one of the two
            failure = because(SecretUnavailable("Vault cannot be reached"), _network_reason(error))
        raise failure

    def close(self) -> None:
        """Close every connection, as soon as none is in use."""
        self._threads.close(self._adapter.close)


def _json_object(response: Any) -> Mapping[str, Any] | None:
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _to_secret(secret_id: str, answer: _Answer) -> Secret:
    outer = answer.body.get("data") if answer.body is not None else None
    fields = outer.get("data") if isinstance(outer, dict) else None
    if isinstance(fields, dict):
        return Secret({key: value for key, value in fields.items() if value is not None})
    del answer, outer, fields  # an error's traceback keeps its frames, and these hold values
    raise SecretMalformed(f"secret {secret_id} is not a JSON object of a KV engine of version 2")


def _read_failure(secret_id: str, answer: _Answer) -> SecretError:
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return because(SecretDenied("Vault refuses this process the secret"), answer)
    if answer.status == HTTPStatus.NOT_FOUND and answer.body is not None:
        if not answer.errors:
            return not_found(secret_id)
        return because(_NoMount("Vault has no KV engine where secrets should be"), answer)
    return because(SecretUnavailable(_outage(answer.status)), answer)


def _outage(status: int) -> str:
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return "Vault is sealed or not available"
    if 300 <= status < 400:
        return "Vault answers with a redirect: it is a standby node"
    return "Vault is not available"


def _network_reason(error: Exception) -> str:
    """The kind of failure and its innermost reason: the texts between them are wrappers' prose."""
    kind, innermost = type(error).__name__, error
    while (below := innermost.__cause__ or innermost.__context__) is not None and isinstance(below, Exception):
        innermost = below
    reason = getattr(innermost, "strerror", None) or str(innermost)
    return f"{kind}: {reason}"


# -- logging in -------------------------------------------------------------------------------------


def _tokens(section: VaultSource, http: _Http) -> Tokens:
    if section.token is not None:
        return GivenToken(section.token.reveal())
    log_in: Callable[[], Any] = partial(_log_in_by_role, section, http)
    return LoginToken(log_in, partial(_renew, http))


async def _log_in_by_role(section: VaultSource, http: _Http) -> Lease:
    role, service = section.app_role, section.kubernetes
    if role is not None:
        credentials = {"role_id": role.role_id, "secret_id": role.secret_id.reveal()}
        return await _lease_from(http, f"/v1/auth/{_path(role.mount_path)}/login", "", credentials)
    assert service is not None  # noqa: S101 - the model demands exactly one way to log in
    jwt = await trio.to_thread.run_sync(_read_jwt, service.token_file, abandon_on_cancel=True)
    credentials = {"role": service.role, "jwt": jwt}
    return await _lease_from(http, f"/v1/auth/{_path(service.mount_path)}/login", "", credentials)


def _read_jwt(path: Path) -> str:
    failure: SecretError
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        failure = because(LoginRefused("this pod's service account token cannot be read"), _network_reason(error))
    raise failure


async def _renew(http: _Http, token: str) -> Lease:
    return await _lease_from(http, "/v1/auth/token/renew-self", token, {})


async def _lease_from(http: _Http, path: str, token: str, body: Mapping[str, object]) -> Lease:
    asked = trio.current_time()
    answer = await http.ask("post", path, token, body)
    if 400 <= answer.status < 500 and answer.status != HTTPStatus.TOO_MANY_REQUESTS and answer.body is not None:
        raise because(LoginRefused("Vault refuses this process's login"), answer)
    auth = answer.body.get("auth") if answer.status == HTTPStatus.OK and answer.body is not None else None
    if not isinstance(auth, dict) or not isinstance(auth.get("client_token"), str):
        raise because(SecretUnavailable(_outage(answer.status)), answer)
    seconds = auth.get("lease_duration")
    return Lease(
        token=auth["client_token"],
        seconds=float(seconds) if isinstance(seconds, int) else 0.0,
        renewable=auth.get("renewable") is True,
        since=asked,
    )


def _login_key(section: VaultSource) -> str:
    ways = {"token": section.token, "app_role": section.app_role, "kubernetes": section.kubernetes}
    return f"{_KEYS}.{next(name for name, way in ways.items() if way is not None)}"


def _path(mount: str) -> str:
    return quote(mount.strip("/"), safe="/")


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
