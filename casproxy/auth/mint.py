"""Owns making tokens and key pairs: for ``casproxy token``, ``casproxy dev`` and tests. The server never signs.

Refuses to know files: the caller has read the key and checked who else can.
"""

from __future__ import annotations

from math import ceil

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP521R1, EllipticCurvePrivateKey, generate_private_key
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

_ISSUER = "casproxy"


def mint(private_key_pem: bytes, claims: Claims, *, now: float, audience: str = AUDIENCE) -> str:
    """A signed token that says ``claims``; ``claims.expires_at`` None makes one that never expires.

    ``now``: seconds since the epoch, for ``iat``. The algorithm follows from the key (P-521: ES512). ``ConfigError``
    for a key that cannot sign.
    """
    key, algorithm = _signing_key(private_key_pem)
    return jwt.encode(payload_of(claims, now=now, audience=audience), key, algorithm)


def payload_of(claims: Claims, *, now: float, audience: str = AUDIENCE) -> dict[str, object]:
    """The JSON object a token carries for ``claims``. Dates are whole seconds, what is not set is left out."""
    payload: dict[str, object] = {
        "iss": _ISSUER,
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


def generate_keypair() -> tuple[bytes, bytes]:
    """A new P-521 key pair as PEM: (private, PKCS #8, not encrypted; public)."""
    key = generate_private_key(SECP521R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _signing_key(pem: bytes) -> tuple[EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey, str]:
    if b"-----BEGIN PUBLIC KEY-----" in pem:
        raise ConfigError("the private key is a public key: tokens are signed with the other half of the pair")
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise ConfigError("the private key is encrypted: decrypt it first with openssl pkey -in FILE") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError("the private key is not a PEM file: want -----BEGIN PRIVATE KEY-----") from error
    if isinstance(key, EllipticCurvePrivateKey | Ed25519PrivateKey | RSAPrivateKey):
        for algorithm in algorithms_for(key.public_key()):
            return key, algorithm
    raise ConfigError(
        "the private key cannot sign tokens: want an EC key (P-521, P-384, P-256), Ed25519 or RSA >= 2048"
    )
