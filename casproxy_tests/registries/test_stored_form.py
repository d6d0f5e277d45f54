"""What we keep in a registry is byte for byte what Chainloop keeps there, and other people's tools read it."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from casproxy.digest import Digest
from casproxy.errors import ArtifactNotFound
from casproxy.storage.api import Backend, Resource
from casproxy_tests.cas import PLAIN
from casproxy_tests.conformance.traffic import MIB, content, get, put
from casproxy_tests.fakes.oci import open_process
from casproxy_tests.fakes.registry import smoke
from casproxy_tests.fakes.registry.store import sha256
from casproxy_tests.real import require_real
from casproxy_tests.real.registry import RealRegistry, running_registry
from casproxy_tests.vectors import load

PATH = "acme/cas"
GOLDEN = load("oci_stored_form")


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[RealRegistry]:
    async with running_registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
async def backend(registry: RealRegistry) -> AsyncIterator[Backend]:
    async with open_process() as process:
        yield process.backend(registry.host, path=PATH)


@pytest.fixture
async def http(registry: RealRegistry) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=registry.url, verify=PLAIN, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["file_name"])
async def test_written_as_chainloop_writes(backend: Backend, http: httpx.AsyncClient, golden: dict[str, Any]) -> None:
    data = base64.b64decode(golden["content_base64"])
    await put(backend, data, file_name=golden["file_name"])
    repository = f"{PATH}/{golden['repository_suffix']}"
    accept = {"accept": smoke.MANIFEST_TYPE}
    manifest = await http.get(f"/v2/{repository}/manifests/{golden['tag']}", headers=accept)
    assert manifest.content == golden["manifest"].encode()
    assert manifest.headers["content-type"] == smoke.MANIFEST_TYPE
    config = await http.get(f"/v2/{repository}/blobs/{sha256(golden['config'].encode())}")
    assert config.content == golden["config"].encode()
    assert (await http.get(f"/v2/{repository}/blobs/sha256:{golden['digest']}")).content == data
    assert (await http.get(f"/v2/{repository}/tags/list")).json()["tags"] == [golden["tag"]]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["file_name"])
async def test_what_chainloop_wrote_is_read(backend: Backend, http: httpx.AsyncClient, golden: dict[str, Any]) -> None:
    data = base64.b64decode(golden["content_base64"])
    digest = Digest(golden["digest"])
    await _store(http, golden, golden["manifest"].encode())
    assert await backend.describe(digest) == Resource(digest, golden["file_name"], len(data))
    assert await get(backend, digest) == data


@pytest.mark.parametrize("spoil", ["author", "layer"])
async def test_what_is_not_ours_is_absent(backend: Backend, http: httpx.AsyncClient, spoil: str) -> None:
    golden = GOLDEN[0]
    manifest = json.loads(golden["manifest"])
    if spoil == "author":
        manifest["annotations"]["org.opencontainers.image.authors"] = "somebody else"
    else:
        manifest["layers"][0] = dict(manifest["config"])
    await _store(http, golden, json.dumps(manifest).encode())
    with pytest.raises(ArtifactNotFound):
        await backend.describe(Digest(golden["digest"]))
    data = base64.b64decode(golden["content_base64"])
    assert (await put(backend, data, file_name="ours")).file_name == "ours"
    assert await get(backend, Digest(golden["digest"])) == data


async def _store(http: httpx.AsyncClient, golden: dict[str, Any], manifest: bytes) -> None:
    repository = f"{PATH}/{golden['repository_suffix']}"
    await smoke.push_blob(http, repository, base64.b64decode(golden["content_base64"]))
    await smoke.push_blob(http, repository, golden["config"].encode())
    assert (await smoke.put_manifest(http, repository, manifest, golden["tag"])).status_code == 201


async def skopeo(*arguments: str) -> bytes:
    program = require_real("skopeo", "reading a registry with another program")
    done = await trio.run_process([str(program), *arguments], capture_stdout=True, stderr=subprocess.DEVNULL)
    return bytes(done.stdout)


@pytest.mark.parametrize("size", [0, 1, 3 * MIB + 1])
async def test_skopeo_reads_what_we_store(registry: RealRegistry, backend: Backend, tmp_path: Path, size: int) -> None:
    data = content(size)
    stored = await put(backend, data, file_name='señal "日本語"-🚀.tar.gz')
    image = f"docker://{registry.host}/{PATH}/chainloop-{stored.digest.hex}:latest"
    inspected = json.loads(await skopeo("inspect", "--tls-verify=false", image))
    assert inspected["Layers"] == [str(stored.digest)]
    manifest = json.loads(await skopeo("inspect", "--raw", "--tls-verify=false", image))
    assert manifest["annotations"]["org.opencontainers.image.title"] == stored.file_name
    await skopeo("copy", "--src-tls-verify=false", image, f"dir:{tmp_path / 'copy'}")
    assert await trio.Path(tmp_path / "copy" / stored.digest.hex).read_bytes() == data


async def test_we_read_what_skopeo_stores(registry: RealRegistry, backend: Backend) -> None:
    stored = await put(backend, content(2 * MIB), file_name="moved.bin")
    name = f"chainloop-{stored.digest.hex}:latest"
    source, target = (f"docker://{registry.host}/{path}/{name}" for path in (PATH, "copied/here"))
    await skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", source, target)
    async with open_process() as process:
        copied = process.backend(registry.host, path="copied/here")
        assert await copied.describe(stored.digest) == stored
        assert await get(copied, stored.digest) == content(2 * MIB)
