"""Owns the choice of key sources: configuration in, keys out. Refuses to know how any of them is read.

Several settings may name keys at once; a token is good when any of them fits.
"""

from __future__ import annotations

import math
import ssl
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from casproxy.auth.jwks import parse_jwks
from casproxy.auth.key_files import KeyFiles
from casproxy.auth.key_parts import KeyPart
from casproxy.auth.key_ring import KeyRing, RingSettings, open_ring
from casproxy.auth.key_url import KeyUrl
from casproxy.auth.keys import VerificationKey, read_document, read_key_file
from casproxy.config.model import Auth
from casproxy.errors import ConfigError


def open_keys(auth: Auth, tls: ssl.SSLContext | None = None) -> AbstractAsyncContextManager[KeyRing]:
    """The keys that ``auth`` names, kept current until the block is left. ``tls``: for the server of ``auth.jwks.url``.

    ``ConfigError`` when it names none, when a file is at fault, or when nothing gives a key.
    """
    parts = _parts(auth, tls)
    if not parts:
        raise ConfigError(
            "auth.public_key_path is not set; name the PEM file of the key that verifies tokens, or set auth.jwks"
        )
    return open_ring(parts, RingSettings(seek_interval=auth.jwks.refetch_interval))


def _parts(auth: Auth, tls: ssl.SSLContext | None) -> list[KeyPart]:
    jwks, parts = auth.jwks, list[KeyPart]()
    if auth.public_key_path is not None:
        parts.append(KeyFiles(auth.public_key_path, read_key_file, setting="auth.public_key_path", max_stale=math.inf))
    if jwks.path is not None:
        parts.append(KeyFiles(jwks.path, _read_jwks_file, setting="auth.jwks.path", max_stale=jwks.max_stale))
    if jwks.url is not None:
        times = {"every": jwks.refresh, "max_stale": jwks.max_stale}
        parts.append(KeyUrl(jwks.url, setting="auth.jwks.url", tls=tls, **times))
    return parts


def _read_jwks_file(path: Path) -> tuple[VerificationKey, ...]:
    return parse_jwks(read_document(path, what="the JWK Set"), origin=str(path))
