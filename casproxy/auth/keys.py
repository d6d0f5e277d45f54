"""Owns the keys tokens are checked with: what a source of them promises, PEM, and which algorithms each kind allows.

The algorithm is bound to the key, never to what a token says of itself (RFC 8725, section 3.1), so a public key cannot
be replayed as an HMAC secret. Refuses to know tokens and claims. Reading a file blocks: do it at start-up or in a
worker thread. ``jwks`` reads the other form keys come in, ``key_ring`` keeps them current.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from casproxy.errors import ConfigError

PublicKey: TypeAlias = EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey

MAX_DOCUMENT: Final = 1024 * 1024
"""Bytes, of a file or document with keys."""
MAX_KEYS: Final = 100
"""Of one file, directory or document. A token without ``kid`` may be tried with each of them."""

_MIN_RSA_BITS = 2048
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_PUBLIC_LABELS = {b"PUBLIC KEY", b"RSA PUBLIC KEY"}
_ON_CURVE = {SECP256R1.name: "ES256", SECP384R1.name: "ES384", SECP521R1.name: "ES512"}
_KINDS = "an EC key on P-256, P-384 or P-521, an Ed25519 key, or an RSA key of 2048 bits or more"


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key and the only algorithms it may be used with. ``kid``: None for a key that came without a name."""

    key: PublicKey
    algorithms: frozenset[str]
    kid: str | None = None


class KeySource(Protocol):
    """Where verification keys come from."""

    def keys(self) -> Sequence[VerificationKey]:
        """The keys that are good now, without blocking. The same object until they change: caches tell by identity."""

    async def seek(self) -> None:
        """A token names a key nobody knows: look again, unless that was done a moment ago; ``keys`` may then differ.

        Waits for an answer, however late keys are, for a bounded time. Cancelled, it leaves at once; others who wait
        for the same answer still get it. Never fails.
        """


class StaticKeys:
    """A ``KeySource`` whose keys never change."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Sequence[VerificationKey]) -> None:
        self._keys = tuple(keys)

    def keys(self) -> Sequence[VerificationKey]:
        """Always the same keys."""
        return self._keys

    async def seek(self) -> None:
        """There is nowhere to look."""


def read_document(path: Path, *, what: str) -> bytes:
    """A file of at most ``MAX_DOCUMENT`` bytes; ``ConfigError`` otherwise, where ``what`` says what it should hold."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for a writer
            raise ConfigError(f"cannot read {what} {path}: it is not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}") from error
    if len(data) > MAX_DOCUMENT:
        raise ConfigError(f"{path} is larger than {MAX_DOCUMENT} bytes: does it hold {what}?")
    return data


def read_key_file(path: Path) -> tuple[VerificationKey, ...]:
    """Every public key and certificate in a PEM file, at least one; ``ConfigError`` says what to do otherwise."""
    return parse_pem(read_document(path, what="the public key"), origin=str(path))


def parse_pem(data: bytes, *, origin: str) -> tuple[VerificationKey, ...]:
    """Read one or more PEM blocks; ``origin`` names them in a ``ConfigError``. Text around the blocks is ignored."""
    blocks = list(_BLOCK.finditer(data))
    if not blocks:
        raise ConfigError(f"{origin} holds no PEM block: want -----BEGIN PUBLIC KEY-----")
    if len(blocks) > MAX_KEYS:
        raise ConfigError(f"{origin} holds {len(blocks)} PEM blocks; at most {MAX_KEYS} are read")
    return tuple(_parse_block(block[0], block[1], origin) for block in blocks)


def algorithms_for(key: object) -> tuple[str, ...]:
    """The JWA names ``key`` may sign or verify under, the preferred one first; empty for a kind we refuse."""
    if isinstance(key, EllipticCurvePublicKey):
        name = _ON_CURVE.get(key.curve.name)
        return (name,) if name else ()
    if isinstance(key, Ed25519PublicKey):
        return ("EdDSA",)
    if isinstance(key, RSAPublicKey) and key.key_size >= _MIN_RSA_BITS:
        return ("RS256", "PS256")
    return ()


def _parse_block(block: bytes, label: bytes, origin: str) -> VerificationKey:
    if label.endswith(b"PRIVATE KEY"):
        raise ConfigError(f"{origin} holds a private key: put the public one here (openssl pkey -in FILE -pubout)")
    try:
        key = _load(block, label)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{origin} holds a broken or unsupported PEM block ({label.decode()}): want {_KINDS}"
        ) from error
    algorithms = algorithms_for(key)
    if not algorithms or not isinstance(key, PublicKey):
        raise ConfigError(f"{origin} holds a key of a kind that is not accepted: want {_KINDS}")
    return VerificationKey(key, frozenset(algorithms))


def _load(block: bytes, label: bytes) -> object:
    if label == b"CERTIFICATE":
        return x509.load_pem_x509_certificate(block).public_key()
    if label in _PUBLIC_LABELS:
        return load_pem_public_key(block)
    raise ValueError("neither a public key nor a certificate")
