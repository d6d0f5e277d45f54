"""A process for h2spec: our server with HTTP/2's smallest MAX_FRAME_SIZE, which h2spec takes for granted."""

from __future__ import annotations

import sys

import trio

from casproxy.rpc.server import Server, ServerSettings
from casproxy.wire.protocol import WireSettings
from casproxy_tests.interop.our_server import methods


async def main() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    server = Server(methods(), settings=ServerSettings(wire=WireSettings(max_frame=16 * 1024)))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [listener])
        print(listener.socket.getsockname()[1], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        server.start_draining()


if __name__ == "__main__":
    trio.run(main)
