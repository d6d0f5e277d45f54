"""Our channel against the servers of grpcio, grpc-go, grpc-js and grpclib, each in a process of its own."""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest
import trio

from casproxy.rpc.channel import Channel, open_channel
from casproxy.rpc.errors import RpcError
from casproxy.wire.metadata import Metadata
from casproxy.wire.status import StatusCode
from casproxy_tests.interop import programs
from casproxy_tests.interop.programs import Program, python, running, started

EARLY_CALLS = 600 if os.environ.get("CASPROXY_SOAK") == "1" else 60
MIB = 1024 * 1024
TIMEOUT = 60


@pytest.fixture(scope="module", params=["grpcio", "go", "js", "grpclib"])
def server(request: pytest.FixtureRequest) -> Iterator[Program]:
    match request.param:
        case "grpcio":
            command = python("grpc_server")
        case "grpclib":
            command = [*python("grpclib_peer"), "server"]
        case name:
            command = [*request.getfixturevalue(f"grpc_{name}"), "server"]
    with started(command) as program:
        yield program


async def upload(channel: Channel, path: str, pieces: list[bytes]) -> bytes | None:
    async with channel.call(path, timeout=TIMEOUT) as call:
        for piece in pieces:
            if not await call.send_message(piece):
                break
        await call.half_close()
        answer = await call.receive_message()
        assert await call.receive_message() is None
        return answer


def joined(metadata: Metadata) -> dict[str, list[bytes] | str]:
    """Text values of one key as one, the way node's HTTP/2 gives them on (RFC 9110, 5.3 allows it)."""
    return {
        key: [value for value in metadata.get_all(key) if isinstance(value, bytes)]
        or ", ".join(map(str, metadata.get_all(key)))
        for key, _ in metadata
    }


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_536, 3 * MIB])
async def test_unary(server: Program, size: int) -> None:
    request = random.Random(size).randbytes(size)
    async with open_channel("127.0.0.1", server.port) as channel:
        assert await channel.unary(programs.UNARY, request, timeout=TIMEOUT) == request


@pytest.mark.parametrize("pieces", [0, 32])
async def test_upload(server: Program, pieces: int) -> None:
    piece = random.Random(1).randbytes(MIB)
    async with open_channel("127.0.0.1", server.port) as channel:
        answer = await upload(channel, programs.UPLOAD, [piece] * pieces)
    assert answer == hashlib.sha256(piece * pieces).hexdigest().encode()


async def test_download(server: Program) -> None:
    sizes: list[int] = []
    async with (
        open_channel("127.0.0.1", server.port) as channel,
        channel.call(programs.DOWNLOAD, timeout=TIMEOUT) as call,
    ):
        await call.send_message(b"32 1048576")
        await call.half_close()
        while (message := await call.receive_message()) is not None:
            sizes.append(len(message))
    assert sizes == [MIB] * 32


async def test_chat(server: Program) -> None:
    sent = [str(number).encode() * 1000 for number in range(200)]
    got: list[bytes] = []
    async with (
        open_channel("127.0.0.1", server.port) as channel,
        channel.call(programs.CHAT, timeout=TIMEOUT) as call,
        trio.open_nursery() as nursery,
    ):

        async def send() -> None:
            for message in sent:
                assert await call.send_message(message)
            await call.half_close()

        nursery.start_soon(send)
        while (message := await call.receive_message()) is not None:
            got.append(message)
    assert got == sent


async def test_b08_every_early_answer_is_ok(server: Program) -> None:
    seen: Counter[bytes | None] = Counter()
    async with open_channel("127.0.0.1", server.port) as channel:
        for _ in range(EARLY_CALLS):
            seen[await upload(channel, programs.EARLY, [bytes(100_000)] * 40)] += 1
    assert seen == {b"stored": EARLY_CALLS}


async def test_leaving_a_call_cancels_it_at_the_server(server: Program) -> None:
    async with open_channel("127.0.0.1", server.port) as channel:
        async with channel.call(programs.WAIT) as call:
            await call.send_message(bytes(10_000))
            assert await channel.unary(programs.UNARY, b"it runs", timeout=TIMEOUT) == b"it runs"
        assert await channel.unary(programs.CANCELLED, b"", timeout=TIMEOUT) == b"yes"


async def test_b03_a_deadline_ends_the_call_on_both_sides(server: Program) -> None:
    async with open_channel("127.0.0.1", server.port) as channel:
        with pytest.raises(RpcError) as error:
            async with channel.call(programs.WAIT, timeout=0.2) as call:
                await call.send_message(b"x")
                await call.receive_message()
        assert error.value.code is StatusCode.DEADLINE_EXCEEDED
        assert await channel.unary(programs.CANCELLED, b"", timeout=TIMEOUT) == b"yes"


async def test_b07_metadata_both_ways(server: Program) -> None:
    sent = Metadata([("x-text", "plain"), ("x-bin", b"\x00\xff\n"), ("x-large", "v" * 16 * 1024), ("x-text", "2")])
    async with (
        open_channel("127.0.0.1", server.port) as channel,
        channel.call(programs.UNARY, metadata=sent, timeout=TIMEOUT) as call,
    ):
        await call.send_message(b"")
        await call.half_close()
        assert await call.receive_message() == b""
        assert await call.receive_message() is None
        assert joined(call.trailing_metadata) == joined(sent)


async def test_b01_an_error_with_message_and_details(server: Program) -> None:
    async with open_channel("127.0.0.1", server.port) as channel:
        with pytest.raises(RpcError) as error:
            await channel.unary(programs.FAIL, b"", timeout=TIMEOUT)
    assert error.value.code is StatusCode.NOT_FOUND
    assert error.value.message == programs.MESSAGE
    assert error.value.details in (programs.DETAILS, b"")  # grpc-go and grpclib send none with a plain error


async def test_b02_an_unknown_method(server: Program) -> None:
    async with open_channel("127.0.0.1", server.port) as channel:
        with pytest.raises(RpcError) as error:
            await channel.unary("/t.Test/Nothing", b"", timeout=TIMEOUT)
    assert error.value.code is StatusCode.UNIMPLEMENTED


async def test_b09_calls_in_flight_survive_a_server_that_stops() -> None:
    """grpcio drains with one GOAWAY; what runs is finished, the next call finds nobody."""
    with running("grpc_server") as server:
        async with open_channel("127.0.0.1", server.port) as channel:
            async with channel.call(programs.CHAT, timeout=TIMEOUT) as call:
                await call.send_message(b"one")
                assert await call.receive_message() == b"one"
                server.tell("stop")
                for _ in range(10):
                    await call.send_message(b"more")
                    assert await call.receive_message() == b"more"
                await call.half_close()
                assert await call.receive_message() is None
            assert await trio.to_thread.run_sync(server.hear) == "stopped"
            with pytest.raises(RpcError) as error:
                await channel.unary(programs.UNARY, b"", timeout=TIMEOUT)
        assert error.value.code is StatusCode.UNAVAILABLE
