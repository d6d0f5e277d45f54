"""Owns the list of stores that ``test_backend.py`` runs against. A new backend joins by one entry in ``BACKENDS``.

A ``Store`` gives the suite what the contract does not: a look at everything that is kept, and ways to damage it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import trio

from casproxy.digest import Digest
from casproxy.storage.api import Backend
from casproxy.storage.local.root import open_local_root
from casproxy.storage.memory import MemoryBackend


@dataclass(frozen=True, slots=True)
class Store:
    """One place, empty at the start."""

    backend: Backend
    twin: Backend
    """The same place opened a second time, as another process does."""
    snapshot: Callable[[], Mapping[str, str]]
    """Everything that is kept there, uploads in progress included: name -> fingerprint."""
    settle: Callable[[], Awaitable[None]]
    """Wait for what a cancelled call may rightly leave running for a moment."""
    flip: Callable[[Digest], None]
    """Change one stored byte of an artifact, not its size."""
    cut: Callable[[Digest], None] | None = None
    """Take away the second half of a stored artifact; None when the store cannot lose bytes."""


OpenStore: TypeAlias = Callable[[Path], AbstractAsyncContextManager[Store]]


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

        yield Store(root.backend("tenant"), other.backend("tenant"), lambda: tree(directory), settle, flip, cut)


BACKENDS: dict[str, OpenStore] = {"memory": memory_store, "local": local_store}


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
