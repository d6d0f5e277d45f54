"""Owns throw-away certificates for servers of the tests, and the TLS contexts of both sides."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True, slots=True)
class Identity:
    """A key and its certificate, as PEM."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@cache
def authority() -> Identity:
    """The CA of this test run."""
    return new_authority("casproxy tests")


def new_authority(name: str) -> Identity:
    """A CA of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = _builder(name, key, issuer=name)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return Identity(key, builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()))


@cache
def localhost() -> Identity:
    """A server's identity for ``localhost`` and 127.0.0.1, signed by ``authority``."""
    return new_localhost()


def new_localhost() -> Identity:
    """Another one, with a key and a serial number of its own."""
    names = [x509.DNSName("localhost"), x509.DNSName("*.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return _signed("localhost", ExtendedKeyUsageOID.SERVER_AUTH, names, authority())


def new_client(name: str, ca: Identity) -> Identity:
    """The identity of a client, signed by ``ca``."""
    return _signed(name, ExtendedKeyUsageOID.CLIENT_AUTH, [x509.DNSName(name)], ca)


def _signed(name: str, usage: x509.ObjectIdentifier, names: list[x509.GeneralName], ca: Identity) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = ca.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    builder = _builder(name, key, issuer=str(issuer))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    return Identity(key, builder.add_extension(issuer_id, critical=False).sign(ca.key, hashes.SHA256()))


def _builder(name: str, key: ec.EllipticCurvePrivateKey, *, issuer: str) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def write_server_files(directory: Path) -> tuple[Path, Path]:
    """``localhost``'s certificate and key as files: (certificate, key)."""
    certificate, key = directory / "server.pem", directory / "server.key"
    certificate.write_bytes(localhost().certificate_pem)
    key.touch(0o600)
    key.write_bytes(localhost().key_pem)
    return certificate, key


def server_context(directory: Path) -> ssl.SSLContext:
    """For a server of the tests' own. ``directory``: where its files may lie for a moment."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*write_server_files(directory))
    return context


def client_context() -> ssl.SSLContext:
    """For a client that believes ``authority`` and nobody else."""
    return ssl.create_default_context(cadata=authority().certificate_pem.decode())
