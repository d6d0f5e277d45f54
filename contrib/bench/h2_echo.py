"""The least an HTTP/2 server on plain h2 does for a unary gRPC call: read it, send the same bytes back.

``python -m contrib.bench.h2_echo`` prints a JSON line with its address. It knows no tokens, methods or errors: what it
costs is the price of h2, asyncio and the socket, and so a limit for everything that is built on them.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h2.config
import h2.connection
import h2.events

_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
_TRAILERS = [("grpc-status", "0")]


class Echo(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        self._bodies: dict[int, bytes] = {}
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = transport
        self._h2.update_settings({3: 1000})
        self._h2.initiate_connection()
        self._transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Answer every request that has ended."""
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self._bodies[event.stream_id] = self._bodies.get(event.stream_id, b"") + event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self._h2.send_headers(event.stream_id, _HEADERS)
                self._h2.send_data(event.stream_id, self._bodies.pop(event.stream_id, b""))
                self._h2.send_headers(event.stream_id, _TRAILERS, end_stream=True)
        self._transport.write(self._h2.data_to_send())


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    print(json.dumps({"grpc": f"127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
