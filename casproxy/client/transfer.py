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
from casproxy.digest import Digest
from casproxy.errors import ArtifactCorrupt, DigestMismatch
from casproxy.rpc.api import ClientCall
from casproxy.rpc.errors import RpcError
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


async def receive_artifact(call: ClientCall, digest: Digest, size: int, sink: Sink, progress: Progress) -> None:
    """Pass every byte to ``sink``, the last piece only after the sha256 of all of them was ``digest``.

    ``size``: what the server said the artifact has, bytes; for ``progress`` only. Raises ``ArtifactCorrupt`` when the
    bytes are others, ``RpcError`` as the server does.
    """
    state, done, held = hashlib.sha256(), 0, memoryview(b"")
    while (message := await call.receive_message()) is not None:
        piece = _piece(message)
        if not piece:
            continue  # a keepalive
        if held:
            await sink(held)
        state.update(piece)
        done, held = done + len(piece), piece
        progress(Phase.RECEIVE, done, max(size, done))
    if state.hexdigest() != digest.hex:
        raise ArtifactCorrupt(got=state.hexdigest(), want=digest.hex)
    if held:
        await sink(held)


def _piece(message: bytes) -> memoryview:
    try:
        return read_response_data(message)
    except DecodeError as error:
        raise UnexpectedAnswer("the server's answer to the download is not a ReadResponse") from error
