"""Owns JWK Sets (RFC 7517): the keys a document offers for checking tokens, and the document for keys of ours.

A key is taken only for what it says it is for: ``use``, ``key_ops`` and ``alg`` narrow what its type allows and never
widen it. A key we cannot use is skipped with a log line, for a set may serve others, too; a set of which nothing is
left is an error. PyJWT reads and writes the numbers. Refuses to know where a document comes from.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from casproxy.auth.keys import MAX_KEYS, PublicKey, VerificationKey, algorithms_for
from casproxy.errors import ConfigError

_KINDS: Final[Mapping[str, Any]] = {"EC": ECAlgorithm, "OKP": OKPAlgorithm, "RSA": RSAAlgorithm}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_IN_THUMBPRINT: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}

log = structlog.get_logger(__name__)


class _Unusable(Exception):
    """Why one key of a set is skipped."""


def parse_jwks(data: bytes, *, origin: str) -> tuple[VerificationKey, ...]:
    """The keys of a set that can check tokens, at least one; ``ConfigError``, which names ``origin``, otherwise."""
    keys: list[VerificationKey] = []
    for number, jwk in enumerate(_members(data, origin), 1):
        try:
            keys.append(_key(jwk))
        except _Unusable as reason:
            log.warning("jwks_key_skipped", document=origin, number=number, kid=_shown_kid(jwk), reason=str(reason))
    if not keys:
        raise ConfigError(
            f"{origin} holds no key that can check tokens: want EC, OKP (Ed25519) or RSA keys for signing"
        )
    return tuple(keys)


def jwks_of(keys: Sequence[VerificationKey]) -> dict[str, object]:
    """The JWK Set of these keys. A key without a name gets its thumbprint."""
    return {"keys": [_jwk(key) for key in keys]}


def thumbprint(key: PublicKey) -> str:
    """The base64url sha256 of the key's required members (RFC 7638): a name that everybody works out alike."""
    numbers = _numbers(key)
    canonical = json.dumps({name: numbers[name] for name in _IN_THUMBPRINT[numbers["kty"]]}, separators=(",", ":"))
    return urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()


def _members(data: bytes, origin: str) -> list[object]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):  # their text quotes the document, which may hold a private key by mistake
        raise ConfigError(f"{origin} is not JSON: want a JWK Set") from None
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise ConfigError(f'{origin} is not a JWK Set: want {{"keys": […]}}')
    if len(members) > MAX_KEYS:
        raise ConfigError(f"{origin} holds {len(members)} keys; at most {MAX_KEYS} are read")
    return members


def _key(jwk: object) -> VerificationKey:
    if not isinstance(jwk, dict):
        raise _Unusable("it is not an object")
    kid = jwk.get("kid")
    if not isinstance(kid, str | None):
        raise _Unusable("its kid is not a text")
    _require_purpose(jwk)
    key = _public_key(jwk)
    return VerificationKey(key, _algorithms(key, jwk.get("alg")), kid)


def _require_purpose(jwk: Mapping[str, object]) -> None:
    if jwk.get("use", "sig") != "sig":
        raise _Unusable("its use is not sig")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise _Unusable("its key_ops do not include verify")


def _public_key(jwk: Mapping[str, object]) -> PublicKey:
    kty = jwk.get("kty")
    if not isinstance(kty, str) or kty not in _KINDS:
        raise _Unusable("its kty is not EC, OKP or RSA")
    if not _PRIVATE.isdisjoint(jwk):
        raise _Unusable("it is a private key, and now known to whoever reads this document: replace the pair")
    try:
        key = _KINDS[kty].from_jwk(dict(jwk))
    except (jwt.InvalidKeyError, ValueError, TypeError, UnsupportedAlgorithm):
        raise _Unusable("its numbers are missing or no key of this type") from None
    if not isinstance(key, PublicKey):
        raise _Unusable("its curve is not accepted")
    return key


def _algorithms(key: PublicKey, claimed: object) -> frozenset[str]:
    fit = algorithms_for(key)
    if not fit:
        raise _Unusable("its curve is not accepted, or its modulus is too short")
    if claimed is None:
        return frozenset(fit)
    if claimed not in fit:
        raise _Unusable("its alg does not fit its type")
    return frozenset({str(claimed)})


def _jwk(key: VerificationKey) -> dict[str, object]:
    algorithms = sorted(key.algorithms)
    alg = {"alg": algorithms[0]} if len(algorithms) == 1 else {}
    return {"kid": key.kid or thumbprint(key.key), "use": "sig", **alg, **_numbers(key.key)}


def _numbers(key: PublicKey) -> dict[str, str]:
    """The public members of a key, ``kty`` included."""
    algorithm = algorithms_for(key)[0]
    kind = {"E": "OKP" if algorithm == "EdDSA" else "EC", "R": "RSA"}[algorithm[0]]
    numbers = _KINDS[kind].to_jwk(key, as_dict=True)
    return {name: numbers[name] for name in _IN_THUMBPRINT[kind]}


def _shown_kid(jwk: object) -> str:
    return str(jwk.get("kid", ""))[:80] if isinstance(jwk, dict) else ""
