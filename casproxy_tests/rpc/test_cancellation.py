"""Calls cancelled at every await, at either end: nothing is left running, held or unusable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from casproxy.rpc.api import ServerCall
from casproxy.rpc.channel import Channel, open_channel_over
from casproxy.rpc.errors import RpcError
from casproxy.rpc.server import Server
from casproxy.wire.status import StatusCode
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.rpc.world import CHAT, DOWNLOAD, UNARY, UPLOAD, ServerWorld, chat, count, echo, serving

LARGE = 200_000
"""More than either side's first credit."""


async def early(call: ServerCall) -> None:
    await call.receive_parts()
    await call.send_message(b"enough")


async def download(call: ServerCall) -> None:
    await call.receive_message()
    for _ in range(3):
        await call.send_message(bytes(LARGE))


async def unary(channel: Channel) -> object:
    return await channel.unary(UNARY.path, b"hello")


async def upload(channel: Channel) -> object:
    async with channel.call(UPLOAD.path) as call:
        for _ in range(3):
            if not await call.send_message(bytes(LARGE)):
                break
        await call.half_close()
        answer = await call.receive_message()
        assert await call.receive_message() is None
        return answer


async def read_all(channel: Channel) -> object:
    async with channel.call(DOWNLOAD.path) as call:
        await call.send_message(b"")
        await call.half_close()
        sizes = []
        while (message := await call.receive_message()) is not None:
            sizes.append(len(message))
        return sizes


async def talk(channel: Channel) -> object:
    async with channel.call(CHAT.path) as call:
        await call.send_message(bytes(LARGE))
        answer = await call.receive_message()
        await call.half_close()
        assert await call.receive_message() is None
        return None if answer is None else len(answer)


SCENARIOS = {
    "unary": (unary, b"hello"),
    "upload": (upload, str(3 * LARGE).encode()),
    "download": (read_all, [LARGE] * 3),
    "chat": (talk, LARGE),
}
METHODS = [(UNARY, echo), (UPLOAD, count), (DOWNLOAD, download), (CHAT, chat)]


@asynccontextmanager
async def connected(world: ServerWorld) -> AsyncIterator[Channel]:
    async with open_channel_over(world.dial, authority="test") as channel:
        yield channel


@asynccontextmanager
async def both() -> AsyncIterator[tuple[ServerWorld, Channel]]:
    """Cancelled together, either may go first; a caller then hears of the server's end."""
    try:
        async with serving(*METHODS) as world, connected(world) as channel:
            yield world, channel
    except* RpcError as group:
        assert {str(error.code) for error in flat(group)} == {str(StatusCode.UNAVAILABLE)}  # noqa: PT017 - a filter
        await trio.lowlevel.checkpoint()  # where this was our own cancellation, it is raised here
        raise


def flat(group: BaseExceptionGroup[RpcError]) -> list[RpcError]:
    return [
        one for error in group.exceptions for one in (flat(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_cancelled_caller_leaves_its_connection_as_good_as_it_was(name: str) -> None:
    scenario, answer = SCENARIOS[name]
    async with serving(*METHODS) as world, connected(world) as channel:
        await unary(channel)

        async def check(run: Run[object]) -> None:
            if not run.cancelled:
                assert run.value == answer
            (connection,) = world.server._live
            assert len(connection._protocol._credit) == 0, "a stream is still open at the server"
            assert world.server.budget.exposed == 0
            assert channel._budget.exposed == 0
            assert await unary(channel) == b"hello"
            assert len(world.server._live) == 1

        assert await cancel_everywhere(lambda: scenario(channel), check) >= 2


@pytest.mark.parametrize("name", SCENARIOS)
async def test_server_and_channel_cancelled_together_leave_nothing(name: str) -> None:
    scenario, answer = SCENARIOS[name]
    servers: list[Server] = []

    async def everything() -> object:
        async with both() as (world, channel):
            servers.append(world.server)
            return await scenario(channel)

    async def check(run: Run[object]) -> None:
        if not run.cancelled:
            assert run.value == answer
        while servers:
            server = servers.pop()
            assert server.budget.exposed == 0
            assert not server._live

    assert await cancel_everywhere(everything, check) >= 10


async def test_an_early_answer_cancelled_at_every_await() -> None:
    async with serving((UNARY, echo), (UPLOAD, early)) as world, connected(world) as channel:
        await unary(channel)

        async def check(run: Run[object]) -> None:
            assert run.cancelled or run.value == b"enough"
            assert await unary(channel) == b"hello"
            assert world.server.budget.exposed == 0

        assert await cancel_everywhere(lambda: upload(channel), check) >= 2


async def test_dialling_cancelled_at_every_await_leaves_a_channel_that_dials_again() -> None:
    async with serving((UNARY, echo)) as world:

        async def first_call() -> object:
            async with connected(world) as channel:
                with trio.CancelScope() as inner:
                    inner.cancel()
                    await unary(channel)
                return await unary(channel)

        async def check(run: Run[object]) -> None:
            assert run.cancelled or run.value == b"hello"

        assert await cancel_everywhere(first_call, check) >= 5


async def test_draining_cancelled_at_every_await() -> None:
    servers: list[Server] = []

    async def everything() -> object:
        async with both() as (world, channel):
            servers.append(world.server)
            async with channel.call(CHAT.path) as call:
                await call.send_message(b"one")
                assert await call.receive_message() == b"one"
                world.server.start_draining()
                await call.send_message(b"two")
                assert await call.receive_message() == b"two"
                await call.half_close()
                assert await call.receive_message() is None
            await world.returned.wait()
        return "drained"

    async def check(run: Run[object]) -> None:
        assert run.cancelled or run.value == "drained"
        while servers:
            assert servers.pop().budget.exposed == 0

    assert await cancel_everywhere(everything, check) >= 10


async def test_a_call_whose_server_dies_at_every_await_ends_with_unavailable() -> None:
    """The other side of cancellation: here the server is what is cancelled, the caller must hear of it."""

    async def scenario() -> object:
        async with both() as (world, channel), trio.open_nursery() as nursery:

            async def caller() -> None:
                while True:
                    try:
                        await talk(channel)
                    except RpcError as error:
                        assert error.code.name == "UNAVAILABLE"  # noqa: PT017 - most calls succeed
                        return

            nursery.start_soon(caller)
            await unary(channel)
            for connection in list(world.server._live):
                await trio.aclose_forcefully(connection._connection.transport._stream)
        return "ended"

    async def check(run: Run[object]) -> None:
        assert run.cancelled or run.value == "ended"

    assert await cancel_everywhere(scenario, check) >= 10
