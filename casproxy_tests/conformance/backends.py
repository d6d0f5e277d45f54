"""Owns the list of stores that ``test_backend.py`` runs against. A new backend joins by one entry in ``BACKENDS``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from casproxy.digest import Digest
from casproxy.storage.local.root import open_local_root
from casproxy.storage.memory import MemoryBackend
from casproxy_tests.conformance.oci_stores import fake_registry_store, real_registry_store
from casproxy_tests.conformance.store import OpenStore, Store
from casproxy_tests.real.registry import Access


@asynccontextmanager
async def memory_store(directory: Path) -> AsyncIterator[Store]:
    backend = MemoryBackend()

    def snapshot() -> dict[str, str]:
        kept = {str(digest): fingerprint(b"".join(stored.pieces)) for digest, stored in backend._stored.items()}
        return kept | {"held": str(backend.held_bytes)}

    def flip(digest: Digest) -> None:
        stored = backend._stored[digest]
        first = bytearray(stored.pieces[0])
        first[0] ^= 0xFF
        backend._stored[digest] = replace(stored, pieces=(first, *stored.pieces[1:]))

    yield Store(backend, backend, snapshot, trio.lowlevel.checkpoint, flip)


@asynccontextmanager
async def local_store(directory: Path) -> AsyncIterator[Store]:
    async with open_local_root(directory) as root, open_local_root(directory) as other:

        async def settle() -> None:
            await root.threads.wait_idle()
            await other.threads.wait_idle()

        def flip(digest: Digest) -> None:
            with open(blob_path(directory / "tenant", digest), "r+b") as file:
                first = file.read(1)
                file.seek(0)
                file.write(bytes([first[0] ^ 0xFF]))

        def cut(digest: Digest) -> None:
            path = blob_path(directory / "tenant", digest)
            os.truncate(path, path.stat().st_size // 2)

        yield Store(root.backend("tenant"), other.backend("tenant"), lambda: tree(directory), settle, flip, cut=cut)


BACKENDS: dict[str, OpenStore] = {
    "memory": memory_store,
    "local": local_store,
    "oci-fake": fake_registry_store,
    **{f"oci-{access.name.lower()}": real_registry_store(access) for access in Access},
}


def layout_path(tenant: Path, digest: Digest) -> Path:
    """Where the FS backend keeps an artifact below a tenant's directory."""
    return tenant / digest.hex[:2] / digest.hex


def blob_path(tenant: Path, digest: Digest) -> Path:
    return layout_path(tenant, digest) / "blobs" / "sha256" / digest.hex


def tree(directory: Path) -> dict[str, str]:
    """Every entry below ``directory``, with a fingerprint of what is in it."""
    found = {}
    for path in sorted(directory.rglob("*")):
        content = "directory" if path.is_dir() and not path.is_symlink() else fingerprint(read_entry(path))
        found[str(path.relative_to(directory))] = content
    return found


def read_entry(path: Path) -> bytes:
    return os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()


def fingerprint(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
