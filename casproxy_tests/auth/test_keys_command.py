"""``casproxy keys`` and ``casproxy token`` together: what they make is what a server takes."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import jwt
import pytest

from casproxy.auth.claims import Claims, Role
from casproxy.auth.jwks import parse_jwks, thumbprint
from casproxy.auth.keys import read_key_file
from casproxy.auth.mint import ALGORITHMS
from casproxy.auth.verify import verify
from casproxy.cli.main import build_parser, main
from casproxy.cli.parser import subparsers

TOKEN = ["token", "--role", "uploader", "--backend", "FS", "--secret-id", "team/a", "--org-id", "org", "--private-key"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def generate(capsys: pytest.CaptureFixture[str], directory: Path, algorithm: str = "ES512") -> str:
    """The new key's name."""
    out = run(capsys, "keys", "generate", "--algorithm", algorithm, "--out", directory)
    return out.splitlines()[2].split()[1]


def test_generate_says_what_it_made_and_guards_the_private_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "a" / "b"
    out = run(capsys, "keys", "generate", "--out", directory)
    (key,) = read_key_file(directory / "public.pem")
    assert out == (
        f"private key  {directory}/private.pem\n"
        f"public key   {directory}/public.pem\n"
        f"kid          {thumbprint(key.key)}\n"
    )
    assert key.algorithms == {"ES512"}
    assert sorted(path.name for path in directory.iterdir()) == ["private.pem", "public.pem"]
    assert stat.S_IMODE((directory / "private.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["private.pem", "public.pem"])
def test_generate_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / name).write_text("precious")
    assert main(["keys", "generate", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"casproxy: {tmp_path / name} exists already; name another directory with --out\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_from_key_to_claims(tmp_path: Path, capsys: pytest.CaptureFixture[str], algorithm: str) -> None:
    kid = generate(capsys, tmp_path, algorithm)
    (named,) = parse_jwks(run(capsys, "keys", "jwks", tmp_path / "public.pem").encode(), origin="test")
    assert named.kid == kid and algorithm in named.algorithms
    private = tmp_path / "private.pem"
    token = run(capsys, *TOKEN, private, f"--kid={kid}", "--algorithm", algorithm, "--expires", "0").strip()
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "kid": kid, "typ": "JWT"}
    assert verify(token, [named], 0) == Claims(Role.UPLOADER, "team/a", "FS", "org")


def test_jwks_of_several_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kids = [generate(capsys, tmp_path / name, algorithm) for name, algorithm in (("a", "ES256"), ("b", "RS256"))]
    document = json.loads(run(capsys, "keys", "jwks", tmp_path / "a/public.pem", tmp_path / "b/public.pem"))
    assert [key["kid"] for key in document["keys"]] == kids
    assert [key.get("alg") for key in document["keys"]] == ["ES256", None]  # an RSA key has two
    assert all(key["use"] == "sig" and "d" not in key for key in document["keys"])


def test_jwks_publishes_no_private_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(capsys, tmp_path)
    assert main(["keys", "jwks", str(tmp_path / "private.pem")]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "holds a private key: put the public one here" in printed.err
    assert (tmp_path / "private.pem").read_text().splitlines()[1] not in printed.err


def test_every_claim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(capsys, tmp_path)
    flags = ["--source-internal", "--max-bytes", "1.5GiB", "--not-before", "30s", "--expires", "1h30m"]
    flags += ["--audience", "somebody", "--issuer", "me"]
    token = run(capsys, *TOKEN, tmp_path / "private.pem", *flags).strip()
    payload = jwt.decode(token, options={"verify_signature": False})
    issued = payload["iat"]
    keys = read_key_file(tmp_path / "public.pem")
    claims = verify(token, keys, issued + 100, audience="somebody", issuer="me", require_exp=True)
    assert (claims.source_internal, claims.max_bytes) == (True, 3 * 2**29)
    assert payload["nbf"] - issued == 30 and 5400 <= payload["exp"] - issued <= 5401


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--not-before", "10m"], 2, "--not-before is not before --expires: the token would never be valid"),
        (["--kid", ""], 2, "--kid is empty or holds"),
        (["--issuer", "a\nb"], 2, "--issuer is empty or holds"),
        (["--audience", ""], 2, "--audience is empty or holds"),
        (["--algorithm", "HS256"], 2, "argument --algorithm: invalid choice"),
        (["--algorithm", "ES256"], 1, "the private key signs ES512, not ES256"),
    ],
)
def test_token_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, text: str
) -> None:
    generate(capsys, tmp_path)
    assert main([*TOKEN, str(tmp_path / "private.pem"), *flags]) == code
    printed = capsys.readouterr()
    assert printed.err.startswith(f"casproxy: {text}") and printed.err.count("\n") == 1 and printed.out == ""


@pytest.mark.parametrize("command", ["token", "keys generate"])
def test_the_commands_offer_every_algorithm(command: str) -> None:
    """They name them themselves, because knowing them loads cryptography."""
    parser = build_parser(("token", "keys"))
    for word in command.split():
        parser = subparsers(parser)[word]
    (choices,) = [action.choices for action in parser._actions if action.dest == "algorithm"]
    assert choices is not None and tuple(choices) == ALGORITHMS
