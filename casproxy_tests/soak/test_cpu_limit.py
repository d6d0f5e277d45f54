"""A part of a core is enough: nothing fails and probes are answered under a real CPU limit of the kernel's.

Long form only (``just soak``): the container's tests have the chart's limit in the short one.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trio

from casproxy.client import open_client
from casproxy.digest import Digest
from casproxy_tests.cas import PLAIN
from casproxy_tests.e2e.processes import Dev, running_dev
from casproxy_tests.real import missing
from casproxy_tests.soak import LONG

pytestmark = [pytest.mark.timeout(600), pytest.mark.skipif(not LONG, reason="CASPROXY_SOAK=1 for this one")]
PERIOD_MICROSECONDS = 100_000
CONTENT = os.urandom(1 << 20) * 16


@contextmanager
def limited(pid: int, cores: float) -> Iterator[Path]:
    """Put a process under a CPU limit for the block; the directory has the kernel's count of how often it bit."""
    root, quota = Path("/sys/fs/cgroup"), int(cores * PERIOD_MICROSECONDS)
    unified = (root / "cgroup.controllers").exists()
    group = (root if unified else root / "cpu") / f"casproxy-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        if unified:
            (group / "cpu.max").write_text(f"{quota} {PERIOD_MICROSECONDS}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
    except OSError:
        missing("no cgroup with a CPU controller can be made; needed for CPU limits")
    try:
        (group / "cgroup.procs").write_text(str(pid))
        yield group
    finally:
        (group.parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()


async def _there_and_back(facts: dict[str, str], number: int) -> None:
    content, got = number.to_bytes(4, "big") + CONTENT, bytearray()

    async def take(piece: memoryview) -> None:
        got.extend(piece)

    async with open_client(facts["grpc"], facts["uploader_token"], insecure=True) as client:
        await client.upload(content)
    async with open_client(facts["grpc"], facts["downloader_token"], insecure=True) as client:
        await client.download(Digest.of(content), take)
    assert got == content


async def _probe(facts: dict[str, str], answers: list[int]) -> None:
    async with httpx.AsyncClient(verify=PLAIN, trust_env=False, timeout=5) as client:
        while True:
            answers.append((await client.get(f"http://{facts['http']}/statusz?readiness=1")).status_code)
            await trio.sleep(0.1)


async def _transfer(dev: Dev, transfers: int) -> list[int]:
    answers: list[int] = []
    async with trio.open_nursery() as probing:
        probing.start_soon(_probe, dev.facts, answers)
        async with trio.open_nursery() as nursery:
            for number in range(transfers):
                nursery.start_soon(_there_and_back, dev.facts, number)
        probing.cancel_scope.cancel()
    return answers


@pytest.mark.parametrize(("cores", "transfers"), [(0.375, 16), (0.1, 8)])
async def test_nothing_fails_below_one_core(tmp_path: Path, cores: float, transfers: int) -> None:
    with running_dev(tmp_path) as dev, limited(dev.process.pid, cores) as group:
        answers = await _transfer(dev, transfers)
        stat = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    assert set(answers) == {200}
    assert int(stat["nr_throttled"]) > 10
