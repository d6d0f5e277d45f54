"""Owns making tokens and key pairs: for ``casproxy token``, ``keys``, ``dev`` and tests. The server never signs.

Refuses to know files: the caller has read the key and checked who else can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import Final, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from casproxy.auth.claims import Claims
from casproxy.auth.keys import algorithms_for
from casproxy.auth.verify import AUDIENCE
from casproxy.errors import ConfigError

ISSUER: Final = "casproxy"

PrivateKey: TypeAlias = EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey

_RSA_BITS = 3072
_MAKERS: Mapping[str, Callable[[], PrivateKey]] = {
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": Ed25519PrivateKey.generate,
    "RS256": lambda: rsa.generate_private_key(65537, _RSA_BITS),
    "PS256": lambda: rsa.generate_private_key(65537, _RSA_BITS),
}
ALGORITHMS: Final = tuple(_MAKERS)
"""What tokens can be signed with, by JWA names (RFC 7518, 3.1; RFC 8037)."""


def mint(
    private_key_pem: bytes,
    claims: Claims,
    *,
    now: float,
    audience: str = AUDIENCE,
    issuer: str = ISSUER,
    kid: str | None = None,
    algorithm: str | None = None,
) -> str:
    """A signed token that says ``claims``; ``claims.expires_at`` None makes one that never expires.

    ``now``: seconds since the epoch, for ``iat``. ``kid``: the key's name, for a verifier that holds several. The
    algorithm follows from the key (P-521: ES512); only RSA has a choice, RS256 if there is no ``algorithm``.
    ``ConfigError`` for a key that cannot sign, or not so.
    """
    key, fitting = _signing_key(private_key_pem)
    if algorithm is not None and algorithm not in fitting:
        raise ConfigError(f"the private key signs {' or '.join(fitting)}, not {algorithm}")
    header = None if kid is None else {"kid": kid}
    return jwt.encode(
        payload_of(claims, now=now, audience=audience, issuer=issuer), key, algorithm or fitting[0], header
    )


def payload_of(claims: Claims, *, now: float, audience: str = AUDIENCE, issuer: str = ISSUER) -> dict[str, object]:
    """The JSON object a token carries for ``claims``. Dates are whole seconds, what is not set is left out."""
    payload: dict[str, object] = {
        "iss": issuer,
        "aud": [audience],
        "iat": int(now),
        "role": claims.role.value,
        "secret-id": claims.secret_id,
        "backend": claims.backend,
        "org-id": claims.org_id,
    }
    optional = {
        "maxbytes": claims.max_bytes or None,
        "source-internal": claims.source_internal or None,
        "nbf": None if claims.not_before is None else int(claims.not_before),
        "exp": None if claims.expires_at is None else ceil(claims.expires_at),
    }
    return payload | {name: value for name, value in optional.items() if value is not None}


def generate_keypair(algorithm: str = "ES512") -> tuple[bytes, bytes]:
    """A new key pair for one of ``ALGORITHMS`` as PEM: (private, PKCS #8, not encrypted; public)."""
    key = _MAKERS[algorithm]()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _signing_key(pem: bytes) -> tuple[PrivateKey, tuple[str, ...]]:
    """The key and the algorithms it may sign with, at least one."""
    if b"-----BEGIN PUBLIC KEY-----" in pem:
        raise ConfigError("the private key is a public key: tokens are signed with the other half of the pair")
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise ConfigError("the private key is encrypted: decrypt it first with openssl pkey -in FILE") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError("the private key is not a PEM file: want -----BEGIN PRIVATE KEY-----") from error
    if isinstance(key, PrivateKey) and (fitting := algorithms_for(key.public_key())):
        return key, fitting
    raise ConfigError(
        "the private key cannot sign tokens: want an EC key (P-521, P-384, P-256), Ed25519 or RSA >= 2048"
    )
