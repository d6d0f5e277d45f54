"""A server, or a client, of ours in memory, with a ``RawPeer`` at the other end of the bytes.

``exchange`` moves bytes both ways until both sides wait, so a test reads as: queue, exchange, look. Time stands still
unless the test moves it (``mock_clock``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio
import trio.testing

from casproxy.rpc.api import Handler, Interceptor, Method, MethodInfo, MethodKind, ServerCall
from casproxy.rpc.channel import Channel, ChannelSettings, open_channel_over
from casproxy.rpc.server import Server, ServerSettings
from casproxy_tests.wire.peer import Fields, RawPeer, request_fields

UNARY = MethodInfo("t.Test", "Unary", MethodKind.UNARY)
UPLOAD = MethodInfo("t.Test", "Upload", MethodKind.CLIENT_STREAM)
DOWNLOAD = MethodInfo("t.Test", "Download", MethodKind.SERVER_STREAM)
CHAT = MethodInfo("t.Test", "Chat", MethodKind.BIDI_STREAM)


class Wire:
    """The far end of an in-memory connection, as a raw peer. ``stream`` is the near end."""

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer
        self._to = trio.testing.MemoryReceiveStream()
        self._from = trio.testing.MemorySendStream()
        self.stream = trio.StapledStream(self._from, self._to)
        self.closed = False

    async def exchange(self) -> RawPeer:
        """Deliver and collect until nothing moves."""
        while True:
            sent = self._deliver()
            await trio.testing.wait_all_tasks_blocked()
            if not self._collect() and not sent and not self.peer.output:
                return self.peer

    def _deliver(self) -> bool:
        if not self.peer.output:
            return False
        data = bytes(self.peer.output)
        self.peer.output.clear()
        try:
            self._to.put_data(data)
        except trio.ClosedResourceError:
            self.closed = True
            return False
        return True

    def _collect(self) -> bool:
        try:
            data = bytes(self._from.get_data_nowait())
        except trio.WouldBlock:
            return False
        self.closed = self.closed or not data
        self.peer.feed(data)
        return bool(data)

    def hold_writes(self) -> trio.Event:
        """From now on the near end's writes block, as on a socket nobody reads; set the event to let them go."""
        released = trio.Event()
        self._from.send_all_hook = released.wait
        return released

    def break_writes(self) -> None:
        """From now on the near end's writes fail, as on a socket whose peer has closed; reading goes on."""

        async def fail() -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError

        self._from.send_all_hook = fail

    def watch_writes(self) -> list[bytes]:
        """From now on, each write of the near end, apart."""
        writes: list[bytes] = []

        async def note() -> None:
            await trio.lowlevel.checkpoint()
            writes.append(bytes(self._from.get_data_nowait()))
            self.peer.feed(writes[-1])

        self._from.send_all_hook = note
        return writes

    def hang_up(self) -> None:
        """The connection breaks: no more bytes either way."""
        self._to.put_eof()


class _MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](100)

    def connect(self, stream: trio.abc.Stream) -> None:
        self._send.send_nowait(stream)

    async def accept(self) -> trio.abc.Stream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        self._send.close()
        self._receive.close()
        await trio.lowlevel.checkpoint()


class ServerWorld:
    """A server of ours; ``connect`` for each client."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.listener = _MemoryListener()
        self.returned = trio.Event()

    def connect(self, *, settings: dict[int, int] | None = None) -> Wire:
        wire = Wire(RawPeer(settings=settings))
        self.listener.connect(wire.stream)
        return wire

    async def dial(self) -> trio.abc.Stream:
        """For a channel of ours at the other end."""
        await trio.lowlevel.checkpoint()
        near, far = trio.testing.memory_stream_pair()
        try:
            self.listener.connect(far)
        except trio.ClosedResourceError as error:
            raise OSError("connection refused") from error
        return near

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self.server.serve([self.listener], task_status=task_status)
        self.returned.set()


@asynccontextmanager
async def serving(
    *methods: tuple[MethodInfo, Handler],
    interceptors: Sequence[Interceptor] = (),
    settings: ServerSettings | None = None,
) -> AsyncIterator[ServerWorld]:
    """A server in memory; on leaving it must have nothing of its peers' bytes on its books."""
    server = Server([Method(info, handler) for info, handler in methods], interceptors=interceptors, settings=settings)
    world = ServerWorld(server)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.run)
        yield world
        nursery.cancel_scope.cancel()
    assert server.budget.exposed == 0, "credit was lost"


class ClientWorld:
    """A channel of ours; ``wires`` are the connections it dialled, latest last."""

    def __init__(self) -> None:
        self.wires: list[Wire] = []
        self.settings: dict[int, int] = {}
        self.refuse: Exception | None = None
        self.channel: Channel

    async def dial(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self.refuse is not None:
            raise self.refuse
        self.wires.append(Wire(RawPeer(client_side=False, settings=self.settings)))
        return self.wires[-1].stream

    @property
    def wire(self) -> Wire:
        return self.wires[-1]

    async def exchange(self) -> RawPeer:
        """Let the channel dial if it wants to, then move bytes until nothing moves."""
        await trio.testing.wait_all_tasks_blocked()
        return await self.wire.exchange()


@asynccontextmanager
async def channel(settings: ChannelSettings | None = None) -> AsyncIterator[ClientWorld]:
    """A channel in memory to a raw server."""
    world = ClientWorld()
    async with open_channel_over(world.dial, authority="test", settings=settings) as world.channel:
        yield world


def to(info: MethodInfo, *extra: tuple[bytes, bytes], timeout: bytes = b"") -> Fields:
    """The headers of a call of ``info``."""
    deadline = [(b"grpc-timeout", timeout)] if timeout else []
    return request_fields(*deadline, *extra, path=info.path.encode())


RESPONSE: Fields = [(b":status", b"200"), (b"content-type", b"application/grpc")]
OK: Fields = [(b"grpc-status", b"0")]


async def echo(call: ServerCall) -> None:
    """Unary: the request is the response."""
    request = await call.receive_message()
    await call.send_message(b"" if request is None else request)


async def count(call: ServerCall) -> None:
    """Client stream: answers how many bytes came."""
    size = 0
    while (part := await call.receive_message()) is not None:
        size += len(part)
    await call.send_message(str(size).encode())


async def chat(call: ServerCall) -> None:
    """Bidi: each message comes back."""
    while (part := await call.receive_message()) is not None:
        await call.send_message(part)


def blocked(entered: trio.Event, left: Callable[[], None] = lambda: None) -> Handler:
    """A handler that reads nothing and waits to be cancelled."""

    async def handler(call: ServerCall) -> None:
        entered.set()
        try:
            await trio.sleep_forever()
        finally:
            left()

    return handler


async def run_until_done(wire: Callable[[], Awaitable[object]], done: trio.Event) -> None:
    """Exchange until ``done``."""
    while not done.is_set():
        await wire()
