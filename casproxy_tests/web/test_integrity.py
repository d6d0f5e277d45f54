"""What is corrupt never arrives complete: whole, resumed from any byte, over HTTP/1.1 and HTTP/2, curl and httpx."""

from __future__ import annotations

import io
import json
from pathlib import Path

import httpx
import pytest

from casproxy.storage.memory import MemoryBackend
from casproxy_tests.fakes.faulty_backend import Fault
from casproxy_tests.web.curl import HTTP2, curl
from casproxy_tests.web.world import World, bearer, token, world

CONTENT = bytes(range(251)) * 8000  # 2 MB: several pieces
VERSIONS = ["--http1.1", HTTP2]


def flipped(at: int, times: int = 100) -> list[Fault]:
    """A store that gives the byte at ``at`` inverted, again and again."""
    return [Fault("receive", flip=at, times=times)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("at", [0, 1_000_000, len(CONTENT) - 1])
async def test_a_corrupt_artifact_breaks_off(tmp_path: Path, version: str, at: int) -> None:
    async with world(*flipped(at)) as server:
        digest = await server.put(CONTENT)
        ran = await curl(version, "-o", tmp_path / "got", f"{server.url}/download/{digest}?t={token()}")
    assert ran.code in (18, 92), ran.stderr  # a partial file; a stream that was reset
    assert (tmp_path / "got").stat().st_size < len(CONTENT)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_small_corrupt_artifact_breaks_off_before_its_first_byte(tmp_path: Path, version: str) -> None:
    async with world(*flipped(2)) as server:
        digest = await server.put(b"small")
        ran = await curl(version, "-o", tmp_path / "got", f"{server.url}/download/{digest}?t={token()}")
    assert ran.code in (18, 92), ran.stderr
    assert not (tmp_path / "got").exists() or (tmp_path / "got").stat().st_size == 0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("have", [1, 262_144, 1_000_001, len(CONTENT) - 1])
async def test_resuming_does_not_complete_it(tmp_path: Path, version: str, have: int) -> None:
    """The corrupt byte lies in what the client has already, so that the rest alone looks perfectly well."""
    target = tmp_path / "got"
    target.write_bytes(CONTENT[:have])
    async with world(*flipped(0)) as server:
        digest = await server.put(CONTENT)
        ran = await curl(version, "-C", "-", "-o", target, f"{server.url}/download/{digest}?t={token()}")
    assert ran.code in (18, 92), ran.stderr
    assert target.stat().st_size < len(CONTENT)


@pytest.mark.parametrize("version", VERSIONS)
async def test_resuming_a_good_one_completes_it(tmp_path: Path, version: str) -> None:
    target = tmp_path / "got"
    async with world() as server:
        digest = await server.put(CONTENT)
        url = f"{server.url}/download/{digest}?t={token()}"
        for have in (1, 262_144, len(CONTENT) - 1, len(CONTENT)):
            target.write_bytes(CONTENT[:have])
            ran = await curl(version, "-C", "-", "-o", target, url)
            assert ran.code == 0, ran.stderr
            assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("asked", ["bytes=0-", f"bytes=0-{len(CONTENT) - 1}", "bytes=-5", "bytes=1999999-"])
async def test_ranges_that_reach_the_end_are_verified(asked: str) -> None:
    async with world(*flipped(0)) as server:
        digest = await server.put(CONTENT)
        with pytest.raises(httpx.RemoteProtocolError):
            await server.get(f"/download/{digest}", bearer() | {"range": asked})


async def test_an_inner_range_is_passed_on_as_the_store_gives_it() -> None:
    """Nobody knows its digest; the documentation says so. The last byte never comes that way."""
    async with world(*flipped(5)) as server:
        digest = await server.put(CONTENT)
        answer = await server.get(f"/download/{digest}", bearer() | {"range": "bytes=4-6"})
    assert answer.content == bytes([4, 5 ^ 0xFF, 6])


async def test_it_is_in_the_log(log_lines: io.StringIO) -> None:
    async with world(*flipped(1_500_000)) as server:
        digest = await server.put(CONTENT)
        with pytest.raises(httpx.RemoteProtocolError):
            await server.get(f"/download/{digest}", bearer())
    lines = [json.loads(line) for line in log_lines.getvalue().splitlines()]
    assert [line["reason"] for line in lines if "reason" in line] == ["ARTIFACT_CORRUPT"]
    [request] = [line for line in lines if line["event"] == "request"]
    assert request["broken_off"] and request["level"] == "warning"


async def test_an_abort_on_http2_ends_its_own_stream_only() -> None:
    async with world(Fault("receive", flip=0, times=1)) as server:
        digest = await server.put(CONTENT)
        async with server.client(http1=False, http2=True) as client:
            async with client.stream("GET", f"/download/{digest}", headers=bearer()) as first:
                connection = first.extensions["network_stream"]
                with pytest.raises(httpx.RemoteProtocolError):
                    await first.aread()
            second = await client.get(f"/download/{digest}", headers=bearer())
    assert second.content == CONTENT
    assert second.extensions["network_stream"] is connection


async def test_a_store_that_ends_early_or_fails_late_breaks_off(tmp_path: Path) -> None:
    failure = Fault("receive", error=RuntimeError("late"), after_bytes=1_500_000)
    async with world(failure, backend=MemoryBackend()) as server:
        assert await _fails(server, tmp_path)


async def _fails(server: World, directory: Path) -> bool:
    digest = await server.put(CONTENT)
    ran = await curl("-o", directory / "got", f"{server.url}/download/{digest}?t={token()}")
    return ran.code == 18
