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
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlsplit

import hvac.adapters
import trio

from casproxy.background import background
from casproxy.config.kinds import SecretStr
from casproxy.config.model import AppRole, KubernetesLogin, VaultSource
from casproxy.errors import SecretDenied, SecretError, SecretMalformed, SecretUnavailable
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
)
from casproxy.secrets.vault_token import GivenToken, Lease, LoginToken, Tokens
from casproxy.trust import TrustStore

_KEYS: Final = "credentials_service.vault"


@asynccontextmanager
async def open_vault(
    section: VaultSource, prefix: str, timeout: float, trust: TrustStore | None = None
) -> AsyncIterator[Vault]:
    """Secrets in the Vault of ``section``; a token from a login is renewed until the block ends.

    ``prefix`` is where the start-up check looks; ``timeout`` bounds one request, in seconds. ``trust`` None: the CAs
    that requests packs.
    """
    http = _Http(section, timeout, trust)
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

    async def _read(self, secret_id: str, token: SecretStr) -> Secret:
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


Form: TypeAlias = Callable[[], Mapping[str, object]]
"""Makes a request's body in the thread that sends it."""


class _Http:
    """Requests to one server, in worker threads."""

    def __init__(self, section: VaultSource, timeout: float, trust: TrustStore | None) -> None:
        self._adapter = hvac.adapters.RawAdapter(
            base_uri=section.address,
            token=None,  # given with each request: hvac would take one from the environment's ideas of it
            verify=_cas(section, trust),
            timeout=(timeout / 2, timeout),
            allow_redirects=False,
            namespace=section.namespace or None,
            ignore_exceptions=True,
        )
        self._threads = SdkThreads(MAX_THREADS)

    async def ask(self, method: str, path: str, token: SecretStr | None = None, form: Form | None = None) -> _Answer:
        """One exchange. ``SecretUnavailable`` when there is no answer; any answer is returned."""
        return await self._threads.run(partial(self._ask, method, path, token, form))

    def _ask(self, method: str, path: str, token: SecretStr | None, form: Form | None) -> _Answer:
        """No variable here holds a credential or an answer: an error's traceback keeps its frames."""
        failure: SecretError
        try:
            return _to_answer(
                self._adapter.request(
                    method,
                    path,
                    headers={"X-Vault-Token": token.reveal()} if token is not None else {},
                    json=form() if form is not None else None,
                )
            )
        except (OSError, ValueError) as error:  # every error of requests is one of the two
            failure = because(SecretUnavailable("Vault cannot be reached"), _reason(error))
        try:
            raise failure
        finally:
            del failure

    def close(self) -> None:
        """Close every connection, as soon as none is in use."""
        self._threads.close(self._adapter.close)


def _cas(section: VaultSource, trust: TrustStore | None) -> str | bool:
    """What requests is to verify with: a file, or True for its own. A CA of Vault's own is the only one believed."""
    if section.ca_file is not None:
        return str(section.ca_file)
    return True if trust is None else trust.bundle()


def _to_answer(response: Any) -> _Answer:
    try:
        body = response.json()
    except ValueError:
        body = None
    return _Answer(response.status_code, body if isinstance(body, dict) else None)


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


def _reason(error: Exception) -> str:
    """The kind of failure and its innermost reason: the texts between them are wrappers' prose."""
    kind, innermost = type(error).__name__, error
    while (below := innermost.__cause__ or innermost.__context__) is not None and isinstance(below, Exception):
        innermost = below
    reason = getattr(innermost, "strerror", None) or str(innermost)
    return f"{kind}: {reason}"


# -- logging in -------------------------------------------------------------------------------------


def _tokens(section: VaultSource, http: _Http) -> Tokens:
    if section.token is not None:
        return GivenToken(section.token)
    if section.app_role is not None:
        login = partial(_log_in, http, section.app_role.mount_path, partial(_app_role_form, section.app_role))
    else:
        assert section.kubernetes is not None  # noqa: S101 - the model demands exactly one way to log in
        login = partial(_log_in, http, section.kubernetes.mount_path, partial(_kubernetes_form, section.kubernetes))
    return LoginToken(login, partial(_renew, http))


def _app_role_form(role: AppRole) -> Mapping[str, object]:
    return {"role_id": role.role_id, "secret_id": role.secret_id.reveal()}


def _kubernetes_form(login: KubernetesLogin) -> Mapping[str, object]:
    failure: SecretError
    try:
        return {"role": login.role, "jwt": login.token_file.read_text("ascii").strip()}
    except (OSError, ValueError) as error:
        failure = because(LoginRefused("this pod's service account token cannot be read"), _reason(error))
    try:
        raise failure
    finally:
        del failure


async def _log_in(http: _Http, mount_path: str, form: Form) -> Lease:
    asked = trio.current_time()
    return _to_lease(await http.ask("post", f"/v1/auth/{_path(mount_path)}/login", form=form), asked)


async def _renew(http: _Http, token: SecretStr) -> Lease:
    asked = trio.current_time()
    return _to_lease(await http.ask("post", "/v1/auth/token/renew-self", token, dict), asked)


def _to_lease(answer: _Answer, asked: float) -> Lease:
    if 400 <= answer.status < 500 and answer.status != HTTPStatus.TOO_MANY_REQUESTS and answer.body is not None:
        raise because(LoginRefused("Vault refuses this process's login"), answer)
    auth = answer.body.get("auth") if answer.status == HTTPStatus.OK and answer.body is not None else None
    if not isinstance(auth, dict) or not isinstance(auth.get("client_token"), str):
        auth = None
        raise because(SecretUnavailable(_outage(answer.status)), answer)
    seconds = auth.get("lease_duration")
    return Lease(
        token=SecretStr(auth["client_token"]),
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
