"""A ByteStream server on grpcio's asyncio API (C-core), tuned as its users would: a peer to be compared with.

Does the work the bench compares with: hash an upload and forget it, or keep it when its name says so; hash a kept
artifact and send it. Prints a JSON line with its address when it is ready. Tokens are not looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc

from casproxy._proto.cas.v1 import resource_pb2
from casproxy._proto.google.bytestream import bytestream_pb2 as pb
from contrib.bench.peer_names import Shelf

_OPTIONS = [("grpc.max_receive_message_length", 8 << 20), ("grpc.so_reuseport", 0)]


class ByteStream:
    """The methods; each takes and gives protobuf messages, as generated stubs do."""

    def __init__(self) -> None:
        self._shelf = Shelf()

    async def write(self, requests: AsyncIterator[Any], context: Any) -> Any:
        """Hash what comes; INVALID_ARGUMENT when it is not what the name says."""
        upload = None
        async for request in requests:
            upload = upload or self._shelf.upload(request.resource_name)
            upload.add(request.data)
        if upload is None or not upload.finish():
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "digest mismatch")
        return pb.WriteResponse(committed_size=0 if upload is None else upload.size)

    async def read(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Send a kept artifact, hashed on the way, the last piece after the digest matched."""
        pieces = self._shelf.pieces(request.resource_name)
        if pieces is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "not kept")
            return
        sha256, held = hashlib.sha256(), b""
        for piece in pieces:
            sha256.update(piece)
            if held:
                yield pb.ReadResponse(data=held)
            held = piece
        if sha256.hexdigest() != request.resource_name:
            await context.abort(grpc.StatusCode.DATA_LOSS, "checksum mismatch")
        yield pb.ReadResponse(data=held)

    async def describe(self, request: Any, context: Any) -> Any:
        """What is known of an artifact."""
        digest = request.digest.removeprefix("sha256:")
        size = self._shelf.size(digest)
        if size is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown")
        result = resource_pb2.CASResource(file_name=digest, digest=digest, size=size)
        return resource_pb2.ResourceServiceDescribeResponse(result=result)


async def main() -> None:
    """Serve until the process is ended."""
    service = ByteStream()
    write = grpc.stream_unary_rpc_method_handler(
        service.write, pb.WriteRequest.FromString, pb.WriteResponse.SerializeToString
    )
    read = grpc.unary_stream_rpc_method_handler(
        service.read, pb.ReadRequest.FromString, pb.ReadResponse.SerializeToString
    )
    describe = grpc.unary_unary_rpc_method_handler(
        service.describe,
        resource_pb2.ResourceServiceDescribeRequest.FromString,
        resource_pb2.ResourceServiceDescribeResponse.SerializeToString,
    )
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("google.bytestream.ByteStream", {"Write": write, "Read": read}),
            grpc.method_handlers_generic_handler("cas.v1.ResourceService", {"Describe": describe}),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"grpc": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
