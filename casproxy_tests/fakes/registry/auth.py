"""Who may do what at the fake registry: nobody asks, Basic, or Bearer with a token endpoint of its own.

Tokens expire by Trio's clock, so that virtual time ages them. Schemes: RFC 7235, RFC 7617 and the distribution
project's token authentication.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

import trio

from casproxy_tests.fakes.registry.http import Exchange, Request


@dataclass(frozen=True, slots=True)
class Account:
    """``repositories``: the prefix of what the account may use."""

    password: str
    repositories: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request may not go on."""

    status: int
    challenge: str = ""


class Auth(Protocol):
    def refusal(self, request: Request, repository: str, actions: str) -> Refusal | None:
        """None when the request may do ``actions`` (``pull``, ``push``, ``delete``, joined by commas) there."""


class Anonymous:
    def refusal(self, request: Request, repository: str, actions: str) -> Refusal | None:
        return None


class Basic:
    def __init__(self, accounts: Mapping[str, Account]) -> None:
        self.accounts = dict(accounts)

    def refusal(self, request: Request, repository: str, actions: str) -> Refusal | None:
        account = self.account(request)
        if account is None:
            return Refusal(401, 'Basic realm="fake, \\"quoted\\" realm"')
        return None if repository.startswith(account.repositories) else Refusal(403)

    def account(self, request: Request) -> Account | None:
        """Whose name and password the request carries."""
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        account = self.accounts.get(name)
        return account if scheme == "Basic" and account is not None and account.password == password else None


@dataclass(slots=True)
class Bearer:
    """``lifetime``: of a token, in seconds. ``tell_lifetime``: whether the token answer says it. ``realm``: the URL."""

    accounts: Mapping[str, Account]
    lifetime: float = 300.0
    tell_lifetime: bool = True
    realm: str = ""
    service: str = "fake-registry"
    refuse_anonymous: bool = True
    issued: int = 0
    _tokens: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict)
    _names: itertools.count[int] = field(default_factory=itertools.count)

    def refusal(self, request: Request, repository: str, actions: str) -> Refusal | None:
        scope = f"repository:{repository}:{actions}" if repository else ""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        challenge = f'Bearer realm="{self.realm}",service="{self.service}"' + (f',scope="{scope}"' if scope else "")
        expires, granted = self._tokens.get(token, (0.0, frozenset()))
        if scheme != "Bearer":
            return Refusal(401, challenge)
        if expires <= trio.current_time():
            return Refusal(401, challenge + ',error="invalid_token"')
        wanted = {f"{repository}:{action}" for action in actions.split(",")} if repository else set()
        return None if wanted <= granted else Refusal(401, challenge + ',error="insufficient_scope"')

    def expire_all(self) -> None:
        """Every token is worthless from now on."""
        self._tokens.clear()

    async def serve_token(self, exchange: Exchange) -> None:
        """The token endpoint: ``GET ?service=&scope=`` with Basic."""
        account = Basic(self.accounts).account(exchange.request)
        if account is None and (self.refuse_anonymous or "authorization" in exchange.request.headers):
            await exchange.respond(
                401, {"www-authenticate": 'Basic realm="token"'}, b'{"details": "incorrect username"}'
            )
            return
        query = parse_qsl(urlsplit(exchange.request.target).query)
        granted = set()
        for scope in (part for name, value in query if name == "scope" for part in value.split()):
            _, repository, actions = scope.split(":")
            if account is not None and repository.startswith(account.repositories):
                granted |= {f"{repository}:{action}" for action in actions.split(",")}
        self.issued += 1
        token = f"token-{next(self._names)}"
        self._tokens[token] = (trio.current_time() + self.lifetime, frozenset(granted))
        answer: dict[str, object] = {"token": token, "access_token": token}
        if self.tell_lifetime:
            answer["expires_in"] = int(self.lifetime)
        await exchange.respond(200, {"content-type": "application/json"}, json.dumps(answer).encode())
