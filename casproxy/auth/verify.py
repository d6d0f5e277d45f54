"""Owns the verdict on a token: (token, keys, now) -> claims or ``AuthError``. Pure: no clock, no file, no network.

PyJWT and cryptography do the signature; the form is read here, because theirs is lax where ours must not be: a claim
that occurs twice, numbers that are strings, padded base64, more than three segments are all refused.
Sources: RFC 7515 (JWS), RFC 7519 (JWT), RFC 8725 (best practice).

Existing clients match on these texts, so they are exact:

==============================  ===========================================================
``JWT token is missing``        no token at all
``Token is invalid``            not a token, or a claim of the wrong type
``JWT token has expired``       expired, or not yet valid
``unknown signing key``         no key we hold made this signature, under an algorithm fit for it
``token has invalid audience``  ``aud`` is absent or does not name us
``invalid role, got=X, want=Y``, ``missing secret reference``, ``missing backend type``, …
==============================  ===========================================================
"""

from __future__ import annotations

import binascii
import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

import jwt

from casproxy.auth.claims import Claims, Role
from casproxy.auth.keys import VerificationKey
from casproxy.errors import AuthError, SecretNotFound
from casproxy.secrets.api import check_secret_id

AUDIENCE: Final = "artifact-cas.chainloop"
MAX_TOKEN_SIZE: Final = 8 * 1024
"""Bytes. A longer token is refused before any of it is decoded."""

_MAX_BYTES_LIMIT = 2**63 - 1
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SIGNATURES = jwt.PyJWS(algorithms=["ES256", "ES384", "ES512", "EdDSA", "RS256", "PS256"])


class UnknownKid(AuthError):
    """``unknown signing key``, and the token names a key (``kid``) that we do not hold: it may be worth looking for."""


def verify(
    token: str,
    keys: Sequence[VerificationKey],
    now: float,
    *,
    audience: str = AUDIENCE,
    require_exp: bool = False,
    issuer: str | None = None,
) -> Claims:
    """The claims of a good token; ``AuthError`` for any other. ``now``: seconds since the epoch.

    A token without ``kid`` is tried with each key of a fitting type, one with ``kid`` with the keys of that name and
    with those that have none. ``issuer``: when set, ``iss`` must equal it. Costs about 0.5 ms of CPU for ES512; never
    logs or echoes the token.
    """
    require_token(token)
    parsed = _parse(token)
    _check_signature(parsed, keys)
    claims = _read_claims(parsed.payload)
    if require_exp and claims.expires_at is None:
        raise AuthError("token has no expiry", cause="expiry")
    check_time(claims, now)
    _check_audience(parsed.payload, audience)
    if issuer is not None and parsed.payload.get("iss") != issuer:
        raise AuthError("token has invalid issuer", cause="issuer")
    return claims


def require_token(token: str) -> None:
    """Refuse what need not be looked at: nothing, and more than ``MAX_TOKEN_SIZE``."""
    if not token:
        raise AuthError("JWT token is missing", cause="missing")
    if len(token) > MAX_TOKEN_SIZE:
        _malformed("size")


def check_time(claims: Claims, now: float) -> None:
    """Refuse claims not valid at ``now``: want ``not_before <= now < expires_at`` (RFC 7519, 4.1.4 and 4.1.5)."""
    if claims.expires_at is not None and now >= claims.expires_at:
        raise AuthError("JWT token has expired", cause="expired")
    if claims.not_before is not None and now < claims.not_before:
        raise AuthError("JWT token has expired", cause="not_yet_valid")


def require_role(claims: Claims, allowed: Collection[Role]) -> None:
    """Refuse claims whose role is not one of ``allowed``."""
    if claims.role not in allowed:
        _wrong_role(claims.role, allowed)


@dataclass(frozen=True, slots=True)
class _Token:
    header: Mapping[str, object]
    payload: Mapping[str, object]
    signed: bytes
    signature: bytes


def _parse(token: str) -> _Token:
    segments = token.split(".")
    if len(segments) != 3:
        _malformed("form")
    header, payload, signature = segments
    return _Token(
        header=_json_object(_base64url(header)),
        payload=_json_object(_base64url(payload)),
        signed=f"{header}.{payload}".encode(),
        signature=_base64url(signature),
    )


