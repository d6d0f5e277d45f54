"""What no server can beat on this machine, measured in the same run: one core's sha256, and HTTP without a proxy."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator

import httpx

MIB = 1 << 20


def sha256_rate(seconds: float = 0.3) -> float:
    """Bytes per second of processor time that one core hashes."""
    block, state, done = os.urandom(MIB), hashlib.sha256(), 0
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        state.update(block)
        done += MIB
    return done / (time.thread_time() - began)


def direct_push(host: str, name: str, pieces: Iterator[memoryview], digest: str) -> float:
    """Push one blob with httpx as the proxy would (POST, one streaming PATCH, PUT); seconds."""
    began = time.perf_counter()
    with httpx.Client(base_url=f"http://{host}", timeout=120, trust_env=False) as client:
        started = client.post(f"/v2/{name}/blobs/uploads/").raise_for_status()
        patched = client.patch(
            started.headers["location"],
            content=(bytes(piece) for piece in pieces),
            headers={"content-type": "application/octet-stream"},
        ).raise_for_status()
        url = httpx.URL(patched.headers["location"])
        client.put(url.copy_merge_params({"digest": digest})).raise_for_status()
    return time.perf_counter() - began


def direct_get(host: str, name: str, digest: str) -> tuple[float, int]:
    """Read one blob with httpx and drop it; seconds and bytes."""
    began, size = time.perf_counter(), 0
    with (
        httpx.Client(base_url=f"http://{host}", timeout=120, trust_env=False) as client,
        client.stream("GET", f"/v2/{name}/blobs/{digest}") as response,
    ):
        response.raise_for_status()
        for part in response.iter_raw(256 * 1024):
            size += len(part)
    return time.perf_counter() - began, size
