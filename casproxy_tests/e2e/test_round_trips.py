"""Artifacts go up and come back identical, through the command line and through grpcio, in bounded memory."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import httpx
import pytest

from casproxy.digest import Digest
from casproxy_tests.cas import PLAIN
from casproxy_tests.e2e.peer import CHUNK, Peer, chunked, gob_name, write_requests
from casproxy_tests.e2e.processes import Dev, casproxy, error_line, peak_rss, reset_peak_rss

MIB = 1024 * 1024
BIG = 1024 * MIB if os.environ.get("CASPROXY_SOAK") == "1" else 64 * MIB
GROWTH_LIMIT = 32 * MIB

NAMES = ["plain.txt", "señal-日本語-🚀.tar.gz", 'a "b";c.bin']


def incompressible(size: int) -> bytes:
    """The same bytes for the same size, without a pattern."""
    return hashlib.shake_128(b"%d" % size).digest(size)


def write_big(path: Path) -> None:
    with path.open("wb") as file:
        for index in range(BIG // MIB):
            file.write(incompressible(MIB - 1) + b"%c" % (index % 256))


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 5000], ids=["empty", "one byte", "1.2 MiB"])
def test_the_command_line_brings_back_what_it_took(dev: Dev, tmp_path: Path, name: str, content: bytes) -> None:
    content = content + name.encode() if len(content) > 1 else content
    (tmp_path / name).write_bytes(content)
    up = casproxy(dev.directory, "upload", str(tmp_path / name))
    assert up.returncode == 0, up.stderr
    digest = Digest.of(content)
    assert up.stdout.decode().split()[0] == str(digest)
    down = casproxy(dev.directory, "download", str(digest), "-o", str(tmp_path / "copy"))
    assert down.returncode == 0, down.stderr
    assert (tmp_path / "copy").read_bytes() == content
    described = casproxy(dev.directory, "describe", str(digest))
    assert described.returncode == 0, described.stderr
    if len(content) > 1:  # the shorter ones are stored once, under the first name
        assert name in described.stdout.decode()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17])
def test_grpcio_with_gob_names_brings_back_what_it_took(peer: Peer, name: str, size: int) -> None:
    content = incompressible(size)
    digest = Digest.of(content)
    resource = gob_name(digest, name)
    assert peer.write(write_requests(resource, chunked(content))) == size
    assert peer.read(resource) == content
    assert peer.read(digest.hex) == content
    assert peer.describe(str(digest)).size == size


def test_every_form_of_name_reads_the_same_artifact(peer: Peer) -> None:
    content = b"three names"
    digest = Digest.of(content)
    upload = f"instance/uploads/0c2e2c4a-5d37-4b0b-9c0e-3a0d1c5d6b7e/blobs/{digest.hex}/{len(content)}/x.txt"
    assert peer.write(write_requests(upload, [content])) == len(content)
    for name in (str(digest), digest.hex, f"blobs/{digest.hex}/{len(content)}", gob_name(digest)):
        assert peer.read(name) == content
    assert peer.read(digest.hex, read_offset=6, read_limit=3) == content[6:9]
    assert peer.describe(str(digest)).file_name == "x.txt"


def test_a_big_artifact_moves_through_little_memory(dev: Dev, tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    write_big(path)
    before = reset_peak_rss(dev.process.pid)
    up = casproxy(dev.directory, "upload", str(path))
    assert up.returncode == 0, up.stderr
    digest = up.stdout.decode().split()[0]
    down = casproxy(dev.directory, "download", digest, "-o", str(tmp_path / "copy"))
    assert down.returncode == 0, down.stderr
    growth = peak_rss(dev.process.pid) - before
    assert f"sha256:{sha256_of(tmp_path / 'copy')}" == digest
    assert growth < GROWTH_LIMIT, f"RSS grew by {growth / MIB:.1f} MiB"

    taken = bytes_taken(dev)
    again = casproxy(dev.directory, "upload", str(path))
    assert again.returncode == 0, again.stderr
    assert again.stdout == up.stdout
    assert bytes_taken(dev) - taken < BIG / 8, "an artifact that is stored was sent again"


def bytes_taken(dev: Dev) -> float:
    """Bytes of messages the server has read from clients, from its own metrics."""
    text = httpx.get(f"http://{dev.facts['metrics']}/metrics", verify=PLAIN, trust_env=False).text
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("casproxy_message_bytes_total{") and 'direction="in"' in line
    )


def test_an_unknown_artifact_is_exit_code_3_and_one_line(dev: Dev) -> None:
    result = casproxy(dev.directory, "download", f"sha256:{'0' * 64}")
    assert result.returncode == 3
    assert "not found" in error_line(result)
