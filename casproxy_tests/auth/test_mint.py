"""What is minted here is believed there, and keys that cannot sign say why."""

from __future__ import annotations

import stat
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from casproxy.auth.claims import Claims, Role
from casproxy.auth.keys import parse_pem
from casproxy.auth.mint import generate_keypair, mint
from casproxy.auth.verify import verify
from casproxy.cli.main import main
from casproxy.errors import ConfigError
from casproxy.files import write_private
from casproxy_tests.auth import forge
from casproxy_tests.auth.forge import NOW

PLAIN = Claims(role=Role.DOWNLOADER, secret_id="a", backend="FS")


def private_pem(kind: str) -> bytes:
    return forge.private_key(kind).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "claims",
    [
        PLAIN,
        Claims(Role.UPLOADER, "a/b", "OCI", "org", 100, True, expires_at=NOW + 60, not_before=NOW - 60),
    ],
)
def test_round_trip(claims: Claims) -> None:
    private, public = generate_keypair()
    token = mint(private, claims, now=NOW)
    assert jwt.get_unverified_header(token)["alg"] == "ES512"
    assert verify(token, parse_pem(public, origin="test"), NOW) == claims


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [("P-521", "ES512"), ("P-384", "ES384"), ("P-256", "ES256"), ("Ed25519", "EdDSA"), ("RSA-2048", "RS256")],
)
def test_the_algorithm_follows_from_the_key(kind: str, algorithm: str) -> None:
    token = mint(private_pem(kind), PLAIN, now=NOW)
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    assert verify(token, forge.keys(kind), NOW) == PLAIN


@pytest.mark.parametrize(
    ("pem", "text"),
    [
        (forge.public_pem(), "is a public key"),
        (b"nonsense", "is not a PEM file"),
        (b"", "is not a PEM file"),
        (private_pem("RSA-1024"), "cannot sign tokens"),
        (private_pem("secp256k1"), "cannot sign tokens"),
        (
            forge.private_key("P-521").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")),
            "is encrypted",
        ),
    ],
)
def test_keys_that_cannot_sign(pem: bytes, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^the private key {text}"):
        mint(pem, PLAIN, now=NOW)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    write_private(path, private_pem("P-521"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path


def command(key: Path, *more: str) -> int:
    flags = ["--role", "uploader", "--backend", "FS", "--secret-id", "team/a", "--org-id", "org"]
    return main(["token", *flags, "--private-key", str(key), *more])


def test_command_prints_a_token_and_nothing_else(key_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(key_file, "--max-bytes", "100MiB", "--expires", "0") == 0
    printed = capsys.readouterr()
    claims = verify(printed.out.removesuffix("\n"), forge.keys(), NOW)
    assert claims == Claims(Role.UPLOADER, "team/a", "FS", "org", max_bytes=100 * 2**20)
    assert printed.err == ""


def test_command_shows_claims_and_expires_in_ten_minutes(key_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(key_file, "--show") == 0
    printed = capsys.readouterr()
    payload = jwt.decode(printed.out.strip(), options={"verify_signature": False})
    assert 600 <= payload["exp"] - payload["iat"] <= 601
    assert '"secret-id": "team/a"' in printed.err and printed.out.strip() not in printed.err


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--secret-id", "../a"], 2, "--secret-id: no secret can have the id '../a'"),
        (["--org-id", "a\nb"], 2, "--org-id is empty or holds"),
        (["--backend", ""], 2, "--backend is empty or holds"),
        (["--max-bytes", "lots"], 2, "argument --max-bytes: want a size such as"),
        (["--expires", "soon"], 2, "argument --expires: want a duration such as"),
        (["--role", "admin"], 2, "argument --role: invalid choice"),
        (["--private-key", "absent.pem"], 1, "cannot read absent.pem: No such file"),
    ],
)
def test_command_refuses_in_one_line(
    key_file: Path, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, text: str
) -> None:
    assert command(key_file, *flags) == code
    printed = capsys.readouterr()
    assert printed.err.startswith(f"casproxy: {text}") and printed.err.count("\n") == 1 and printed.out == ""


def test_command_refuses_a_key_others_can_read(key_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key_file.chmod(0o644)
    assert command(key_file) == 1
    assert f"run chmod 600 {key_file}" in capsys.readouterr().err
