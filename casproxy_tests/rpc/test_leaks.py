"""Many calls that end badly, at random moments, on virtual time; after them everything is as it was before.

``CASPROXY_SOAK=1`` makes 100,000 of the 2,000 calls.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from casproxy.rpc.api import ServerCall
from casproxy.rpc.channel import Channel, open_channel_over
from casproxy.rpc.errors import RpcError
from casproxy.rpc.server import ServerSettings
from casproxy.wire.protocol import WireSettings
from casproxy.wire.status import StatusCode
from casproxy_tests.rpc.world import CHAT, DOWNLOAD, UNARY, UPLOAD, ServerWorld, serving

CALLS = 100_000 if os.environ.get("CASPROXY_SOAK") == "1" else 2_000
CALLERS = 20
METHODS = (UNARY, UPLOAD, DOWNLOAD, CHAT)


class Chance:
    """Delays and sizes, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._rnd = random.Random(seed)

    def size(self) -> int:
        return self._rnd.choice([0, 1, 100, 5_000, 70_000, 300_000])

    def of(self, probability: float) -> bool:
        return self._rnd.random() < probability

    def delay(self) -> float:
        return self._rnd.choice([0.0, 0.001, 0.01, 0.05]) * self._rnd.random()

    def seconds(self) -> float:
        return self._rnd.uniform(0.001, 0.1)

    def method(self) -> str:
        return self._rnd.choice(METHODS).path


class Server:
    """Handlers that are slow, answer early, fail, or read only a part."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self.ended = 0

    async def handle(self, call: ServerCall) -> None:
        try:
            await self._handle(call)
        finally:
            self.ended += 1

    async def _handle(self, call: ServerCall) -> None:
        chance = self._chance
        await trio.sleep(chance.delay())
        if chance.of(0.1):
            raise RpcError(StatusCode.FAILED_PRECONDITION, "by chance")
        if call.info in (UNARY, DOWNLOAD):
            await call.receive_message()
        else:
            while not chance.of(0.1) and (parts := await call.receive_parts()):
                held = sum(len(part) for part in parts if isinstance(part, bytes | memoryview))
                await trio.sleep(chance.delay())
                call.hand_on(held)
        if call.info in (UNARY, UPLOAD):
            await call.send_message(bytes(chance.size()))
            return
        while not chance.of(0.3):
            await call.send_message(bytes(chance.size()))
            await trio.sleep(chance.delay())


class Callers:
    """They cancel, give deadlines, leave early, and now and then pull the plug."""

    def __init__(self, world: ServerWorld, chance: Chance) -> None:
        self._world = world
        self._chance = chance
        self._stream: trio.abc.Stream | None = None
        self.outcomes: Counter[str] = Counter()
        self.left = CALLS

    async def dial(self) -> trio.abc.Stream:
        self._stream = await self._world.dial()
        return self._stream

    async def work(self, channel: Channel) -> None:
        while self.left > 0:
            self.left -= 1
            if self.left % 97 == 0 and self._stream is not None:
                await trio.aclose_forcefully(self._stream)
            self.outcomes[await self._call(channel)] += 1

    async def _call(self, channel: Channel) -> str:
        chance = self._chance
        with trio.move_on_after(chance.seconds() if chance.of(0.3) else 60):
            try:
                return await self._talk(channel, chance)
            except RpcError as error:
                return error.code.name
        return "given up"

    async def _talk(self, channel: Channel, chance: Chance) -> str:
        timeout = chance.seconds() if chance.of(0.2) else 60
        async with channel.call(chance.method(), timeout=timeout) as call:
            while True:
                if not await call.send_message(bytes(chance.size())):
                    break
                await trio.sleep(chance.delay())
                if chance.of(0.5):
                    break
            if chance.of(0.1):
                return "left"
            await call.half_close()
            while await call.receive_message() is not None:
                await trio.sleep(chance.delay())
                if chance.of(0.05):
                    return "left"
            return "OK"


@pytest.mark.parametrize("seed", [1])
async def test_nothing_is_left_of_calls_that_end_in_every_way(seed: int, autojump_clock: MockClock) -> None:
    chance = Chance(seed)
    handlers = Server(chance)
    settings = ServerSettings(wire=WireSettings(max_concurrent_streams=10))
    async with serving(*((info, handlers.handle) for info in METHODS), settings=settings) as world:
        await trio.testing.wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        callers = Callers(world, chance)
        async with open_channel_over(callers.dial, authority="test") as channel:
            async with trio.open_nursery() as nursery:
                for _ in range(CALLERS):
                    nursery.start_soon(callers.work, channel)
            await trio.sleep(1)
            assert_as_new(world, channel)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert callers.outcomes.total() == CALLS
        assert {"OK", "given up", "left", "UNAVAILABLE", "DEADLINE_EXCEEDED", "FAILED_PRECONDITION"} <= set(
            callers.outcomes
        )
        assert callers.outcomes["OK"] > CALLS / 10
        assert handlers.ended > CALLS / 2


def assert_as_new(world: ServerWorld, channel: Channel) -> None:
    """No stream, no byte held, and both ends of the living connection agree on windows that are open."""
    assert world.server.budget.exposed == 0
    assert channel._budget.exposed == 0
    for connection in world.server._live:
        server, client = connection._protocol, channel._connection._connection.protocol  # type: ignore[union-attr]
        for receiver, sender in ((server, client), (client, server)):
            credit = receiver._credit
            assert len(credit) == 0
            assert credit.held == 0
            assert sender._h2.outbound_flow_control_window == credit.available
            assert credit.available * 2 > min(credit.target, 65_535)
    assert len(world.server._live) <= 1
