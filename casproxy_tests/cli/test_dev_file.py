"""When dev.json is believed, and what is said when it is not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from casproxy.cli.dev_file import DEV_FILE, DevFile, read_dev_file
from casproxy.errors import ConfigError

FILE = DevFile(
    "127.0.0.1:9001", "127.0.0.1:8001", "127.0.0.1:5001", "FS", "s", "o", "up.tok", "down.tok", "pub", "priv"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "dev.json"
    path.touch(0o600)
    path.write_bytes(FILE.encode())
    return path


def test_what_dev_writes_is_what_the_commands_read(path: Path) -> None:
    assert read_dev_file(path) == FILE
    assert list(json.loads(path.read_bytes())) == [
        *("grpc", "http", "metrics", "backend", "secret_id", "org_id"),
        *("uploader_token", "downloader_token", "public_key", "private_key"),
    ]


def test_no_file_is_no_error(tmp_path: Path) -> None:
    assert read_dev_file(tmp_path / DEV_FILE) is None


def test_it_never_shows_its_tokens() -> None:
    assert "tok" not in f"{FILE!r} {FILE}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o666])
def test_open_to_others_is_not_trusted(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(ConfigError, match=r"run chmod 600 .*dev\.json"):
        read_dev_file(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_user_s_file_is_not_trusted(path: Path) -> None:
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        read_dev_file(path)


@pytest.mark.parametrize(
    "address", ["192.0.2.1:9001", "cas.example.org:443", "localhost:9001", "[::]:9001", "0.0.0.0:1"]
)
def test_an_address_that_is_not_loopback_is_not_trusted(path: Path, address: str) -> None:
    path.write_bytes(path.read_bytes().replace(b"127.0.0.1:9001", address.encode()))
    with pytest.raises(ConfigError, match="points away from this machine"):
        read_dev_file(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"grpc": 1}', b"\xff", FILE.encode().replace(b":9001", b"")])
def test_a_broken_file_says_how_to_renew_it(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="run 'casproxy dev' again"):
        read_dev_file(path)


def test_what_is_no_file_does_not_hang(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    for path in (fifo, tmp_path):
        with pytest.raises(ConfigError, match="give --addr and --token"):
            read_dev_file(path)


def test_fields_of_later_versions_are_ignored(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"{", b'{"later": [1],', 1))
    assert read_dev_file(path) == FILE
