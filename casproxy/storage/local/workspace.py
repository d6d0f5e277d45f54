"""Owns one upload's directory in the staging area, from its first byte to its place or its end. Runs in worker threads.

Each method holds the workspace's lock while it works. A task that is cancelled abandons its thread, not the work: the
descriptor belongs to the thread, and ``discard`` waits for it before it deletes, so that nothing is written to a number
that was given to another file, and nothing is created after the clean-up.

::

    write* ──▶ seal ──▶ publish        the artifact is visible once publish has renamed the directory
       └────────┴─────────┴──▶ discard   removes whatever is still here; always last, harmless after publish
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from casproxy.digest import Digest
from casproxy.errors import BackendBroken
from casproxy.storage.api import Piece, Resource
from casproxy.storage.local import layout
from casproxy.storage.local.paths import directory
from casproxy.storage.local.staging import Staging, remove
from casproxy.storage.stored_form import NotOurs, StoredForm

_OCCUPIED: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})
_ATTEMPTS: Final = 8


class Workspace:
    """The layout of ``digest`` while it is built. Nothing is on disk before the first ``write``."""

    def __init__(self, staging: Staging, digest: Digest) -> None:
        self._staging = staging
        self._digest = digest
        self._lock = threading.Lock()
        self._names: list[str] = []
        """What ``discard`` has to remove from the staging area; the first one is the layout."""
        self._blob_fd = -1
        self._discarded = False

    @property
    def is_empty(self) -> bool:
        """True when ``discard`` has nothing to do. Only while no thread is at work here."""
        return not self._names and self._blob_fd < 0

    def write(self, pieces: Sequence[Piece]) -> None:
        """Append pieces (at most 1,024: IOV_MAX). Raises ``OSError``."""
        with self._lock:
            if self._discarded:
                return
            if not self._names:
                self._create()
            _write_all(self._blob_fd, pieces)

    def sync(self) -> None:
        """Make the bytes durable: as slow as the disk."""
        with self._lock:
            if not self._discarded:
                os.fsync(self._blob_fd)

    def seal(self, pieces: Sequence[Piece], form: StoredForm) -> None:
        """Append the last pieces, make all bytes durable, then write the documents that describe them."""
        self.write(pieces)
        self.sync()
        with self._lock:
            if self._discarded:
                return
            with directory(self._staging.fd, self._names[:1]) as layout_fd:
                layout.write_documents(layout_fd, form)
            self._close_blob()

    def publish(self, tenant_fd: int, resource: Resource) -> Resource:
        """Rename the layout into its place in the tenant's directory, durably. Returns what is stored there.

        A good copy that is already there wins. What is damaged or not ours is as good as absent and gives way: it is
        moved out and deleted by ``discard``.
        """
        with self._lock, directory(tenant_fd, [self._digest.hex[:2]], create=True) as parent_fd:
            if self._discarded:
                raise BackendBroken("the upload was given up")
            for _ in range(_ATTEMPTS):
                if self._rename_into(parent_fd):
                    break
                present = _good_copy(parent_fd, self._digest)
                if present is not None:
                    resource = present
                    break
                self._displace(parent_fd)
            else:
                raise BackendBroken("local storage failed: the artifact's place is never free")
            os.fsync(parent_fd)  # also for the copy of another writer, who may not have got so far
            return resource

    def discard(self) -> None:
        """Release everything that was not published. Raises ``OSError``; what is left then, the next start sweeps."""
        with self._lock:
            self._discarded = True
            self._close_blob()
            while self._names:
                remove(self._staging.fd, self._names[-1])
                self._names.pop()

    def _create(self) -> None:
        name = self._staging.new_name()
        self._names.append(name)
        os.mkdir(name, dir_fd=self._staging.fd)
        with directory(self._staging.fd, [name]) as layout_fd:
            self._blob_fd = layout.create_blob(layout_fd, self._digest)

    def _rename_into(self, parent_fd: int) -> bool:
        """False if something is there (an empty directory does not count, rename(2))."""
        try:
            os.rename(self._names[0], self._digest.hex, src_dir_fd=self._staging.fd, dst_dir_fd=parent_fd)
        except OSError as error:
            if error.errno not in _OCCUPIED:
                raise
            return False
        del self._names[0]
        return True

    def _displace(self, parent_fd: int) -> None:
        """Move what lies in our place into the staging area, unless another writer has just put a good copy there."""
        name = self._staging.new_name()
        with self._staging.exclusive(), suppress(FileNotFoundError):
            if _good_copy(parent_fd, self._digest) is None:
                self._names.append(name)
                os.rename(self._digest.hex, name, src_dir_fd=parent_fd, dst_dir_fd=self._staging.fd)

    def _close_blob(self) -> None:
        if self._blob_fd >= 0:
            fd, self._blob_fd = self._blob_fd, -1
            os.close(fd)


def _good_copy(parent_fd: int, digest: Digest) -> Resource | None:
    try:
        with directory(parent_fd, [digest.hex]) as layout_fd:
            resource, fd = layout.open_artifact(layout_fd, digest)
    except (NotOurs, FileNotFoundError, NotADirectoryError):
        return None
    os.close(fd)
    return resource


def _write_all(fd: int, pieces: Sequence[Piece]) -> None:
    """writev(2) until all is written: it stops early at a signal, or where a disk is nearly full."""
    rest = pieces
    left = sum(map(len, pieces))
    while left:
        written = os.writev(fd, rest)
        left -= written
        if left:
            rest = _without_first(rest, written)


def _without_first(pieces: Sequence[Piece], size: int) -> list[Piece]:
    rest: list[Piece] = []
    for piece in pieces:
        if size < len(piece):
            rest.append(memoryview(piece)[size:])
        size = max(0, size - len(piece))
    return rest
