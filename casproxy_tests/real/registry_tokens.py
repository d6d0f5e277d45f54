"""Owns a token server for a real registry: Basic in, a signed JWT out. Refuses to know the fake registry's state.

Source: distribution, "Token Authentication Specification" and "Token Scope Documentation".
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization

from casproxy_tests.fakes.registry.auth import Account, Basic
from casproxy_tests.fakes.registry.http import Exchange, serve_http
from casproxy_tests.real.certificates import authority

SERVICE = "test-registry"
ISSUER = "test-issuer"


@dataclass(slots=True)
class TokenServer:
    """``lifetime`` of a token in seconds; ``issued`` and ``refused`` count answers. ``url`` is the realm."""

    accounts: Mapping[str, Account]
    lifetime: float
    url: str = ""
    issued: int = 0
    refused: int = 0

    async def handle(self, exchange: Exchange) -> None:
        account = Basic(self.accounts).account(exchange.request)
        if account is None:
            self.refused += 1
            await exchange.respond(401, {"content-type": "application/json"}, b'{"details": "unauthorized"}')
            return
        query = parse_qsl(urlsplit(exchange.request.target).query)
        access: list[dict[str, object]] = []
        for scope in (part for name, value in query if name == "scope" for part in value.split()):
            kind, name, actions = scope.split(":")
            if name.startswith(account.repositories):
                access.append({"type": kind, "name": name, "actions": actions.split(",")})
        self.issued += 1
        token = self._token(access)
        answer = {"token": token, "access_token": token, "expires_in": int(self.lifetime)}
        await exchange.respond(200, {"content-type": "application/json"}, json.dumps(answer).encode())

    def _token(self, access: list[dict[str, object]]) -> str:
        now = time.time()
        claims = {
            "iss": ISSUER,
            "sub": "test",
            "aud": SERVICE,
            "exp": int(now + self.lifetime),
            "nbf": int(now - 5),
            "iat": int(now),
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        certificate = authority().certificate.public_bytes(serialization.Encoding.DER)
        chain = {"x5c": [base64.b64encode(certificate).decode()]}
        return jwt.encode(claims, authority().key, algorithm="ES256", headers=chain)


@asynccontextmanager
async def serve_tokens(accounts: Mapping[str, Account], *, lifetime: float) -> AsyncIterator[TokenServer]:
    tokens = TokenServer(accounts, lifetime)
    async with serve_http(tokens.handle) as server:
        tokens.url = f"{server.url}/token"
        yield tokens
