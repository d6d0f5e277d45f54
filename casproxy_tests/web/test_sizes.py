"""Large artifacts and many slow readers, through a ``casproxy dev`` process: what they cost it and each other.

The long form (``just soak``) moves 1 GiB each way and has 500 readers of 1 KiB/s; the short one is for CI.
"""

from __future__ import annotations

import hashlib
import os
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from casproxy_tests.e2e.processes import Dev, peak_rss, reset_peak_rss, running_dev
from casproxy_tests.web.curl import HTTP2, curl

LONG = os.environ.get("CASPROXY_SOAK") == "1"
MIB = 1024 * 1024
SIZE = (1024 if LONG else 128) * MIB
GROWTH_LIMIT = 32 * MIB
READERS = 500 if LONG else 40
FAST_SIZE = (256 if LONG else 32) * MIB
PAIRS = 5 if LONG else 1

pytestmark = pytest.mark.timeout(3600 if LONG else 120)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with running_dev(tmp_path_factory.mktemp("dev")) as running:
        yield running


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of ``SIZE`` bytes and its digest."""
    path = tmp_path_factory.mktemp("artifact") / "big"
    block, sha256 = os.urandom(MIB), hashlib.sha256()
    with path.open("wb") as file:
        for number in range(SIZE // MIB):
            part = number.to_bytes(8, "big") + block[8:]
            sha256.update(part)
            file.write(part)
    return path, sha256.hexdigest()


async def put(dev: Dev, path: Path, target: str, version: str = "--http1.1") -> None:
    authorization = f"authorization: Bearer {dev.facts['uploader_token']}"
    ran = await curl(version, "-f", "-T", path, "-H", authorization, f"http://{dev.facts['http']}{target}")
    assert ran.code == 0, ran.stderr


async def get(dev: Dev, digest: str, target: Path, version: str = "--http1.1") -> None:
    url = f"http://{dev.facts['http']}/download/sha256:{digest}?t={dev.facts['downloader_token']}"
    ran = await curl(version, "-f", "-o", target, url)
    assert ran.code == 0, ran.stderr


async def test_memory_does_not_follow_the_size(dev: Dev, artifact: tuple[Path, str], tmp_path: Path) -> None:
    path, digest = artifact
    small = tmp_path / "small"
    small.write_bytes(os.urandom(4 * MIB))
    await put(dev, small, "/upload")  # whatever is needed once is there now
    await get(dev, hashlib.sha256(small.read_bytes()).hexdigest(), tmp_path / "back")
    for what, version in [("put", "--http1.1"), ("get", "--http1.1"), ("get", HTTP2)]:
        before = reset_peak_rss(dev.process.pid)
        if what == "put":
            await put(dev, path, f"/upload/{digest}", version)
        else:
            await get(dev, digest, tmp_path / "back", version)
            assert (tmp_path / "back").stat().st_size == SIZE
        grown = peak_rss(dev.process.pid) - before
        print(f"{what} of {SIZE // MIB} MiB, {version}: RSS +{grown / MIB:.1f} MiB")
        assert grown < GROWTH_LIMIT


async def test_memory_of_an_upload_without_a_digest(dev: Dev, tmp_path: Path) -> None:
    path = tmp_path / "unnamed"
    path.write_bytes(os.urandom(64 * MIB))
    before = reset_peak_rss(dev.process.pid)
    await put(dev, path, "/upload")
    assert peak_rss(dev.process.pid) - before < GROWTH_LIMIT


async def test_slow_readers_beside_a_fast_one(dev: Dev, tmp_path: Path) -> None:
    """Each of the slow ones reads 1 KiB per second. The ratio of speeds is a promise of the long form only."""
    path = tmp_path / "fast"
    path.write_bytes(os.urandom(FAST_SIZE))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    await put(dev, path, f"/upload/{digest}")
    alone = [await _seconds(dev, digest, tmp_path) for _ in range(PAIRS)]
    before = reset_peak_rss(dev.process.pid)
    got = [0] * READERS
    async with trio.open_nursery() as nursery:
        for number in range(READERS):
            nursery.start_soon(_read_slowly, dev, digest, got, number)
        while min(got) == 0:  # noqa: ASYNC110 - all of them have begun
            await trio.sleep(0.1)
        beside = [await _seconds(dev, digest, tmp_path) for _ in range(PAIRS)]
        assert min(got) > 0
        nursery.cancel_scope.cancel()
    ratio = statistics.median(alone) / statistics.median(beside)
    grown = peak_rss(dev.process.pid) - before
    each = grown / MIB / READERS
    print(f"{READERS} slow readers: the fast one keeps {ratio:.2f} of its speed; RSS +{each:.2f} MiB each")
    assert grown < READERS * 4 * MIB
    assert ratio >= 0.9 or not LONG


async def _seconds(dev: Dev, digest: str, directory: Path) -> float:
    began = time.perf_counter()
    await get(dev, digest, directory / "back")
    return time.perf_counter() - began


async def _read_slowly(dev: Dev, digest: str, got: list[int], number: int) -> None:
    host, _, port = dev.facts["http"].rpartition(":")
    connection = trio.socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with connection:
        await connection.connect((host, int(port)))
        head = f"GET /download/{digest}?t={dev.facts['downloader_token']} HTTP/1.1\r\nhost: x\r\n\r\n"
        await connection.send(head.encode())
        while part := await connection.recv(4096):
            got[number] += len(part)
            await trio.sleep(len(part) / 1024)  # not each kilobyte: five hundred of us share the cores with the server
