"""A server in memory, a well-behaved neighbour that calls it all the time, and attackers that send bytes.

Time is counted in passes of Trio's scheduler, not in seconds: a pass gives each runnable task one step, so an attacker
that is served in small steps leaves the neighbour its passes however slow the machine is. ``Neighbour.calls`` at the
moment a limit is reached says how many calls went through while the attack was being worked off.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager

import trio
import trio.testing

from casproxy.rpc.api import Handler, Method, MethodInfo
from casproxy.rpc.channel import Channel, open_channel_over
from casproxy.rpc.limits import LIMITS
from casproxy.rpc.server import Server, ServerSettings
from casproxy_tests.rpc.world import UNARY, ServerWorld, Wire, echo
from casproxy_tests.wire.peer import RawPeer

PASSES_PER_CALL = 30
"""The neighbour's call takes about twelve; with an attacker beside it, it may take a few more and no multiple."""


class Arena:
    """``limits``: what the server said peers ran into; ``calls``: how often the neighbour was answered.

    ``attackers_seconds``: what the attackers' own steps took. They share the thread here, and would not in life.
    """

    def __init__(self, methods: list[tuple[MethodInfo, Handler]], settings: ServerSettings | None) -> None:
        self.limits: list[str] = []
        self.attackers: list[Attacker] = []
        self.calls = 0
        self.calls_at_limit = 0
        self.attackers_seconds = 0.0
        server = Server(
            [Method(info, handler) for info, handler in [(UNARY, echo), *methods]],
            settings=settings,
            on_limit=self._on_limit,
        )
        self.world = ServerWorld(server)

    def _on_limit(self, limit: str) -> None:
        assert limit in LIMITS
        self.limits.append(limit)
        self.calls_at_limit = self.calls

    async def attacker(self, settings: dict[int, int] | None = None) -> Attacker:
        """A connection that has said hello."""
        with self.attackers_time():
            attacker = Attacker(self.world.connect(settings=settings), self.attackers_time)
        self.attackers.append(attacker)
        await attacker.send(b"", passes=20)
        return attacker

    @contextmanager
    def attackers_time(self) -> Iterator[None]:
        """Count what is done inside as the attackers'; nothing waits there."""
        start = time.perf_counter()
        yield
        self.attackers_seconds += time.perf_counter() - start

    async def call_for_ever(self, channel: Channel) -> None:
        """The neighbour."""
        while True:
            assert await channel.unary(UNARY.path, b"still there?") == b"still there?"
            self.calls += 1

    async def neighbour_is_well(self) -> None:
        """It gets calls through now, at its usual pace."""
        before = self.calls
        await passes(PASSES_PER_CALL * 3)
        assert self.calls - before >= 3


class Attacker:
    """One hostile connection. ``peer`` builds frames and records the answers."""

    def __init__(self, wire: Wire, own_time: Callable[[], AbstractContextManager[None]]) -> None:
        self._wire = wire
        self._own_time = own_time
        self.peer = wire.peer

    @property
    def closed(self) -> bool:
        """The server has hung up."""
        return self._wire.closed

    def hang_up(self) -> None:
        """Leave."""
        self._wire.hang_up()

    async def send(self, data: bytes, *, passes: int = 100) -> RawPeer:
        """Send what ``peer`` has queued, then ``data``, all at once; read answers for so many passes."""
        with self._own_time():
            self.peer.output += data
            self._wire._deliver()
        for _ in range(passes):
            await trio.lowlevel.checkpoint()
            with self._own_time():
                self._wire._collect()
        return self.peer

    async def send_unread(self, data: bytes, *, passes: int = 100) -> None:
        """Send and read nothing: the server's writes do not get through. For good."""
        self._wire.hold_writes()
        self.peer.output += data
        self._wire._deliver()
        for _ in range(passes):
            await trio.lowlevel.checkpoint()

    def goaway(self) -> tuple[int, bytes]:
        """Code and text of the last GOAWAY."""
        seen = [frame for frame in self.peer.seen if frame.text.startswith("GOAWAY")][-1]
        return int(seen.text.partition(",")[2].rstrip(")")), seen.data


async def passes(count: int) -> None:
    """Let everybody run ``count`` times."""
    for _ in range(count):
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def arena(
    *methods: tuple[MethodInfo, Handler], settings: ServerSettings | None = None, neighbour: bool = True
) -> AsyncIterator[Arena]:
    """On leaving, the neighbour must be well and the server must hold nothing of anybody's bytes."""
    arena = Arena(list(methods), settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(arena.world.run)
        async with open_channel_over(arena.world.dial, authority="test") as channel:
            assert await channel.unary(UNARY.path, b"hello") == b"hello"
            async with trio.open_nursery() as calling:
                if neighbour:
                    calling.start_soon(arena.call_for_ever, channel)
                yield arena
                if neighbour:
                    await arena.neighbour_is_well()
                calling.cancel_scope.cancel()
            assert await channel.unary(UNARY.path, b"bye") == b"bye"
        nursery.cancel_scope.cancel()
    assert arena.world.server.budget.exposed == 0, "credit was lost"
