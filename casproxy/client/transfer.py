"""Owns one upload and one download on an open call. Refuses to know files, tokens and connections."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from google.protobuf.message import DecodeError

from casproxy._proto.google.bytestream.bytestream_pb2 import WriteResponse
from casproxy.client.errors import SourceChanged, UnexpectedAnswer
from casproxy.client.messages import read_response_data, write_request_head
from casproxy.client.progress import Phase, Progress
from casproxy.client.source import Source
from casproxy.client.worker_file import PIECE_SIZE
from casproxy.errors import ArtifactCorrupt, DigestMismatch
from casproxy.rpc.api import ClientCall
from casproxy.rpc.errors import RpcError
from casproxy.storage.api import Resource
from casproxy.wire.status import StatusCode

Sink: TypeAlias = Callable[[memoryview], Awaitable[None]]
"""Takes the pieces of a download in order, each 1 byte to 4 MiB."""

_MISMATCH = re.compile(r"digest mismatch: got=(\S+), want=(\S+)")


async def send_artifact(call: ClientCall, resource_name: str, source: Source, progress: Progress) -> bool:
    """Send ``source`` in messages of ``PIECE_SIZE``; True when all of it went, False when the server answered before.

    The name travels in the first message, ``finish_write`` in the last; exactly ``source.size`` bytes are sent.
    """
    sent = 0
    while True:
        piece = await source.read(min(PIECE_SIZE, source.size - sent))
        if not piece and sent < source.size:
            raise SourceChanged(source.label)
        head = write_request_head("" if sent else resource_name, sent + len(piece) == source.size, len(piece))
        if not await call.send_message(head, piece):
            return False
        sent += len(piece)
        progress(Phase.SEND, sent, source.size)
        if sent == source.size:
            await call.half_close()
            return True


async def receive_write_answer(call: ClientCall) -> int:
    """The ``committed_size`` (bytes) of a Write whose status was OK; raises ``RpcError`` or ``DigestMismatch``."""
    try:
        message = await call.receive_message()
        if message is None or await call.receive_message() is not None:
            raise UnexpectedAnswer("the server did not answer the upload with exactly one message")
    except RpcError as error:
        mismatch = _MISMATCH.search(error.message)
        if error.code is StatusCode.INVALID_ARGUMENT and mismatch is not None:
            raise DigestMismatch(got=mismatch[1], want=mismatch[2]) from error
        raise
    try:
        return WriteResponse.FromString(message).committed_size
    except DecodeError as error:
        raise UnexpectedAnswer("the server's answer to the upload is not a WriteResponse") from error


class Receiver:
    """One artifact on its way to a sink, over one call or several, each going on where the last one ended.

    Every byte goes to ``sink``, the last piece only after the sha256 of all of them was the digest. ``state`` and
    ``offset``: the sha256 state and the number of the bytes that the sink has already.
    """

    def __init__(
        self, artifact: Resource, sink: Sink, progress: Progress, state: hashlib._Hash | None = None, offset: int = 0
    ) -> None:
        self.artifact = artifact
        self._sink = sink
        self._progress = progress
        self._state = state or hashlib.sha256()
        self._held = memoryview(b"")
        self.offset = offset
        """Bytes that have arrived: where the next call goes on."""
        self.resumed = offset > 0
        """Whether a call began in the middle: then a mismatch may be due to what was there before."""

    async def receive(self, call: ClientCall) -> None:
        """Take what one Read from ``offset`` brings, to its end. Raises ``RpcError`` as the server does."""
        self.resumed = self.resumed or self.offset > 0
        while (message := await call.receive_message()) is not None:
            piece = _piece(message)
            if not piece:
                continue  # a keepalive
            if self.resumed and self.offset + len(piece) > self.artifact.size:
                raise UnexpectedAnswer(
                    "the server sent more than the rest of the artifact: it cannot resume a download"
                )
            if self._held:
                await self._sink(self._held)
            self._state.update(piece)
            self.offset, self._held = self.offset + len(piece), piece
            self._progress(Phase.RECEIVE, self.offset, max(self.artifact.size, self.offset))

    async def finish(self) -> None:
        """Let the last piece go; raises ``ArtifactCorrupt`` when the bytes are others than they should be."""
        if self._state.hexdigest() != self.artifact.digest.hex:
            raise ArtifactCorrupt(got=self._state.hexdigest(), want=self.artifact.digest.hex)
        if self._held:
            await self._sink(self._held)


def _piece(message: bytes) -> memoryview:
    try:
        return read_response_data(message)
    except DecodeError as error:
        raise UnexpectedAnswer("the server's answer to the download is not a ReadResponse") from error
