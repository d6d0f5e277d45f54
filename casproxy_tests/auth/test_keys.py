"""PEM files as operators have them: rotated, commented, wrong."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from casproxy.auth.keys import StaticKeys, algorithms_for, parse_pem, read_key_file
from casproxy.errors import ConfigError
from casproxy_tests.auth import forge


@pytest.mark.parametrize(
    ("kind", "algorithms"),
    [
        ("P-521", {"ES512"}),
        ("P-384", {"ES384"}),
        ("P-256", {"ES256"}),
        ("Ed25519", {"EdDSA"}),
        ("RSA-2048", {"RS256", "PS256"}),
    ],
)
def test_each_kind(kind: str, algorithms: set[str]) -> None:
    (key,) = parse_pem(forge.public_pem(kind), origin="test")
    assert key.algorithms == algorithms and key.kid is None


@pytest.mark.parametrize("kind", ["secp256k1", "RSA-1024"])
def test_weak_and_exotic_keys_are_refused(kind: str) -> None:
    assert algorithms_for(forge.private_key(kind).public_key()) == ()
    with pytest.raises(ConfigError, match=r"^test holds a key of a kind that is not accepted: want an EC key on P-256"):
        parse_pem(forge.public_pem(kind), origin="test")


def test_pkcs1_public_key() -> None:
    rsa = forge.private_key("RSA-2048")
    assert isinstance(rsa, RSAPrivateKey)
    pem = rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    assert pem.startswith(b"-----BEGIN RSA PUBLIC KEY-----")
    assert parse_pem(pem, origin="test")[0].algorithms == {"RS256", "PS256"}


def test_several_blocks_with_text_around_them(tmp_path: Path) -> None:
    file = tmp_path / "keys.pem"
    file.write_bytes(b"# old\n" + forge.public_pem() + b"\r\n# new\r\n" + forge.public_pem("P-256") + _certificate())
    assert [sorted(key.algorithms) for key in read_key_file(file)] == [["ES512"], ["ES256"], ["PS256", "RS256"]]


def _certificate() -> bytes:
    key = forge.private_key("RSA-2048")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "control plane")])
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
    builder = builder.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=1)).serial_number(1)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "holds no PEM block"),
        (b"ssh-ed25519 AAAA", "holds no PEM block"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA", "holds no PEM block"),
        (
            b"-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----",
            "holds a broken or unsupported PEM block (PUBLIC KEY)",
        ),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "unsupported PEM block (CERTIFICATE)"),
        (b"-----BEGIN EC PARAMETERS-----\nAAAA\n-----END EC PARAMETERS-----", "unsupported PEM block (EC PARAMETERS)"),
        (b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----", "holds a private key"),
    ],
)
def test_nonsense_says_what_is_wanted(content: bytes, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pem(content, origin="auth.pem")
    assert str(caught.value).startswith("auth.pem ") and text in str(caught.value)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_private_key_does_not_belong_here(form: PrivateFormat) -> None:
    pem = forge.private_key("P-521").private_bytes(Encoding.PEM, form, NoEncryption())
    with pytest.raises(ConfigError, match="holds a private key: put the public one here") as caught:
        parse_pem(forge.public_pem() + pem, origin="auth.pem")
    assert pem.splitlines()[1].decode() not in str(caught.value)


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening one would wait for ever
    for name, reason in (
        ("absent", "No such file or directory"),
        (".", "it is not a regular file"),
        ("pipe", "it is not a regular file"),
    ):
        with pytest.raises(ConfigError, match=rf"^cannot read the public key .*: {reason}$"):
            read_key_file(tmp_path / name)


def test_too_many_keys_are_refused() -> None:
    assert len(parse_pem(forge.public_pem("Ed25519") * 100, origin="auth.pem")) == 100
    with pytest.raises(ConfigError, match=r"^auth\.pem holds 101 PEM blocks; at most 100 are read$"):
        parse_pem(forge.public_pem("Ed25519") * 101, origin="auth.pem")


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "huge"
    file.write_bytes(b"\n" * 1_048_577)
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        read_key_file(file)


def test_static_keys_keep_their_identity() -> None:
    source = StaticKeys(list(forge.keys()))
    assert source.keys() is source.keys()
