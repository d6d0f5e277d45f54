"""Rows 3, 4, 5 and 7: through the proxy to a registry, against the same without a proxy."""

from __future__ import annotations

import json
import time
import urllib.request
from functools import partial

import httpx
import trio

from casproxy._proto.google.bytestream import bytestream_pb2
from casproxy.bench.artifact import Artifact, Pattern
from casproxy.bench.load import ClientKind, Load, Scenario, Target
from casproxy.bench.local import running_server
from casproxy.bench.process import ProcessMeter
from casproxy.bench.runner import measure
from casproxy.digest import Digest
from casproxy.storage.api import Resource
from casproxy.storage.stored_form import MANIFEST_TYPE, describe_artifact
from contrib.bench import limits, parties, raw_client
from contrib.bench.plan import MIB, Plan
from contrib.bench.rows_stream import raw_upload
from contrib.bench.table import Figure, Table

READ = "/google.bytestream.ByteStream/Read"


async def rows_3_and_4(plan: Plan, table: Table) -> None:
    """One artifact through the proxy to docker-registry and back, against httpx straight to it."""
    async with parties.docker_registry() as registry, running_server("--oci-repo", f"{registry}/bench") as server:
        target = server.target("OCI")
        pattern = Pattern(plan.big)
        up = Load(Scenario.UPLOAD, size=plan.big, concurrency=1, count=1, client=ClientKind.GRPCIO)
        pushes = []
        for number in range(plan.rounds):
            ours = await measure(target, up, pattern)
            pushes.append(await _push(registry, pattern, f"direct/{number}") / ours.seconds)
            table.see("upload through the proxy", ours.throughput / 1e6, "MB/s")
        table.add(Figure(3, "upload to docker-registry, of a direct push", pushes, 0.9))
        await _row_4(plan, table, registry, target, pattern)


async def _push(registry: str, pattern: Pattern, name: str) -> float:
    artifact = pattern.next()
    pieces = pattern.pieces(artifact, MIB)
    return await trio.to_thread.run_sync(partial(limits.direct_push, registry, name, pieces, str(artifact.digest)))


async def _row_4(plan: Plan, table: Table, registry: str, target: Target, pattern: Pattern) -> None:
    artifact = pattern.next()
    push = partial(limits.direct_push, registry, "direct/get", pattern.pieces(artifact, MIB), str(artifact.digest))
    await trio.to_thread.run_sync(push)
    down = Load(Scenario.DOWNLOAD, size=plan.big, concurrency=1, count=1, client=ClientKind.GRPCIO)
    gets = []
    for _ in range(plan.rounds):
        ours = await measure(target, down, pattern)
        get = partial(limits.direct_get, registry, "direct/get", str(artifact.digest))
        seconds, size = await trio.to_thread.run_sync(get)
        if size != plan.big:
            raise RuntimeError(f"the registry sent {size} bytes of {plan.big}")
        gets.append(seconds / ours.seconds)
        table.see("download through the proxy", ours.throughput / 1e6, "MB/s")
    table.add(Figure(4, "download from docker-registry, of a direct GET", gets, 0.5))


async def row_5(plan: Plan, table: Table) -> None:
    """The proxy's own CPU per GB, against a registry that does nothing, in 16 KiB frames both ways."""
    async with parties.sink() as sink, running_server("--oci-repo", f"{sink}/bench") as server:
        target = server.target("OCI")
        pattern = Pattern(plan.big, parties.SEED.encode())
        meter = ProcessMeter(server.process_id)
        gigabytes, floor = plan.big / 1e9, 1e9 / limits.sha256_rate() + 0.25 + 0.25
        ups, downs = [], []
        for _ in range(plan.rounds):
            before = meter.read().cpu
            await trio.to_thread.run_sync(partial(raw_upload, target, pattern))
            ups.append((meter.read().cpu - before) / gigabytes)
        kept = pattern.next()
        await _store(target, kept, pattern)
        for _ in range(plan.rounds):
            before = meter.read().cpu
            await trio.to_thread.run_sync(partial(_raw_download, target, kept))
            downs.append((meter.read().cpu - before) / gigabytes)
        for what, costs, reach in (("upload", ups, 2.0), ("download", downs, 1.9)):
            table.add(Figure(5, f"{what} to a registry that does nothing", costs, reach, False, "s/GB"))
            table.see(f"{what}: times the cost of sha256 and two sockets", min(costs) / floor, "x")


