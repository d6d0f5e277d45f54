"""Owns the contract between the pipeline and every store. Refuses to know any concrete store.

One conformance suite (``casproxy_tests/conformance/test_backend.py``) runs against every
implementation, the in-memory one included; each sentence below is a test there.

Two-phase ingest::

    async with backend.ingest(resource) as ingest:   # a place to write that nobody can see
        await ingest.write(piece)                     # zero or more times
        await ingest.commit(digest, size)             # atomically visible; at most once, last
    # left without commit: everything is released, nothing is visible

No backend hashes: the pipeline does it once, for all of them, BEFORE ``commit`` (storage.md).
"""

from __future__ import annotations

import unicodedata
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from casproxy.digest import Digest
from casproxy.errors import InvalidRequest

MAX_PIECE_BYTES: Final = 1024 * 1024
"""No piece is larger: hashing is inline, and this much takes about 0.6 ms."""

Piece: TypeAlias = bytes | bytearray | memoryview
"""A run of artifact bytes, at most 1 MiB. Whoever is handed a piece owns it: the giver never touches it again."""


AUTHOR = "chainloop.dev"
"""The author every stored artifact carries; one of another author is not ours (storage.md)."""


MAX_FILE_NAME_BYTES = 1024
"""The longest file name, in bytes of UTF-8."""


def check_file_name(name: str) -> str:
    """Return ``name`` if it may be stored: at most 1,024 bytes of UTF-8, no control characters. ``InvalidRequest``."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest("the file name is not valid UTF-8") from error
    if size > MAX_FILE_NAME_BYTES:
        raise InvalidRequest(f"the file name has {size} bytes, more than {MAX_FILE_NAME_BYTES}")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise InvalidRequest("the file name has control characters")
    return name


@dataclass(frozen=True, slots=True)
class Resource:
    """A stored artifact. ``size`` in bytes; ``file_name`` obeys storage.md's rules and is never empty."""

    digest: Digest
    file_name: str
    size: int


@dataclass(frozen=True, slots=True)
class NewResource:
    """An artifact about to be stored. ``size`` in bytes when the caller declared it, else None."""

    digest: Digest
    file_name: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who a call works for, from its verified token. Everything shared or cached is keyed by this and the secret."""

    backend_type: str
    secret_id: str
    org_id: str = ""


class Reader(Protocol):
    """An open artifact, positioned at the offset asked for."""

    @property
    def resource(self) -> Resource:
        """The whole artifact's metadata, whatever range is being read."""

    async def receive(self, most: int = MAX_PIECE_BYTES) -> Piece:
        """The next bytes, 1 byte to 1 MiB; ``b""`` once the range is exhausted (and ever after).

        ``most``: bytes that the caller has room for, 32 KiB or more; a store that has read more by then gives more.
        Cancellation loses at most the bytes of this call; the reader can only be closed after it.
        Errors: ``BackendUnavailable``, ``BackendBroken``. A store that ends early raises, it never
        returns ``b""`` before the range is complete.
        """


class Ingest(Protocol):
    """An upload in progress. Not for concurrent use."""

    async def write(self, piece: Piece) -> None:
        """Take one piece, in order. Returns when the store (or its bounded buffer) has it.

        Cancelled or failed: the ingest can only be left. Errors: ``StorageFull``,
        ``BackendUnavailable``, ``BackendRefused``, ``BackendBroken``.
        """

    async def commit(self, digest: Digest, size: int) -> Resource:
        """Make the artifact visible under ``digest``, atomically, and durable as far as the store can.

        ``digest`` and ``size`` (bytes) were verified by the pipeline. Committing what is already stored succeeds and
        leaves one good copy. The decisive step is shielded for at most 5 s by the implementation: a
        cancelled commit leaves a complete artifact or none.
        """


class Backend(Protocol):
    """One tenant's store. Safe for concurrent use by any number of tasks."""

    async def describe(self, digest: Digest) -> Resource:
        """Metadata of a stored artifact. Raises ``ArtifactNotFound``. Idempotent; cancellation leaves nothing."""

    def read(self, digest: Digest, offset: int = 0, limit: int = 0) -> AbstractAsyncContextManager[Reader]:
        """Open ``limit`` bytes from ``offset`` (bytes; limit 0 = to the end; a limit past the end is cut).

        Entering raises ``ArtifactNotFound`` or ``OffsetOutOfRange`` (offset < 0 or > size; offset ==
        size reads nothing). Leaving, in any way, closes the connection or file within 1 s.
        """

    def ingest(self, resource: NewResource) -> AbstractAsyncContextManager[Ingest]:
        """Begin an upload. Leaving without a successful ``commit`` releases everything (shielded, <= 5 s).

        Entering raises ``AlreadyStored`` when another upload makes this one needless. A store that fails while nobody
        calls it may cancel whoever is inside, and raises what went wrong on leaving.
        """

    async def check_writable(self) -> None:
        """Prove that credentials and place allow a write, leaving nothing behind; raises a ``StorageError``."""


class BackendResolver(Protocol):
    """Finds the backend of a tenant: token -> secret -> store. Implemented by ``storage.stack``."""

    async def resolve(self, tenant: Tenant) -> Backend:
        """Read the tenant's secret (cached, own deadline) and open its backend.

        Errors: ``BackendNotFound``, ``SecretError``, ``BackendRefused`` for a secret that lacks a field.
        """

    def backend_types(self) -> list[str]:
        """The backend types this process serves, sorted (Infoz)."""
