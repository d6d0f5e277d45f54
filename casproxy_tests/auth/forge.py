"""Makes keys and tokens of every kind, good and evil: it signs whatever bytes it is given."""

from __future__ import annotations

import datetime
import functools
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from casproxy.auth.keys import VerificationKey, parse_pem

PrivateKey = ec.EllipticCurvePrivateKey | Ed25519PrivateKey | rsa.RSAPrivateKey

NOW = 1_700_000_000.0
GOOD: Mapping[str, object] = {
    "role": "uploader",
    "secret-id": "tenants/acme-1",
    "backend": "OCI",
    "org-id": "5d2a9d6c-2f4f-4a4e-8d3b-1c1f7f5b0a11",
    "maxbytes": 104857600,
    "aud": ["artifact-cas.chainloop"],
    "exp": int(NOW) + 600,
}


@functools.cache
def private_key(kind: str) -> PrivateKey:
    """One key per kind for the whole run: P-521, P-384, P-256, secp256k1, Ed25519, RSA-1024, RSA-2048, other P-521."""
    if kind == "Ed25519":
        return Ed25519PrivateKey.generate()
    if kind.startswith("RSA"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-")))
    curves: dict[str, ec.EllipticCurve] = {"256": ec.SECP256R1(), "384": ec.SECP384R1(), "521": ec.SECP521R1()}
    return ec.generate_private_key(ec.SECP256K1() if kind == "secp256k1" else curves[kind[-3:]])


def public_pem(kind: str = "P-521") -> bytes:
    """The public half in PEM."""
    return private_key(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def keys(*kinds: str) -> tuple[VerificationKey, ...]:
    """What a server that was given these public keys verifies with."""
    return tuple(key for kind in kinds or ("P-521",) for key in parse_pem(public_pem(kind), origin="test"))


def token(
    payload: Mapping[str, object] | bytes = GOOD,
    *,
    kind: str = "P-521",
    algorithm: str = "ES512",
    header: Mapping[str, object] | bytes | None = None,
    kid: str | None = None,
) -> str:
    """A token over exactly these bytes, signed by ``algorithm`` whatever the header says."""
    plain: Mapping[str, object] = {"alg": algorithm, "typ": "JWT"} | ({} if kid is None else {"kid": kid})
    head = plain if header is None else header
    signed = f"{encode(_json(head))}.{encode(_json(payload))}"
    signature = jwt.PyJWS().get_algorithm_by_name(algorithm).sign(signed.encode(), private_key(kind))
    return f"{signed}.{encode(signature)}"


def self_signed(directory: Path, host: str) -> Path:
    """A PEM file with a certificate for ``host`` and its key."""
    key, name = private_key("P-256"), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1)
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    file = directory / f"{host}.pem"
    file.write_bytes(certificate + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return file


def encode(data: bytes) -> str:
    """base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(value: Mapping[str, object] | bytes) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()
