"""A ByteStream server on grpclib (asyncio, h2): ``python -m contrib.bench.peer_grpclib``. The work is peer_grpcio's."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

from grpclib.config import Configuration
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from casproxy._proto.google.bytestream import bytestream_pb2 as pb
from contrib.bench.peer_names import Shelf

_WINDOW = 4 << 20


class ByteStream:
    """The methods, as grpclib's generated base classes would have them."""

    def __init__(self) -> None:
        self._shelf = Shelf()

    async def write(self, stream: Any) -> None:
        """Hash what comes; INVALID_ARGUMENT when it is not what the name says."""
        upload = None
        while (request := await stream.recv_message()) is not None:
            upload = upload or self._shelf.upload(request.resource_name)
            upload.add(request.data)
        if upload is None or not upload.finish():
            raise GRPCError(Status.INVALID_ARGUMENT, "digest mismatch")
        await stream.send_message(pb.WriteResponse(committed_size=upload.size))

    async def read(self, stream: Any) -> None:
        """Send a kept artifact, hashed on the way, the last piece after the digest matched."""
        name = (await stream.recv_message()).resource_name
        pieces = self._shelf.pieces(name)
        if pieces is None:
            raise GRPCError(Status.NOT_FOUND, "not kept")
        sha256, held = hashlib.sha256(), b""
        for piece in pieces:
            sha256.update(piece)
            if held:
                await stream.send_message(pb.ReadResponse(data=held))
            held = piece
        if sha256.hexdigest() != name:
            raise GRPCError(Status.DATA_LOSS, "checksum mismatch")
        await stream.send_message(pb.ReadResponse(data=held))

    def __mapping__(self) -> dict[str, Handler]:
        service = "/google.bytestream.ByteStream"
        return {
            f"{service}/Write": Handler(self.write, Cardinality.STREAM_UNARY, pb.WriteRequest, pb.WriteResponse),
            f"{service}/Read": Handler(self.read, Cardinality.UNARY_STREAM, pb.ReadRequest, pb.ReadResponse),
        }


async def main() -> None:
    """Serve until the process is ended."""
    config = Configuration(http2_connection_window_size=4 * _WINDOW, http2_stream_window_size=_WINDOW)
    server = Server([ByteStream()], config=config)
    await server.start("127.0.0.1", 0)
    listening: Any = server._server
    print(json.dumps({"grpc": f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"}), flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
