"""Owns a caller's side of TLS: whom it believes, and what it shows to a server that asks. Refuses to know flags."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from casproxy.errors import ConfigError


def tls_context(
    ca_file: Path | None = None, cert_file: Path | None = None, key_file: Path | None = None
) -> ssl.SSLContext:
    """TLS 1.2 or newer, HTTP/2, the system's CAs or those of ``ca_file``. All files are PEM.

    ``cert_file``: the certificate for servers that ask for one, then those between it and the CA. ``key_file``: its
    key; None: that is in ``cert_file`` as well. ``ConfigError`` says which file cannot be used, and why.
    """
    for path in filter(None, (ca_file, cert_file, key_file)):
        _check_readable(path)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise ConfigError(f"{ca_file} holds no certificate in PEM form: give the CA's certificate with --ca") from error
    context.set_alpn_protocols(["h2"])
    if cert_file is not None:
        _show(context, cert_file, key_file or cert_file)
    elif key_file is not None:
        raise ConfigError(f"{key_file} is the key of a certificate that is not given: name it with --cert")
    return context


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The arguments of ``tls_context``, for those who need the files as well."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """See ``tls_context``."""
        return tls_context(self.ca, self.cert, self.key)


def _check_readable(path: Path) -> None:
    """OpenSSL's own errors do not name the file."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key, password="")  # so that nobody is asked for one
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"the key in {key} does not belong to the certificate in {certificate}") from error
        files = f"{certificate} holds no certificate with its key" if key == certificate else ""
        raise ConfigError(
            f"{files or f'{certificate} and {key} are not a certificate and its key'} in PEM form "
            f"({error.reason or 'unreadable'}); a key with a passphrase cannot be used"
        ) from error
