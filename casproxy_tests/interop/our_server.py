"""A process that serves the test methods with our server. ``roll`` on its input replaces the server without a gap."""

from __future__ import annotations

import hashlib
import sys

import trio

from casproxy.rpc.api import Handler, Method, MethodInfo, MethodKind, ServerCall
from casproxy.rpc.errors import RpcError
from casproxy.rpc.server import Server, ServerSettings
from casproxy.wire.status import StatusCode
from casproxy_tests.interop import programs


async def unary(call: ServerCall) -> None:
    request = await call.receive_message()
    for key, value in call.metadata:
        if key.startswith("x-"):
            call.add_trailing_metadata(key, value)
    await call.send_message(request or b"")


async def upload(call: ServerCall) -> None:
    digest = hashlib.sha256()
    while parts := await call.receive_parts():
        for part in parts:
            if isinstance(part, bytes | memoryview):
                digest.update(part)
                call.hand_on(len(part))
    await call.send_message(digest.hexdigest().encode())


async def download(call: ServerCall) -> None:
    count, size = map(int, (await call.receive_message() or b"").split())
    piece = bytes(range(256)) * (size // 256 + 1)
    for _ in range(count):
        await call.send_message(memoryview(piece)[:size])


async def chat(call: ServerCall) -> None:
    while (message := await call.receive_message()) is not None:
        await call.send_message(message)


async def early(call: ServerCall) -> None:
    await call.send_message(b"stored")


async def fail(call: ServerCall) -> None:
    raise RpcError(StatusCode.NOT_FOUND, programs.MESSAGE, programs.DETAILS)


class Cancels:
    """How many ``Wait`` were cancelled."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[None](1000)

    async def wait(self, call: ServerCall) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._send.send_nowait(None)

    async def cancelled(self, call: ServerCall) -> None:
        await call.receive_message()
        await self._receive.receive()
        await call.send_message(b"yes")


class Served:
    """Counts the calls of the handlers it wraps."""

    def __init__(self) -> None:
        self._count = 0

    def counted(self, handler: Handler) -> Handler:
        async def count(call: ServerCall) -> None:
            self._count += 1
            await handler(call)

        return count

    async def served(self, call: ServerCall) -> None:
        await call.receive_message()
        await call.send_message(str(self._count).encode())


def methods() -> list[Method]:
    cancels, served = Cancels(), Served()
    table: list[tuple[str, MethodKind, Handler]] = [
        (programs.UNARY, MethodKind.UNARY, served.counted(unary)),
        (programs.UPLOAD, MethodKind.CLIENT_STREAM, served.counted(upload)),
        (programs.DOWNLOAD, MethodKind.SERVER_STREAM, download),
        (programs.CHAT, MethodKind.BIDI_STREAM, chat),
        (programs.EARLY, MethodKind.CLIENT_STREAM, early),
        (programs.FAIL, MethodKind.UNARY, fail),
        (programs.WAIT, MethodKind.CLIENT_STREAM, cancels.wait),
        (programs.CANCELLED, MethodKind.UNARY, cancels.cancelled),
        (programs.SERVED, MethodKind.UNARY, served.served),
    ]
    return [Method(MethodInfo(path.split("/")[1], path.split("/")[2], kind), handler) for path, kind, handler in table]


async def main() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    settings = ServerSettings(drain_grace=20, unary_timeout=60)
    print(listener.socket.getsockname()[1], flush=True)
    served = methods()
    async with trio.open_nursery() as nursery:
        server: Server | None = None
        while True:
            # every generation has a descriptor of its own for the one socket, so its queue outlives each of them
            fresh = Server(served, settings=settings)
            await nursery.start(fresh.serve, [trio.SocketListener(listener.socket.dup())])
            if server is not None:
                server.start_draining()
            server = fresh
            if not await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
                break
        server.start_draining()
        await listener.aclose()


if __name__ == "__main__":
    trio.run(main)
