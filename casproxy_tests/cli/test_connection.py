"""Where address and token come from: flags, environment, dev.json, and in which order."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from casproxy.auth.claims import Role
from casproxy.cli.connection import Connection, add_connection_flags, find_connection
from casproxy.cli.parser import Parser, UsageError
from casproxy.errors import ConfigError
from casproxy_tests.cli.command import write_dev_file
from casproxy_tests.real.certificates import Identity, new_authority, new_client


def parse(*arguments: str) -> argparse.Namespace:
    parser = Parser()
    add_connection_flags(parser, default_timeout="none")
    return parser.parse_args(arguments)


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def find(*arguments: str, role: Role | None = Role.UPLOADER, **environ: str) -> Connection:
    return find_connection(parse(*arguments), role, environ)


def test_flags_only() -> None:
    found = find("--addr", "h:1", "--token", " a.b \n", "--insecure")
    assert found == Connection("h:1", "a.b", None)
    assert "a.b" not in repr(found)


def test_tls_is_the_default() -> None:
    found = find("--addr", "h:1", "--token", "t")
    assert found.tls is not None
    assert found.tls.check_hostname


def test_the_token_may_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from.file\n")
    address = ("--addr", "h:1", "--insecure")
    assert find(*address, "--token-file", "token", CASPROXY_TOKEN="from.env").token == "from.file"
    assert find(*address, CASPROXY_TOKEN="from.env\n").token == "from.env"
    assert find(*address, "--token", "from.flag", CASPROXY_TOKEN="from.env").token == "from.flag"


def test_no_token_is_a_usage_error_where_one_is_needed() -> None:
    with pytest.raises(UsageError, match="--token"):
        find("--addr", "h:1")
    assert find("--addr", "h:1", role=None).token == ""


@pytest.mark.parametrize("arguments", [("--token", " "), ("--token-file", "empty")])
def test_an_empty_token_is_not_a_token(tmp_path: Path, arguments: tuple[str, str]) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match="holds no token"):
        find("--addr", "h:1", *arguments)


def test_no_address_and_no_dev_json() -> None:
    with pytest.raises(UsageError, match="give --addr HOST:PORT, or run this where 'casproxy dev' runs"):
        find()


@pytest.mark.parametrize(("role", "token"), [(Role.UPLOADER, "up.tok"), (Role.DOWNLOADER, "down.tok"), (None, "")])
def test_dev_json_gives_address_and_the_token_of_the_role(tmp_path: Path, role: Role | None, token: str) -> None:
    write_dev_file(tmp_path, "127.0.0.1:7")
    assert find(role=role) == Connection("127.0.0.1:7", token, None, from_dev_file=True)


def test_a_given_token_wins_over_dev_json(tmp_path: Path) -> None:
    write_dev_file(tmp_path, "127.0.0.1:7")
    assert find("--token", "mine").token == "mine"
    assert find(CASPROXY_TOKEN="mine").token == "mine"


def test_the_tokens_of_dev_json_go_to_no_other_address(tmp_path: Path) -> None:
    write_dev_file(tmp_path, "127.0.0.1:7").chmod(0o644)  # not even read, so not even refused
    with pytest.raises(UsageError, match="no token"):
        find("--addr", "h:1")
    with pytest.raises(ConfigError, match="chmod 600"):
        find()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--token", "a", "--token-file", "b"),
        ("--insecure", "--ca", "x"),
        *(("--timeout", value) for value in ("0", "-1", "x", "nan", "inf", "1e9")),
    ],
)
def test_what_does_not_go_together_or_is_no_time(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        parse(*arguments)


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    for name, text in (("ca.pem", "holds no certificate"), ("missing.pem", "cannot read missing.pem")):
        with pytest.raises(ConfigError, match=text):
            find("--addr", "h:1", "--token", "t", "--ca", name)


@pytest.fixture
def pair(tmp_path: Path) -> Identity:
    made = new_client("uploader", new_authority("clients"))
    (tmp_path / "c.pem").write_bytes(made.certificate_pem)
    (tmp_path / "k.pem").write_bytes(made.key_pem)
    (tmp_path / "both.pem").write_bytes(made.certificate_pem + made.key_pem)
    (tmp_path / "other.pem").write_bytes(new_client("other", new_authority("others")).key_pem)
    return made


@pytest.mark.usefixtures("pair")
def test_a_client_certificate_from_flags_or_the_environment() -> None:
    address = ("--addr", "h:1", "--token", "t")
    assert find(*address, "--cert", "c.pem", "--key", "k.pem", CASPROXY_KEY="missing").tls is not None
    assert find(*address, "--cert", "both.pem").tls is not None
    assert find(*address, CASPROXY_CERT="c.pem", CASPROXY_KEY="k.pem").tls is not None
    assert find(*address, "--insecure", CASPROXY_CERT="missing").tls is None


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--cert", "c.pem", "--key", "none.pem"), "cannot read none.pem"),
        (("--cert", "c.pem", "--key", "other.pem"), "the key in other.pem does not belong to the certificate in c.pem"),
        (("--cert", "c.pem"), "c.pem holds no certificate with its key"),
    ],
)
def test_a_client_certificate_that_cannot_be_used(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        find("--addr", "h:1", "--token", "t", *arguments)


@pytest.mark.parametrize("arguments", [("--key", "k.pem"), ("--insecure", "--cert", "c.pem")])
def test_a_client_certificate_that_makes_no_sense(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--cert"):
        find("--addr", "h:1", "--token", "t", *arguments)
