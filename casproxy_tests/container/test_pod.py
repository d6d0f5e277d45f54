"""The container under the chart's terms: uid 1001, read-only root, its mounts, 384 MiB, SIGTERM.

Long form (``CASPROXY_SOAK=1``): eight artifacts of 1 GiB at once. The cgroup's own counter is what memory is judged by.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from casproxy.rpc.channel import Channel, open_channel
from casproxy_tests.container import SLOWEST_SECONDS
from casproxy_tests.container.build import Image
from casproxy_tests.container.chart import CHART_VERSION, CPUS, MEMORY, Pod, running_pod
from casproxy_tests.real.openbao import OpenBao
from casproxy_tests.soak import LONG
from casproxy_tests.soak.artifact import Artifact, download, upload

pytestmark = pytest.mark.timeout(SLOWEST_SECONDS)
MIB = 1 << 20
STREAMS, SIZE = 8, (1024 if LONG else 48) * MIB
PROBE = ("/opt/casproxy/bin/casproxy", "probe", "--conf", "/data/conf")


async def test_probes_and_one_artifact(image: Image, tmp_path: Path, openbao: OpenBao) -> None:
    async with running_pod(image, tmp_path, openbao) as pod:
        print(f"ready {pod.seconds:.2f} s after its start")
        for path in ("/statusz", "/statusz?readiness=1"):
            assert (await pod.get(path)).status_code == 200
        assert (await pod.get("/infoz")).json()["chartVersion"] == CHART_VERSION
        assert "casproxy_bytes_in_flight" in (await pod.get("/metrics", port=pod.metrics)).text
        health = await trio.to_thread.run_sync(pod.container.run, *PROBE)
        assert (health.returncode, health.stdout) == (0, "ready\n"), health.stderr
        async with open_channel("localhost", pod.grpc, tls=pod.tls) as channel:
            await move(channel, pod, Artifact(MIB, seed=1))
        assert not pod.registry.sessions()


async def test_it_cannot_write_and_is_nobody(image: Image, tmp_path: Path, openbao: OpenBao) -> None:
    async with running_pod(image, tmp_path, openbao) as pod:
        for directory in ("/", "/tmp", "/data/conf", "/var", "/opt/casproxy", "/etc/pki/tls/certs"):
            refused = await trio.to_thread.run_sync(pod.container.run, "touch", f"{directory}/x")
            assert "Read-only file system" in refused.stderr or "Permission denied" in refused.stderr, directory
        identity = await trio.to_thread.run_sync(pod.container.run, "id")
        assert identity.stdout.startswith("uid=1001 gid=1001")
        log = [json.loads(line) for line in pod.container.log.read_text().splitlines()]
        assert not [line for line in log if line["level"] in ("warning", "error")], log


async def test_ready_with_three_eighths_of_a_core(image: Image, tmp_path: Path, openbao: OpenBao) -> None:
    async with running_pod(image, tmp_path, openbao, cpus=CPUS) as pod:
        print(f"ready {pod.seconds:.2f} s after its start with {CPUS} of a core")
        async with open_channel("localhost", pod.grpc, tls=pod.tls) as channel:
            await move(channel, pod, Artifact(8 * MIB, seed=1))


async def test_eight_streams_in_384_mib(image: Image, tmp_path: Path, openbao: OpenBao) -> None:
    async with running_pod(image, tmp_path, openbao) as pod:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for seed in range(STREAMS):
                nursery.start_soon(move_alone, pod, Artifact(SIZE, seed=seed))
        seconds = trio.current_time() - began
        peak = pod.container.peak_memory()
        print(f"{STREAMS} x {SIZE // MIB} MiB up and down in {seconds:.0f} s: peak {peak / MIB:.0f} MiB of the cgroup")
        assert peak < MEMORY
        assert (await pod.get("/statusz?readiness=1")).status_code == 200


async def move_alone(pod: Pod, artifact: Artifact) -> None:
    """Over a connection of its own, as eight clients have."""
    async with open_channel("localhost", pod.grpc, tls=pod.tls) as channel:
        await move(channel, pod, artifact)


async def move(channel: Channel, pod: Pod, artifact: Artifact) -> None:
    digest = await trio.to_thread.run_sync(artifact.digest)
    await upload(channel, pod.uploader, artifact, digest)
    assert await download(channel, pod.downloader, digest) == digest
