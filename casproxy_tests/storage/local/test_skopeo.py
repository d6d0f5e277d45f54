"""Other people's tools open what is stored."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import trio

from casproxy.storage.local.root import LocalRoot
from casproxy_tests.conformance.backends import layout_path
from casproxy_tests.conformance.traffic import content, get, put
from casproxy_tests.real import require_real


async def output(*command: str | Path) -> bytes:
    finished = await trio.run_process([str(part) for part in command], capture_stdout=True, stderr=subprocess.DEVNULL)
    return bytes(finished.stdout)


@pytest.mark.parametrize("data", [b"", b"x", b'{"a": 1}', content(300_000)], ids=["empty", "byte", "json", "bytes"])
@pytest.mark.parametrize("name", ["a.bin", 'señal "日本語"-🚀;<b>&.tar.gz'])
async def test_skopeo_reads_what_we_store(root: LocalRoot, place: Path, tmp_path: Path, data: bytes, name: str) -> None:
    skopeo = require_real("skopeo", "opening our image layouts with another program")
    stored = await put(root.backend("tenant"), data, file_name=name)
    image = f"oci:{layout_path(place / 'tenant', stored.digest)}:latest"
    inspected = json.loads(await output(skopeo, "inspect", image))
    assert inspected["Layers"] == [str(stored.digest)]
    manifest = json.loads(await output(skopeo, "inspect", "--raw", image))
    assert manifest["annotations"] == {
        "org.opencontainers.image.authors": "chainloop.dev",
        "org.opencontainers.image.title": name,
    }
    await output(skopeo, "copy", image, f"dir:{tmp_path / 'copy'}")
    assert (tmp_path / "copy" / stored.digest.hex).read_bytes() == data


async def test_we_read_what_skopeo_stores(root: LocalRoot, place: Path, tmp_path: Path) -> None:
    skopeo = require_real("skopeo", "reading image layouts of another program")
    stored = await put(root.backend("tenant"), b"hello", file_name="hello.txt")
    layout_path(place / "copied", stored.digest).parent.mkdir(parents=True)
    source, target = (layout_path(place / tenant, stored.digest) for tenant in ("tenant", "copied"))
    await output(skopeo, "copy", f"oci:{source}:latest", f"oci:{target}:latest")
    assert await root.backend("copied").describe(stored.digest) == stored
    assert await get(root.backend("copied"), stored.digest) == b"hello"
