"""Owns how one credential proves itself to one registry. Refuses to know what is then done there.

::

    nothing known ──401 Basic──▶ Basic: the credential itself, with every request
                  ──401 Bearer─▶ Bearer: a token per scope from the realm, renewed before it expires

Tokens are kept by (realm, service, scope) and belong to the credential this object was made for; one request for a
token is in flight per scope, however many wait for it.

Source: distribution's docs/spec/auth/token.md.
"""

from __future__ import annotations

import base64
import re
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec
import trio

from casproxy.errors import BackendBroken, BackendRefused
from casproxy.outbound.address import InvalidUrl, Url
from casproxy.outbound.message import Request
from casproxy.storage.oci.challenge import Challenge, parse_challenges
from casproxy.storage.oci.errors import DENIED
from casproxy.storage.oci.reference import may_be_plain

MAX_TOKEN_ANSWER: Final = 1024 * 1024

_DEFAULT_LIFETIME: Final = 60
_MAX_LIFETIME: Final = 24 * 3600
_KEPT_TOKENS: Final = 1024
_TOKEN: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks. ``fingerprint``: sha256 of the whole secret. The password shows nowhere."""

    username: str
    password: str
    fingerprint: str

    def __repr__(self) -> str:
        return "<Credentials: redacted>"

    @property
    def basic(self) -> str:
        """The value of ``Authorization`` for Basic (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A token server's answer."""

    status: int
    body: bytes


AskRealm: TypeAlias = Callable[[Request], Awaitable[TokenAnswer]]
"""Sends a request to a realm, once; its answer is at most ``MAX_TOKEN_ANSWER`` bytes. Errors: ``StorageError``."""


class _TokenBody(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class _Bearer:
    realm: Url
    service: str


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    renew_at: float


_Key: TypeAlias = tuple[_Bearer, str]


class Authorizer:
    """Finds the value of ``Authorization`` for a scope. ``registry``: its name, for texts."""

    def __init__(self, credentials: Credentials, ask: AskRealm, registry: str) -> None:
        self._credentials = credentials
        self._ask = ask
        self._registry = registry
        self._secure = True
        self._way: str | _Bearer | None = None
        self._tokens: OrderedDict[_Key, _Token] = OrderedDict()
        self._in_flight: weakref.WeakValueDictionary[_Key, trio.Lock] = weakref.WeakValueDictionary()

    def learn(self, challenge: str, *, secure: bool) -> bool:
        """Take in a ``WWW-Authenticate``; False when it offers no way in. ``secure``: the registry speaks TLS."""
        self._secure = secure
        offered: dict[str, Challenge] = {}
        for found in parse_challenges(challenge):
            offered.setdefault(found.scheme, found)
        if "bearer" in offered:
            parameters = offered["bearer"].parameters
            self._way = _Bearer(self._realm(parameters.get("realm", "")), parameters.get("service", ""))
        elif "basic" in offered:
            self._way = self._credentials.basic
        else:
            return False
        return True

    async def header(self, scope: str) -> str | None:
        """The header for ``scope``; None while the registry has asked for nothing. Errors: ``StorageError``."""
        if not isinstance(self._way, _Bearer):
            return self._way
        return (await self._token(self._way, scope)).header

    async def renewed(self, challenge: str, scope: str, refused: str | None, *, secure: bool) -> str | None:
        """Another header after ``refused`` (what was sent) met a 401; None when there is none to try."""
        if not self.learn(challenge, secure=secure):
            return None
        if isinstance(self._way, _Bearer):
            self._forget(self._way, scope, refused)
        header = await self.header(scope)
        return None if header == refused else header

    def _realm(self, text: str) -> Url:
        """Credentials go there, so a registry on TLS may not send them to an open place."""
        try:
            realm = Url.parse(text)
        except InvalidUrl as error:
            raise BackendBroken(f"{self._registry}: its challenge names no usable realm") from error
        if self._secure and not realm.origin.secure and not may_be_plain(realm.origin.host, realm.origin.port):
            raise BackendRefused(f"{self._registry}: its realm wants the credentials without TLS")
        return realm

    def _forget(self, bearer: _Bearer, scope: str, refused: str | None) -> None:
        kept = self._tokens.get((bearer, scope))
        if kept is not None and kept.header == refused:
            del self._tokens[bearer, scope]

    async def _token(self, bearer: _Bearer, scope: str) -> _Token:
        key = (bearer, scope)
        if (kept := self._live(key)) is not None:
            return kept
        lock = self._in_flight.setdefault(key, trio.Lock())
        async with lock:
            if (kept := self._live(key)) is not None:
                return kept
            token = self._tokens[key] = await self._fetch(bearer, scope)
            if len(self._tokens) > _KEPT_TOKENS:
                self._tokens.popitem(last=False)
            return token

    def _live(self, key: _Key) -> _Token | None:
        kept = self._tokens.get(key)
        if kept is None or trio.current_time() >= kept.renew_at:
            return None
        self._tokens.move_to_end(key)
        return kept

    async def _fetch(self, bearer: _Bearer, scope: str) -> _Token:
        asked_at = trio.current_time()
        fields = {"service": bearer.service, "scope": scope} if bearer.service else {"scope": scope}
        request = Request("GET", bearer.realm.with_query(**fields), (("Authorization", self._credentials.basic),))
        answer = await self._ask(request)
        if answer.status in DENIED:
            raise BackendRefused(f"{self._registry}: login refused")
        try:
            body = msgspec.json.decode(answer.body, type=_TokenBody)
        except msgspec.MsgspecError as error:
            raise BackendBroken(f"{self._registry}: its token server answered nonsense") from error
        token = body.token or body.access_token or ""
        if not _TOKEN.fullmatch(token):
            raise BackendBroken(f"{self._registry}: its token server gave no token")
        lifetime = min(max(_DEFAULT_LIFETIME if body.expires_in is None else body.expires_in, 0), _MAX_LIFETIME)
        return _Token(f"Bearer {token}", asked_at + lifetime - min(30.0, lifetime / 4))
