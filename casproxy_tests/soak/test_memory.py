"""Memory does not follow the size of artifacts nor the number of transfers: through a real registry, both ways.

The long form (``just soak``): 4 GiB, and 64 of 256 MiB at once. The limits on growth are the promise, in both forms.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from casproxy.rpc.channel import Channel, open_channel
from casproxy_tests.real.registry import running_registry
from casproxy_tests.soak import LONG
from casproxy_tests.soak.artifact import Artifact, download, upload
from casproxy_tests.soak.serving import MIB, Serving, serving_oci

pytestmark = pytest.mark.timeout(3600 if LONG else 120)
ONE_SIZE = 4096 * MIB if LONG else 192 * MIB
MANY, MANY_SIZE = (64, 256 * MIB) if LONG else (8, 16 * MIB)
ONE_LIMIT, MANY_LIMIT = 32 * MIB, 160 * MIB


async def _move(channel: Channel, serving: Serving, artifact: Artifact) -> None:
    digest = artifact.digest()
    await upload(channel, serving.uploader, artifact, digest)
    assert await download(channel, serving.downloader, digest) == digest


async def test_memory_of_one_large_artifact(tmp_path: Path) -> None:
    async with running_registry(tmp_path / "registry") as registry:
        with serving_oci(tmp_path, registry.host) as serving:
            async with open_channel("127.0.0.1", serving.grpc) as channel:
                await _move(channel, serving, Artifact(4 * MIB, seed=1))
                artifact = Artifact(ONE_SIZE)
                digest = artifact.digest()
                for direction in ("up", "down"):
                    before = serving.rss()
                    serving.forget_peak()
                    if direction == "up":
                        await upload(channel, serving.uploader, artifact, digest)
                    else:
                        assert await download(channel, serving.downloader, digest) == digest
                    grown = serving.peak_rss() - before
                    print(f"one of {ONE_SIZE // MIB} MiB {direction}: RSS +{grown / MIB:.1f} MiB")
                    assert grown < ONE_LIMIT
            assert not registry.sessions()


async def test_memory_of_many_at_once(tmp_path: Path) -> None:
    async with running_registry(tmp_path / "registry") as registry:
        with serving_oci(tmp_path, registry.host) as serving:
            async with open_channel("127.0.0.1", serving.grpc) as channel:
                await _move(channel, serving, Artifact(4 * MIB, seed=1))
                before = serving.rss()
                serving.forget_peak()
                async with trio.open_nursery() as nursery:
                    for seed in range(MANY):
                        nursery.start_soon(_move, channel, serving, Artifact(MANY_SIZE, seed=100 + seed))
                grown = serving.peak_rss() - before
                print(f"{MANY} of {MANY_SIZE // MIB} MiB up and down at once: RSS +{grown / MIB:.1f} MiB")
                assert grown < MANY_LIMIT
            assert not registry.sessions()
