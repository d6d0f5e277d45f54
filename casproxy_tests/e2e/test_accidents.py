"""Processes killed half way, and a full disk: nothing visible, nothing left behind, a clear error."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from casproxy.digest import Digest
from casproxy_tests.e2e.peer import CHUNK, chunked, connected, gob_name, write_requests
from casproxy_tests.e2e.processes import SLOWEST_SECONDS, casproxy, error_line, files, running_dev
from casproxy_tests.real import missing, require_root

CONTENT = bytes(range(256)) * (64 * CHUNK // 256)
DIGEST = Digest.of(CONTENT)


def test_the_server_is_killed_at_half_of_an_upload(tmp_path: Path) -> None:
    with running_dev(tmp_path) as dev:
        before = files(dev.store)

        def half_then_kill() -> Iterator[bytes]:
            for index, chunk in enumerate(chunked(CONTENT)):
                if index == len(CONTENT) // CHUNK // 2:
                    dev.process.kill()
                yield chunk

        with connected(dev.facts) as peer, pytest.raises(grpc.RpcError) as caught:
            peer.write(write_requests(gob_name(DIGEST), half_then_kill()))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert dev.process.wait(SLOWEST_SECONDS) == -signal.SIGKILL
        assert files(dev.store) != before, "the kill came before anything was written: this test proves nothing"
    with running_dev(tmp_path) as dev:
        assert files(dev.store) == before
        result = casproxy(tmp_path, "describe", str(DIGEST))
        assert result.returncode == 3, result.stderr


STALLING_CLIENT = """
import json, sys, threading
from casproxy_tests.e2e import peer
from casproxy_tests.e2e.test_accidents import CONTENT, DIGEST

def half_then_wait():
    for index, chunk in enumerate(peer.chunked(CONTENT)):
        if index == len(CONTENT) // peer.CHUNK // 2:
            print("half", flush=True)
            threading.Event().wait()
        yield chunk

with peer.connected(json.load(open(sys.argv[1]))) as connection:
    connection.write(peer.write_requests(peer.gob_name(DIGEST), half_then_wait()))
"""


def test_the_client_is_killed_at_half_of_an_upload(tmp_path: Path) -> None:
    with running_dev(tmp_path) as dev:
        before = files(dev.store)
        command = [sys.executable, "-c", STALLING_CLIENT, str(tmp_path / ".casproxy/dev.json")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "half\n"
            client.kill()
        assert dev.stop() == 0  # the drain waits for the clean-up
        assert files(dev.store) == before
        [line] = [line for line in dev.log() if line.get("method") == "google.bytestream.ByteStream/Write"]
        assert line["code"] == "CANCELLED"
        assert line["digest"] == str(DIGEST)
        assert line["bytes"] > 0


def test_a_full_disk(tmp_path: Path) -> None:
    require_root("mounting a small tmpfs")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        missing("this root may not mount a tmpfs; needed for a full disk")
    try:
        with running_dev(disk) as dev:
            before = files(dev.store)
            with connected(dev.facts) as peer, pytest.raises(grpc.RpcError) as caught:
                peer.write(write_requests(gob_name(DIGEST), chunked(CONTENT)))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert files(dev.store) == before
            (tmp_path / "big.bin").write_bytes(CONTENT)
            refused = casproxy(disk, "upload", str(tmp_path / "big.bin"))
            assert refused.returncode == 1
            assert "RESOURCE_EXHAUSTED" in error_line(refused)
            small = casproxy(disk, "upload", "-", stdin=b"room for this")
            assert small.returncode == 0, small.stderr
            assert dev.stop() == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_drain_lets_an_upload_finish(tmp_path: Path) -> None:
    with running_dev(tmp_path) as dev:
        draining = threading.Event()

        def signal_at_half() -> Iterator[bytes]:
            for index, chunk in enumerate(chunked(CONTENT)):
                if index == len(CONTENT) // CHUNK // 2:
                    dev.process.send_signal(signal.SIGTERM)
                    draining.set()
                yield chunk

        with connected(dev.facts) as peer:
            assert peer.write(write_requests(gob_name(DIGEST), signal_at_half())) == len(CONTENT)
        assert draining.is_set()
        assert dev.process.wait(SLOWEST_SECONDS) == 0
    with running_dev(tmp_path):
        result = casproxy(tmp_path, "describe", str(DIGEST))
        assert result.returncode == 0, result.stderr


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with running_dev(tmp_path) as dev:
        before = files(dev.store)
        ended = threading.Event()

        def two_signals_then_silence() -> Iterator[bytes]:
            for index, chunk in enumerate(chunked(CONTENT)):
                if index == len(CONTENT) // CHUNK // 2:
                    dev.process.send_signal(signal.SIGINT)
                    wait_for_line(tmp_path / "dev.log", "draining")
                    dev.process.send_signal(signal.SIGINT)
                    ended.wait()
                yield chunk

        with connected(dev.facts) as peer:
            with pytest.raises(grpc.RpcError):
                peer.write(write_requests(gob_name(DIGEST), two_signals_then_silence()))
            ended.set()
        assert dev.process.wait(SLOWEST_SECONDS) == 0
        assert files(dev.store) == before


def wait_for_line(path: Path, text: str) -> None:
    """Return when ``text`` is in the file; the test's own time limit bounds it."""
    while text not in path.read_text():
        threading.Event().wait(0.01)