async def _store(target: Target, artifact: Artifact, pattern: Pattern) -> None:
    """Upload one artifact that a download of the raw client will name."""
    from casproxy.bench.driver import open_driver

    load = Load(Scenario.UPLOAD, size=artifact.size)
    async with open_driver(target, load, pattern) as driver:
        await driver.upload(artifact)


def _raw_download(target: Target, artifact: Artifact) -> None:
    connection = raw_client.RawConnection(target.address.host, target.address.port, READ, target.downloader_token)
    try:
        request = bytestream_pb2.ReadRequest(resource_name=artifact.digest.hex).SerializeToString()
        if raw_client.download(connection, request) < artifact.size:
            raise RuntimeError("the download was short")
    finally:
        connection.close()


async def row_7(plan: Plan, table: Table) -> None:
    """New small artifacts to docker-registry, against a script that sends the same requests; requests per artifact."""
    load = Load(Scenario.UPLOAD, size=4096, concurrency=32, connections=1, duration=plan.seconds)
    pattern = Pattern(load.size)
    async with parties.docker_registry() as registry, running_server("--oci-repo", f"{registry}/bench") as server:
        ratios = []
        for _ in range(plan.rounds):
            ours = await measure(server.target("OCI"), load, pattern)
            theirs = await _script(registry, pattern, plan.seconds)
            ratios.append(ours.per_second / theirs)
            table.see("4 KiB artifacts through the proxy", ours.per_second, "/s")
        table.add(Figure(7, "4 KiB artifacts, of a script without proxy", ratios, 0.8))
    async with parties.sink() as sink, running_server("--oci-repo", f"{sink}/bench") as server:
        counted = Load(Scenario.UPLOAD, size=4096, concurrency=32, count=200)
        await measure(server.target("OCI"), Load(Scenario.UPLOAD, size=4096, concurrency=1, count=1), pattern)
        before = requests_so_far(sink)
        await measure(server.target("OCI"), counted, pattern)
        table.add(
            Figure(7, "requests per 4 KiB artifact", [(requests_so_far(sink) - before - 1) / 200], 6, False, "each")
        )


def requests_so_far(sink: str) -> int:
    """What the registry that forgets has been asked; this question counts as well."""
    with urllib.request.urlopen(f"http://{sink}/count") as answer:
        return int(sum(json.load(answer).values()))


async def _script(registry: str, pattern: Pattern, seconds: float) -> float:
    """The six requests, 32 artifacts at a time, with pooled httpx; artifacts per second."""
    done = 0
    began = time.perf_counter()

    async def stream(client: httpx.AsyncClient) -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await _store_directly(client, pattern)
            done += 1

    pool = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=f"http://{registry}", limits=pool, timeout=60, trust_env=False) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(32):
                nursery.start_soon(stream, client)
        return done / (time.perf_counter() - began)


async def _store_directly(client: httpx.AsyncClient, pattern: Pattern) -> None:
    """Is it there? Layer and config, a POST and a PUT each. The manifest."""
    artifact = pattern.next()
    content = b"".join(pattern.pieces(artifact, MIB))
    form = describe_artifact(Resource(artifact.digest, artifact.file_name, artifact.size), content[:512])
    base = f"/v2/script/chainloop-{artifact.digest.hex}"
    await client.get(f"{base}/manifests/latest")
    for digest, data in ((artifact.digest, content), (form.config.digest, form.config.data)):
        await _put_blob(client, base, digest, data)
    answer = await client.put(
        f"{base}/manifests/latest", content=form.manifest.data, headers={"content-type": MANIFEST_TYPE}
    )
    answer.raise_for_status()


async def _put_blob(client: httpx.AsyncClient, base: str, digest: Digest, data: bytes) -> None:
    started = (await client.post(f"{base}/blobs/uploads/")).raise_for_status()
    url = httpx.URL(started.headers["location"]).copy_merge_params({"digest": str(digest)})
    (await client.put(url, content=data, headers={"content-type": "application/octet-stream"})).raise_for_status()
