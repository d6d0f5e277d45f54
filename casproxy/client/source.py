"""Owns what an upload reads from: a file, bytes, or a stream. Refuses to know how the bytes travel.

The digest is part of an artifact's name and the name travels first, so a source is read twice: once to hash it, once
to send it. What cannot be read twice (a pipe) is spooled to an unlinked temporary file, bounded by the disk only.
Both readings go through one open descriptor: a file replaced in between does no harm.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from casproxy.client.hashing import hash_file
from casproxy.client.progress import Phase, Progress
from casproxy.client.worker_file import WorkerFile, in_worker, write_all
from casproxy.digest import Digest

UploadData: TypeAlias = Path | bytes | AsyncIterable[bytes]
"""What can be uploaded."""


@dataclass(frozen=True, slots=True)
class Source:
    """A hashed source, positioned at its start. ``label``: what to call it in an error; ``size`` in bytes."""

    label: str
    digest: Digest
    size: int
    _content: WorkerFile | io.BytesIO

    async def read(self, size: int) -> bytes:
        """The next bytes, at most ``size``; ``b""`` at the end."""
        if isinstance(self._content, io.BytesIO):
            return self._content.read(size)
        return await self._content.read(size)

    async def rewind(self) -> None:
        """Back to the start, to be read once more."""
        if isinstance(self._content, io.BytesIO):
            self._content.seek(0)
        else:
            await self._content.run(lambda raw: raw.seek(0))


@asynccontextmanager
async def open_source(data: UploadData, progress: Progress, digest: Digest | None = None) -> AsyncIterator[Source]:
    """Open and hash ``data``. A ``digest`` given by the caller is believed: the server checks it.

    Errors: ``OSError`` for a file that cannot be read, and when there is no room to spool. Leaving closes everything.
    """
    if isinstance(data, bytes):
        if digest is None:
            digest = await in_worker(partial(Digest.of, data))
        yield Source("the data", digest, len(data), io.BytesIO(data))
    elif isinstance(data, Path):
        with closing(WorkerFile(lambda: io.FileIO(data))) as file:
            if await file.run(_has_size):
                yield await _hashed(str(data), file, progress, digest)
            else:
                async with _spooled(str(data), file, progress, digest) as source:
                    yield source
    else:
        async with _spooled("the stream", data, progress, digest) as source:
            yield source


async def _hashed(label: str, file: WorkerFile, progress: Progress, digest: Digest | None) -> Source:
    total = await file.run(lambda raw: os.fstat(raw.fileno()).st_size)
    if digest is not None:
        return Source(label, digest, total, file)
    state, done = await hash_file(file, total, progress)
    await file.run(lambda raw: raw.seek(0))
    return Source(label, Digest(state.hexdigest()), done, file)


@asynccontextmanager
async def _spooled(
    label: str, data: AsyncIterable[bytes], progress: Progress, digest: Digest | None
) -> AsyncIterator[Source]:
    with closing(WorkerFile(_open_spool)) as spool:
        state, done = hashlib.sha256(), 0
        async for piece in data:
            await spool.run(partial(_spool_piece, state, piece))
            done += len(piece)
            progress(Phase.SPOOL, done, None)
        await spool.run(lambda raw: raw.seek(0))
        yield Source(label, digest or Digest(state.hexdigest()), done, spool)


def _open_spool() -> io.FileIO:
    return tempfile.TemporaryFile(buffering=0, prefix="casproxy-")  # unlinked; TMPDIR says where


def _spool_piece(state: hashlib._Hash, piece: bytes, file: io.FileIO) -> None:
    state.update(piece)
    write_all(file, memoryview(piece))


def _has_size(file: io.FileIO) -> bool:
    """False for pipes, and for /proc's files, which claim to be regular and empty and are not."""
    found = os.fstat(file.fileno())
    return stat.S_ISREG(found.st_mode) and found.st_size > 0
