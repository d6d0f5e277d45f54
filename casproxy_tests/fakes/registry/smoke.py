"""What any registry must do, asked over plain HTTP: the suite that the fake and the real one pass alike.

httpx is the client, so that nothing of ours vouches for ours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable

import httpx

from casproxy_tests.fakes.registry.store import sha256

CONFIG = b'{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]},"config":{}}'
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
Check = Callable[[httpx.AsyncClient, str], Awaitable[None]]


async def begin(client: httpx.AsyncClient, repository: str) -> str:
    """POST; the session's Location."""
    answer = await client.post(f"/v2/{repository}/blobs/uploads/")
    assert answer.status_code == 202 and answer.headers["docker-upload-uuid"]
    return str(answer.headers["location"])


async def finish(client: httpx.AsyncClient, location: str, digest: str, body: bytes = b"") -> httpx.Response:
    return await client.put(httpx.URL(location).copy_merge_params({"digest": digest}), content=body)


async def push_blob(client: httpx.AsyncClient, repository: str, data: bytes) -> str:
    assert (await finish(client, await begin(client, repository), sha256(data), data)).status_code == 201
    return sha256(data)


def manifest(config: bytes, layer: bytes) -> bytes:
    described = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha256(config),
            "size": len(config),
        },
        "layers": [{"mediaType": "application/octet-stream", "digest": sha256(layer), "size": len(layer)}],
    }
    return json.dumps(described).encode()


async def put_manifest(client: httpx.AsyncClient, repository: str, data: bytes, tag: str = "latest") -> httpx.Response:
    return await client.put(f"/v2/{repository}/manifests/{tag}", content=data, headers={"content-type": MANIFEST_TYPE})


async def check_monolithic(client: httpx.AsyncClient, repository: str) -> None:
    data = os.urandom(300_000)
    digest = await push_blob(client, repository, data)
    head = await client.head(f"/v2/{repository}/blobs/{digest}")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))
    assert head.headers["docker-content-digest"] == digest
    assert (await client.get(f"/v2/{repository}/blobs/{digest}")).content == data


async def check_ranges(client: httpx.AsyncClient, repository: str) -> None:
    data = os.urandom(1000)
    digest = await push_blob(client, repository, data)
    for text, want in (("bytes=100-199", data[100:200]), ("bytes=990-", data[990:]), ("bytes=0-5000", data)):
        answer = await client.get(f"/v2/{repository}/blobs/{digest}", headers={"range": text})
        assert (answer.status_code, answer.content) == (206, want)
    async with client.stream("GET", f"/v2/{repository}/blobs/{digest}", headers={"range": "bytes=1000-"}) as answer:
        assert answer.status_code == 416  # the body is nobody's business: docker-registry 2.8 breaks it off


async def check_streaming(client: httpx.AsyncClient, repository: str) -> None:
    async def chunked() -> object:
        for _ in range(5):
            yield b"x" * 70_000

    data = b"x" * 350_000
    for body in (data, chunked()):
        location = await begin(client, repository)
        patched = await client.patch(location, content=body)  # type: ignore[arg-type]
        assert (patched.status_code, patched.headers["range"]) == (202, "0-349999")
        assert (await finish(client, patched.headers["location"], sha256(data))).status_code == 201
    assert (await client.get(f"/v2/{repository}/blobs/{sha256(data)}")).content == data


async def check_chunks(client: httpx.AsyncClient, repository: str) -> None:
    data, location = os.urandom(100_000), await begin(client, repository)
    for start in range(0, len(data), 30_000):
        part = data[start : start + 30_000]
        answer = await client.patch(
            location, content=part, headers={"content-range": f"{start}-{start + len(part) - 1}"}
        )
        assert (answer.status_code, answer.headers["range"]) == (202, f"0-{start + len(part) - 1}")
        location = answer.headers["location"]
    status = await client.get(location)
    assert (status.status_code, status.headers["range"]) == (204, "0-99999")
    assert (await finish(client, location, sha256(data))).status_code == 201


async def check_wrong_digest(client: httpx.AsyncClient, repository: str) -> None:
    answer = await finish(client, await begin(client, repository), sha256(b"other"), b"data")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "DIGEST_INVALID")
    assert (await client.head(f"/v2/{repository}/blobs/{sha256(b'other')}")).status_code == 404


async def check_deleted_session(client: httpx.AsyncClient, repository: str) -> None:
    location = await begin(client, repository)
    assert (await client.delete(location)).status_code == 204
    assert (await client.get(location)).status_code == 404
    assert (await finish(client, location, sha256(b"x"), b"x")).status_code == 404


async def check_manifest(client: httpx.AsyncClient, repository: str) -> None:
    layer = os.urandom(1000)
    data = manifest(CONFIG, layer)
    refused = await put_manifest(client, repository, data)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")
    await push_blob(client, repository, layer)
    await push_blob(client, repository, CONFIG)
    stored = await put_manifest(client, repository, data)
    assert (stored.status_code, stored.headers["docker-content-digest"]) == (201, sha256(data))
    assert (await client.get(f"/v2/{repository}/manifests/latest")).status_code == 404, (
        "a manifest of no type asked for"
    )
    for reference in ("latest", sha256(data)):
        answer = await client.get(f"/v2/{repository}/manifests/{reference}", headers={"accept": MANIFEST_TYPE})
        assert (answer.status_code, answer.content) == (200, data)
        assert (answer.headers["content-type"], answer.headers["docker-content-digest"]) == (
            MANIFEST_TYPE,
            sha256(data),
        )
        head = await client.head(f"/v2/{repository}/manifests/{reference}", headers={"accept": MANIFEST_TYPE})
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))
    tags = (await client.get(f"/v2/{repository}/tags/list")).json()
    assert tags == {"name": repository, "tags": ["latest"]}


async def check_unknown(client: httpx.AsyncClient, repository: str) -> None:
    assert (await client.get("/v2/")).status_code == 200
    assert (await client.get(f"/v2/{repository}/blobs/{sha256(b'unknown')}")).status_code == 404
    unknown = await client.get(f"/v2/{repository}/manifests/latest")
    assert (unknown.status_code, unknown.json()["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")


CHECKS: dict[str, Check] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}
