"""Owns the certificate that a port shows: loading it with its key, noticing a new one, keeping the old one when the new
one is broken. Refuses to know ports and connections.

::

    every second: have the files changed? ── no ──▶ nothing
                     │ yes
                     ├─ they fit ──▶ connections from now on get the new one; those that are there keep theirs
                     └─ they do not, twice in a row ──▶ the old one stays; said once in the log; its age grows
                                                        (twice: whoever writes two files writes one first)

Kubernetes mounts a directory of symlinks through ``..data`` and swaps that one link, so what counts as changed is the
file that a path leads to. Source: RFC 9113, section 9.2, for what TLS must be like below HTTP/2.
"""

from __future__ import annotations

import datetime as dt
import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import structlog
import trio
from cryptography import x509

from casproxy.background import background
from casproxy.errors import ConfigError
from casproxy.files import file_signature
from casproxy.in_thread import run_in_thread

LOOK_EVERY: Final = 1.0
"""Seconds. A look is two or three stat(2) calls in a worker thread."""

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: what RFC 9113, appendix A, leaves. TLS 1.3 has its own."""

_Signature: TypeAlias = tuple[object, ...]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files. ``setting`` names them in errors. ``client_ca``: only clients that show a certificate of these CAs."""

    setting: str
    certificate: Path
    private_key: Path
    client_ca: Path | None = None
    alpn: tuple[str, ...] = ("h2",)

    def signature(self) -> _Signature:
        """Differs when the content of a file may differ."""
        paths = (self.certificate, self.private_key, self.client_ca)
        return tuple(None if path is None else file_signature(path) for path in paths)

    def load(self) -> ssl.SSLContext:
        """The server's side of TLS 1.2 or newer. ``ConfigError`` says which file to mend, and how."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_alpn_protocols(list(self.alpn))
        self._load_pair(context)
        if self.client_ca is not None:
            self._require_client(context, self.client_ca)
        return context

    def _load_pair(self, context: ssl.SSLContext) -> None:
        pair = f"{self.certificate} and {self.private_key}"
        try:
            context.load_cert_chain(self.certificate, self.private_key, password="")  # so that nobody is asked for one
        except ssl.SSLError as error:
            raise ConfigError(
                f"{self.setting}: {pair} are not a PEM certificate and its key ({error.reason}); "
                "check that they belong together and that the key has no passphrase"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"{self.setting}: cannot read {pair.replace(' and ', ' or ')} ({error.strerror}); "
                "check the paths and their permissions"
            ) from error

    def _require_client(self, context: ssl.SSLContext, path: Path) -> None:
        try:
            context.load_verify_locations(cafile=path)
        except OSError as error:  # ssl.SSLError is one
            reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigError(
                f"{self.setting}.client_ca_file: cannot use {path} ({reason}); name a PEM file with the CAs of clients"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What one look found. ``expires``: Unix time, NaN when it cannot be told."""

    signature: _Signature
    context: ssl.SSLContext
    expires: float


@dataclass(frozen=True, slots=True)
class _Fault:
    signature: _Signature
    text: str


class ServedCertificate:
    """The certificate of one port, kept current. Made by ``open_certificate``."""

    def __init__(self, files: CertificateFiles, loaded: _Loaded) -> None:
        self.setting = files.setting
        self._files = files
        self._loaded = loaded
        self._fault: _Fault | None = None
        self._told = ""
        self._current_at = trio.current_time()
        self._limiter = trio.CapacityLimiter(1)  # a file system that hangs holds one thread, not one per look

    def context(self) -> ssl.SSLContext:
        """What the next connection is to be served with."""
        return self._loaded.context

    @property
    def expires(self) -> float:
        """When the certificate that is shown stops being valid, as Unix time; NaN when that cannot be told."""
        return self._loaded.expires

    @property
    def age(self) -> float:
        """Seconds since the files were last found in order."""
        return trio.current_time() - self._current_at

    async def keep_current(self, every: float = LOOK_EVERY) -> None:
        """Look at the files again and again, for ever. Run as a task."""
        while True:
            await trio.sleep(every)
            self._note(await run_in_thread(partial(_look, self._files, self._loaded.signature), limiter=self._limiter))

    def _note(self, found: _Loaded | _Fault | None) -> None:
        before, self._fault = self._fault, found if isinstance(found, _Fault) else None
        if isinstance(found, _Fault):
            if found == before and found.text != self._told:
                self._told = found.text
                log.warning("certificate_not_read", reason=found.text, still_served_until=_date(self.expires))
            return
        self._current_at = trio.current_time()
        if found is not None:
            self._loaded = found
            log.info("certificate_changed", setting=self.setting, expires=_date(found.expires))
        elif self._told:
            log.info("certificate_read_again", setting=self.setting)
        self._told = ""


@asynccontextmanager
async def open_certificate(files: CertificateFiles, every: float = LOOK_EVERY) -> AsyncIterator[ServedCertificate]:
    """The certificate in ``files``, looked at ``every`` so many seconds until the block is left.

    ``ConfigError`` when it cannot be served now.
    """
    loaded = _load(files, files.signature())  # start-up: nothing to cancel for
    certificate = ServedCertificate(files, loaded)
    async with background(partial(certificate.keep_current, every)):
        yield certificate


def _look(files: CertificateFiles, known: _Signature) -> _Loaded | _Fault | None:
    """None: nothing has changed. Files that change while they are read are a fault, told when it is seen twice.

    Else what was read would be kept under the signature of what was there before, and be a change once more.
    """
    signature = files.signature()
    if signature == known:
        return None
    try:
        loaded = _load(files, signature)
        if files.signature() == signature:
            return loaded
        return _Fault(signature, f"{files.setting}: the files changed while they were read")
    except ConfigError as error:
        return _Fault(signature, str(error))
    except Exception as error:  # what nobody foresaw must not end a server whose certificate is good
        return _Fault(signature, f"{files.setting}: unexpected {type(error).__name__}")


def _load(files: CertificateFiles, signature: _Signature) -> _Loaded:
    return _Loaded(signature, files.load(), _expiry(files.certificate))


def _expiry(path: Path) -> float:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):  # it was loaded a moment ago: swapped since, or odder than OpenSSL minds
        return math.nan


def _date(timestamp: float) -> str:
    return "" if math.isnan(timestamp) else dt.datetime.fromtimestamp(timestamp, dt.UTC).isoformat(timespec="seconds")
