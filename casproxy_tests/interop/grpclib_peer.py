"""grpclib, unmodified, as the other end: ``client ADDR`` or ``server``; see ``contrib/interop/go``.

An asyncio program of its own; nothing of it is imported by the tests.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from grpclib.client import Channel
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from casproxy_tests.interop import programs

MIB = 1024 * 1024
WORKERS = 8


class Raw(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


class Client:
    def __init__(self, addr: str) -> None:
        host, port = addr.rsplit(":", 1)
        self.channel = Channel(host, int(port), codec=Raw())

    async def unary(self, path: str, request: bytes, metadata: dict[str, Any] | None = None) -> tuple[Any, Any]:
        async with self.channel.request(
            path, Cardinality.UNARY_UNARY, bytes, bytes, timeout=60, metadata=metadata
        ) as stream:
            await stream.send_message(request, end=True)
            answer = await stream.recv_message()
            await stream.recv_trailing_metadata()
        return answer, stream.trailing_metadata

    async def upload(self, path: str, piece: bytes, count: int) -> Any:
        async with self.channel.request(path, Cardinality.STREAM_UNARY, bytes, bytes, timeout=60) as stream:
            for _ in range(count):
                await stream.send_message(piece)
            await stream.end()
            return await stream.recv_message()

    async def check_unary(self) -> None:
        for size in (0, 1, 16_379, 16_380, 65_536, 3 * MIB):
            assert (await self.unary(programs.UNARY, b"a" * size))[0] == b"a" * size

    async def check_upload(self) -> None:
        piece = b"0123456789abcdef" * (MIB // 16)
        assert await self.upload(programs.UPLOAD, piece, 32) == hashlib.sha256(piece * 32).hexdigest().encode()

    async def check_download(self) -> None:
        sizes = []
        async with self.channel.request(
            programs.DOWNLOAD, Cardinality.UNARY_STREAM, bytes, bytes, timeout=60
        ) as stream:
            await stream.send_message(b"32 1048576", end=True)
            while (message := await stream.recv_message()) is not None:
                sizes.append(len(message))
        assert sizes == [MIB] * 32

    async def check_chat(self) -> None:
        async with self.channel.request(programs.CHAT, Cardinality.STREAM_STREAM, bytes, bytes, timeout=60) as stream:
            for number in range(50):
                await stream.send_message(str(number).encode())
                assert await stream.recv_message() == str(number).encode()
            await stream.end()
            assert await stream.recv_message() is None

    async def check_status(self) -> None:
        with pytest.raises(GRPCError) as error:
            await self.unary(programs.FAIL, b"")
        assert (error.value.status, error.value.message) == (Status.NOT_FOUND, programs.MESSAGE)

    async def check_cancel(self) -> None:
        async with self.channel.request(programs.WAIT, Cardinality.STREAM_UNARY, bytes, bytes, timeout=60) as stream:
            await stream.send_message(bytes(10_000))  # nobody reads it: it must fit the window
            assert (await self.unary(programs.UNARY, b"it runs"))[0] == b"it runs"
            await stream.cancel()
        assert (await self.unary(programs.CANCELLED, b""))[0] == b"yes"

    async def check_deadline(self) -> None:
        with pytest.raises((TimeoutError, GRPCError)) as error:
            async with self.channel.request(
                programs.WAIT, Cardinality.STREAM_UNARY, bytes, bytes, timeout=0.2
            ) as stream:
                await stream.send_message(b"x", end=True)
                await stream.recv_message()
        assert getattr(error.value, "status", Status.DEADLINE_EXCEEDED) is Status.DEADLINE_EXCEEDED
        assert (await self.unary(programs.CANCELLED, b""))[0] == b"yes"

    async def check_metadata(self) -> None:
        sent = {"x-large": "m" * 12 * 1024, "x-some-bin": b"\x00\xff\x01,"}
        _, trailers = await self.unary(programs.UNARY, b"x", sent)
        assert {key: trailers[key] for key in sent} == sent

    def checks(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        return [
            ("unary", self.check_unary),
            ("upload", self.check_upload),
            ("download", self.check_download),
            ("chat", self.check_chat),
            ("status", self.check_status),
            ("cancel", self.check_cancel),
            ("deadline", self.check_deadline),
            ("metadata", self.check_metadata),
        ]


async def run_client(addr: str) -> int:
    client, failed = Client(addr), 0
    for name, check in client.checks():
        try:
            await check()
            print(f"{name}: ok", flush=True)
        except (AssertionError, GRPCError, OSError) as error:
            print(f"{name}: {error!r}", flush=True)
            failed = 1
    client.channel.close()
    return failed


class Service:
    """The test methods, as ``programs`` describes them."""

    def __init__(self) -> None:
        self._cancels = asyncio.Semaphore(0)

    async def unary(self, stream: Any) -> None:
        request = await stream.recv_message()
        echoed = [(key, value) for key, value in stream.metadata.items() if key.startswith("x-")]
        await stream.send_message(request)
        await stream.send_trailing_metadata(metadata=echoed)

    async def upload(self, stream: Any) -> None:
        digest = hashlib.sha256()
        while (message := await stream.recv_message()) is not None:
            digest.update(message)
        await stream.send_message(digest.hexdigest().encode())

    async def download(self, stream: Any) -> None:
        count, size = map(int, (await stream.recv_message()).split())
        for _ in range(count):
            await stream.send_message((bytes(range(256)) * (size // 256 + 1))[:size])

    async def chat(self, stream: Any) -> None:
        while (message := await stream.recv_message()) is not None:
            await stream.send_message(message)

    async def early(self, stream: Any) -> None:
        await stream.send_message(b"stored")

    async def fail(self, stream: Any) -> None:
        raise GRPCError(Status.NOT_FOUND, programs.MESSAGE)

    async def wait(self, stream: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self._cancels.release()

    async def cancelled(self, stream: Any) -> None:
        await stream.recv_message()
        await self._cancels.acquire()
        await stream.send_message(b"yes")

    def __mapping__(self) -> dict[str, Handler]:
        table = [
            (programs.UNARY, self.unary, Cardinality.UNARY_UNARY),
            (programs.UPLOAD, self.upload, Cardinality.STREAM_UNARY),
            (programs.DOWNLOAD, self.download, Cardinality.UNARY_STREAM),
            (programs.CHAT, self.chat, Cardinality.STREAM_STREAM),
            (programs.EARLY, self.early, Cardinality.STREAM_UNARY),
            (programs.FAIL, self.fail, Cardinality.UNARY_UNARY),
            (programs.WAIT, self.wait, Cardinality.STREAM_UNARY),
            (programs.CANCELLED, self.cancelled, Cardinality.UNARY_UNARY),
        ]
        return {path: Handler(method, kind, bytes, bytes) for path, method, kind in table}


async def run_server() -> int:
    server = Server([Service()], codec=Raw())
    await server.start("127.0.0.1", 0)
    listening: Any = server._server
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()
    return 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["client", addr]:
            sys.exit(asyncio.run(run_client(addr)))
        case ["server"]:
            sys.exit(asyncio.run(run_server()))
        case _:
            sys.exit("usage: client ADDR | server")