def _base64url(segment: str) -> bytes:
    if not _BASE64URL.fullmatch(segment):
        _malformed("form")
    try:
        data = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        _malformed("form")
    if urlsafe_b64encode(data).rstrip(b"=") != segment.encode():  # stray bits in the last character: two spellings
        _malformed("form")
    return data


def _json_object(data: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        _malformed("json")
    if not isinstance(value, dict):
        _malformed("json")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name occurs twice")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_signature(token: _Token, keys: Sequence[VerificationKey]) -> None:
    if "crit" in token.header:
        raise AuthError("token has unsupported crit header", cause="crit")
    algorithm, kid = token.header.get("alg"), token.header.get("kid")
    if not isinstance(algorithm, str) or not isinstance(kid, str | None):
        _malformed("header")
    if any(_verified_by(key, algorithm, token) for key in keys if kid is None or key.kid in (None, kid)):
        return
    known = kid is None or any(key.kid == kid for key in keys)
    raise (AuthError if known else UnknownKid)("unknown signing key", cause="unknown_key")


def _verified_by(key: VerificationKey, algorithm: str, token: _Token) -> bool:
    if algorithm not in key.algorithms:
        return False
    return _SIGNATURES.get_algorithm_by_name(algorithm).verify(token.signed, key.key, token.signature)


def _read_claims(payload: Mapping[str, object]) -> Claims:
    return Claims(
        role=_role(payload),
        secret_id=_secret_id(payload),
        backend=_text(payload, "backend") or _refuse("missing backend type", "backend"),
        org_id=_text(payload, "org-id"),
        max_bytes=_max_bytes(payload),
        source_internal=_flag(payload, "source-internal"),
        expires_at=_numeric_date(payload, "exp"),
        not_before=_numeric_date(payload, "nbf"),
    )


def _role(payload: Mapping[str, object]) -> Role:
    role = _text(payload, "role")
    try:
        return Role(role)
    except ValueError:
        _wrong_role(role[:40], list(Role))


def _secret_id(payload: Mapping[str, object]) -> str:
    secret_id = _text(payload, "secret-id") or _refuse("missing secret reference", "secret_id")
    try:
        check_secret_id(secret_id)
    except SecretNotFound:
        _refuse("invalid secret reference", "secret_id")
    return secret_id


def _text(payload: Mapping[str, object], name: str) -> str:
    value = payload.get(name, "")
    if not isinstance(value, str) or not value.isprintable():  # lone surrogates and line breaks end up in logs
        _malformed(name)
    return value


def _flag(payload: Mapping[str, object], name: str) -> bool:
    value = payload.get(name, False)
    if not isinstance(value, bool):
        _malformed(name)
    return value


def _max_bytes(payload: Mapping[str, object]) -> int:
    value = payload.get("maxbytes", 0)
    if type(value) is not int or not 0 <= value <= _MAX_BYTES_LIMIT:  # bool is an int to isinstance
        _malformed("maxbytes")
    return value


def _numeric_date(payload: Mapping[str, object], name: str) -> float | None:
    if name not in payload:
        return None
    value = payload[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        _malformed(name)
    try:
        seconds = float(value)
    except OverflowError:
        _malformed(name)
    if not math.isfinite(seconds):
        _malformed(name)
    return seconds


def _check_audience(payload: Mapping[str, object], audience: str) -> None:
    claimed = payload.get("aud")
    names = claimed if isinstance(claimed, list) else [claimed]
    if audience not in names or not all(isinstance(name, str) for name in names):
        raise AuthError("token has invalid audience", cause="audience")


def _wrong_role(got: str, allowed: Collection[Role]) -> NoReturn:
    raise AuthError(f"invalid role, got={got}, want={' or '.join(sorted(allowed))}", cause="role")


def _malformed(cause: str) -> NoReturn:
    raise AuthError("Token is invalid", cause=f"malformed_{cause}")


def _refuse(text: str, cause: str) -> NoReturn:
    raise AuthError(text, cause=cause)
