"""Owns what a run needs of a client: the calls of the service, checked, with errors as codes. Refuses to know gRPC.

``native_driver`` and ``grpcio_driver`` implement it. An operation that ends as the scenario does not expect raises
``CallFailed``; the runner counts it under its code.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from casproxy.bench.artifact import Artifact, Pattern
from casproxy.bench.load import ClientKind, Load, NameForm, Target
from casproxy.digest import Digest
from casproxy.errors import CasproxyError
from casproxy.gob import encode_resource_name

WRITE = "/google.bytestream.ByteStream/Write"
READ = "/google.bytestream.ByteStream/Read"
DESCRIBE = "/cas.v1.ResourceService/Describe"


class CallFailed(CasproxyError):
    """A call ended otherwise than it should. ``code``: the gRPC status in capitals, or a word of the bench's own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(slots=True)
class Upload:
    """An upload that is being held open, for the scenarios that reset or stall it."""

    artifact: Artifact
    ended_at: float = 0.0
    """When it was reset, on the system's monotonic clock, seconds."""


class Driver(Protocol):
    """One connection to one server. For any number of tasks at once."""

    async def upload(self, artifact: Artifact) -> bool:
        """Store an artifact; False when the server had it and did not take all bytes. Raises ``CallFailed``."""

    async def download(self, artifact: Artifact) -> None:
        """Read an artifact whole and check every byte. Raises ``CallFailed``, ``WrongBytes``."""

    async def describe(self, artifact: Artifact) -> None:
        """Look an artifact up and check digest and size. Raises ``CallFailed``."""

    async def hold(self, upload: Upload, sent: trio.Event, release: trio.Event) -> None:
        """Send one message of an upload, set ``sent``, and reset the stream when ``release`` is set."""


@asynccontextmanager
async def open_driver(target: Target, load: Load, pattern: Pattern) -> AsyncIterator[Driver]:
    """A driver of the kind the load asks for. Raises ``OSError`` when a CA file cannot be read."""
    if load.client is ClientKind.GRPCIO:
        from casproxy.bench.grpcio_driver import open_grpcio

        async with open_grpcio(target, load, pattern) as grpcio:
            yield grpcio
        return
    from casproxy.bench.native_driver import open_native

    async with open_native(target, load, pattern) as native:
        yield native


def write_name(artifact: Artifact, form: NameForm) -> str:
    """The resource name of a Write."""
    match form:
        case NameForm.GOB:
            return encode_resource_name(artifact.file_name, artifact.digest)
        case NameForm.REAPI:
            upload_id = "00000000-0000-4000-8000-000000000001"
            return f"uploads/{upload_id}/blobs/{artifact.digest.hex}/{artifact.size}/{artifact.file_name}"
        case NameForm.PLAIN:
            return str(artifact.digest)


def read_name(artifact: Artifact, form: NameForm) -> str:
    """The resource name of a Read."""
    return f"blobs/{artifact.digest.hex}/{artifact.size}" if form is NameForm.REAPI else artifact.digest.hex


def check_described(artifact: Artifact, digest: str, size: int) -> None:
    """What Describe answered must be the artifact."""
    if size != artifact.size or digest.removeprefix("sha256:") != artifact.digest.hex:
        raise CallFailed("WRONG_ANSWER", f"described {digest} of {size} bytes for {Digest(artifact.digest.hex)}")
