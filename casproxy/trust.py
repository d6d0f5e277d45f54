"""Owns whom this process believes when it connects to somebody: one store of CAs, and the form each client wants it in.

::

    the machine's CAs    SSL_CERT_FILE, else the first of the usual files; and every file in
                         SSL_CERT_DIR (several, joined by colons), else /etc/ssl/certs
    added by a mount     every file in /etc/pki/tls/certs
    added by settings    outbound.ca_file
    ──────────────────
    TrustStore           context()    for what runs on our own TLS: registries, JWKS documents, NATS
                         pem          for gRPC: OTLP, Google
                         bundle()     a path for SDKs that want a file: Vault, AWS, Azure, Google's log-in, Sentry

The variables replace what they name, as they do for OpenSSL and Go; the mount and the setting only add. A machine
without CAs of its own (a minimal container) gets those that certifi packs. Read once, at start; blocking. Refuses to
know who connects where (docs/decisions/0018-one-trust-store.md).
"""

from __future__ import annotations

import base64
import os
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import certifi
import structlog

from casproxy.errors import ConfigError

MOUNTED: Final = Path("/etc/pki/tls/certs")
"""Where the chart mounts CAs of the operator's own."""
SYSTEM_FILES: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Alpine
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, RHEL
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),  # RHEL 7 and later
    Path("/etc/ssl/cert.pem"),  # Alpine
)
SYSTEM_DIRECTORY: Final = Path("/etc/ssl/certs")

_BLOCK: Final = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_LARGEST_FILE: Final = 8 * 1024 * 1024
_MEMORY_FILE: Final = "casproxy-trusted-cas"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Places:
    """Where CAs are looked for; the defaults are this machine's."""

    system_files: tuple[Path, ...] = SYSTEM_FILES
    system_directory: Path = SYSTEM_DIRECTORY
    mounted: Path = MOUNTED


class TrustStore:
    """The CAs that were found. Made by ``open_trust``; ``context`` and ``pem`` are good for ever, ``bundle`` is not."""

    def __init__(self, certificates: Iterable[bytes]) -> None:
        self.pem = b"".join(map(_to_pem, certificates))
        """Every CA, as PEM."""
        self._memory_file: int | None = None

    def context(self, *alpn: str) -> ssl.SSLContext:
        """For a client: TLS 1.2 or newer, certificate and name checked, ``alpn`` offered."""
        context = ssl.create_default_context(cadata=self.pem.decode("ascii")) if self.pem else _believing_nobody()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def bundle(self) -> str:
        """The path of a file with every CA, for as long as the store is open. It lies in memory and has no name."""
        if self._memory_file is None:
            self._memory_file = os.memfd_create(_MEMORY_FILE)
            with open(self._memory_file, "wb", closefd=False) as file:
                file.write(self.pem)
        return f"/proc/self/fd/{self._memory_file}"

    def close(self) -> None:
        """Give the file back; idempotent."""
        if self._memory_file is not None:
            os.close(self._memory_file)
            self._memory_file = None


@contextmanager
def open_trust(
    ca_file: Path | None = None, environ: Mapping[str, str] = os.environ, places: Places = Places()
) -> Iterator[TrustStore]:
    """Everything drawn above. ``ca_file``: a PEM file, or a directory of such; ``ConfigError`` when it holds no CA.

    What cannot be read elsewhere is said in the log and left out.
    """
    found = _Certificates()
    _add_system(found, environ, places)
    if not found.by_der and not (environ.get("SSL_CERT_FILE") or environ.get("SSL_CERT_DIR")):
        log.info("no_system_cas", instead=certifi.where())
        found.add_file(Path(certifi.where()))
    found.add_directory(places.mounted)
    if ca_file is not None:
        _add_configured(found, ca_file)
    store = TrustStore(found.by_der)
    try:
        yield store
    finally:
        store.close()


def _add_system(found: _Certificates, environ: Mapping[str, str], places: Places) -> None:
    if named := environ.get("SSL_CERT_FILE"):
        if not found.add_file(Path(named)):
            log.warning("cas_not_found", variable="SSL_CERT_FILE", path=named)
    else:
        any(found.add_file(path) for path in places.system_files)  # the first that is there
    if named := environ.get("SSL_CERT_DIR"):
        for part in filter(None, named.split(":")):
            if not found.add_directory(Path(part)):
                log.warning("cas_not_found", variable="SSL_CERT_DIR", path=part)
    else:
        found.add_directory(places.system_directory)


def _add_configured(found: _Certificates, path: Path) -> None:
    add = found.add_directory if path.is_dir() else found.add_file
    if not add(path):
        why = f" ({found.failure})" if found.failure else ""
        raise ConfigError(f"outbound.ca_file: no certificate in {path}{why}; name a PEM file, or a directory of such")


@dataclass(slots=True)
class _Certificates:
    """Certificates in the order they were found, each once, as DER. Whatever is none is left out."""

    by_der: dict[bytes, None] = field(default_factory=dict)
    failure: str = ""
    """Why the last file could not be read."""
    _checker: ssl.SSLContext = field(default_factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    _read: dict[str, bool] = field(default_factory=dict)

    def add_directory(self, directory: Path) -> bool:
        """Every file in it that is not hidden (Kubernetes hides its own); whether that gave any certificate."""
        try:
            paths = sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            self.failure = error.strerror or ""
            return False
        return sum(self.add_file(path) for path in paths if path.is_file()) > 0

    def add_file(self, path: Path) -> bool:
        """Every certificate in it; whether there was any. Links to a file that was read already cost nothing."""
        real = os.path.realpath(path)
        if real in self._read:
            return self._read[real]
        try:
            with path.open("rb") as file:
                data = file.read(_LARGEST_FILE)
        except OSError as error:
            self.failure = error.strerror or ""
            return False
        self._read[real] = sum(self._add(block[1]) for block in _BLOCK.finditer(data)) > 0
        return self._read[real]

    def _add(self, text: bytes) -> bool:
        """Take over one certificate, if OpenSSL can read it: one that is broken would spoil the store for some SDKs."""
        try:
            der = base64.b64decode(text)
            if der not in self.by_der:
                self._checker.load_verify_locations(cadata=der)
        except (ValueError, ssl.SSLError):
            return False
        self.by_der[der] = None
        return True


def _to_pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode("ascii")


def _believing_nobody() -> ssl.SSLContext:
    """Without a CA, ``ssl.create_default_context`` would fetch the system's."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
