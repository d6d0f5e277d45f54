"""Owns artifacts that are too large to hold: made piece by piece, each time the same."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from casproxy._proto.google.bytestream import bytestream_pb2 as pb
from casproxy.digest import Digest
from casproxy.gob import encode_resource_name
from casproxy.rpc.channel import Channel
from casproxy.services import registry
from casproxy.wire.metadata import Metadata

PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Artifact:
    """``size`` in bytes. Two of different ``seed`` differ in every piece."""

    size: int
    seed: int = 0

    def pieces(self) -> Iterator[bytes]:
        """The content, 1 MiB at a time."""
        for start in range(0, self.size, PIECE):
            head = self.seed.to_bytes(8, "big") + start.to_bytes(8, "big")
            yield (head + _noise())[: min(PIECE, self.size - start)]

    def digest(self) -> Digest:
        """Computed from the content, at the speed of sha256."""
        state = hashlib.sha256()
        for piece in self.pieces():
            state.update(piece)
        return Digest(state.hexdigest())


@cache
def _noise() -> bytes:
    return random.Random(0).randbytes(PIECE - 16)


async def upload(channel: Channel, token: str, artifact: Artifact, digest: Digest) -> None:
    """Write ``artifact`` as Chainloop's client does; ``RpcError`` when that fails."""
    name = encode_resource_name("large.bin", digest)
    async with channel.call(registry.WRITE.path, metadata=_bearer(token)) as call:
        for piece in artifact.pieces():
            if not await call.send_message(pb.WriteRequest(resource_name=name, data=piece).SerializeToString()):
                break
        await call.send_message(pb.WriteRequest(resource_name=name, finish_write=True).SerializeToString())
        await call.half_close()
        answer = pb.WriteResponse.FromString(await call.receive_message() or b"")
        assert answer.committed_size == artifact.size and await call.receive_message() is None


async def download(channel: Channel, token: str, digest: Digest) -> Digest:
    """Read everything; the digest of what came."""
    state = hashlib.sha256()
    async with channel.call(registry.READ.path, metadata=_bearer(token)) as call:
        await call.send_message(pb.ReadRequest(resource_name=digest.hex).SerializeToString())
        await call.half_close()
        while (message := await call.receive_message()) is not None:
            state.update(pb.ReadResponse.FromString(message).data)
    return Digest(state.hexdigest())


def _bearer(token: str) -> Metadata:
    return Metadata([("authorization", f"Bearer {token}")])
