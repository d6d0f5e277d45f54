"""Owns the files of one artifact's OCI image layout. Refuses to know where the layout's directory is.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md: ``oci-layout``, ``index.json`` and
``blobs/sha256/{hex}``. Everything here is given the directory as a descriptor and runs in a worker thread.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from casproxy.digest import Digest
from casproxy.storage.api import Resource
from casproxy.storage.local.paths import directory
from casproxy.storage.stored_form import (
    MAX_DOCUMENT_BYTES,
    OCI_LAYOUT,
    NotOurs,
    StoredForm,
    parse_index,
    parse_manifest,
)

BLOBS: Final = ("blobs", "sha256")

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Not blocking, because what lies there may be a FIFO; a regular file does not care."""
_NOT_A_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EAGAIN})
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def open_artifact(layout_fd: int, digest: Digest) -> tuple[Resource, int]:
    """The artifact in a layout, and a descriptor of its bytes that the caller closes.

    Raises ``NotOurs`` for a layout that is incomplete, damaged (the artifact's bytes are counted here, not hashed) or
    somebody else's.
    """
    try:
        with directory(layout_fd, BLOBS) as blobs_fd:
            manifest_digest, _ = parse_index(_read_document(layout_fd, "index.json"))
            manifest = _read_document(blobs_fd, manifest_digest.hex)
            if Digest.of(manifest) != manifest_digest:
                raise NotOurs("the manifest is damaged")
            resource = parse_manifest(manifest, digest)
            return resource, _open_blob(blobs_fd, resource)
    except OSError as error:
        if error.errno not in _NOT_A_FILE:
            raise
        raise NotOurs("a file of the layout is missing, or something else than a file") from error


def create_blob(layout_fd: int, digest: Digest) -> int:
    """Make the directories of an empty layout and the file for the artifact's bytes, open for writing."""
    for depth, name in enumerate(BLOBS):
        with directory(layout_fd, BLOBS[:depth]) as fd:
            os.mkdir(name, dir_fd=fd)
    with directory(layout_fd, BLOBS) as fd:
        return os.open(digest.hex, _CREATE, 0o666, dir_fd=fd)


def write_documents(layout_fd: int, form: StoredForm) -> None:
    """Write everything but the artifact's bytes, and make files and directories durable."""
    with directory(layout_fd, BLOBS) as fd:
        for document in (form.config, form.manifest):
            _write_document(fd, document.digest.hex, document.data)
        os.fsync(fd)
    with directory(layout_fd, BLOBS[:1]) as fd:
        os.fsync(fd)
    _write_document(layout_fd, "oci-layout", OCI_LAYOUT)
    _write_document(layout_fd, "index.json", form.index)
    os.fsync(layout_fd)


def _open_blob(blobs_fd: int, resource: Resource) -> int:
    fd = os.open(resource.digest.hex, _READ, dir_fd=blobs_fd)
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_size == resource.size:
        return fd
    os.close(fd)
    raise NotOurs(f"the artifact has {found.st_size} bytes instead of {resource.size}, or is no file")


def _read_document(directory_fd: int, name: str) -> bytes:
    fd = os.open(name, _READ, dir_fd=directory_fd)
    try:
        if os.fstat(fd).st_size > MAX_DOCUMENT_BYTES:
            raise NotOurs("a document of more than 4 MiB")
        return os.read(fd, MAX_DOCUMENT_BYTES)
    finally:
        os.close(fd)


def _write_document(directory_fd: int, name: str, data: bytes) -> None:
    with open(os.open(name, _CREATE, 0o666, dir_fd=directory_fd), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
