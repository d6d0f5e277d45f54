"""How much longer the neighbour's calls take beside each attack: a measurement, so for ``CASPROXY_SOAK=1`` only.

Server, neighbour and attacker share one process and one clock, and calls with and without attack alternate: what else
the machine does hits both alike. The attacker's own steps are taken off, for in life they take nobody's time but its
own. contrib/bench/hostile.py measures the same over sockets, with processes of their own.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable

import pytest
import trio

from casproxy.rpc.channel import Channel, open_channel_over
from casproxy_tests.abuse.arena import Arena, arena
from casproxy_tests.abuse.test_headers import literal
from casproxy_tests.rpc.world import CHAT, UNARY, chat, to
from casproxy_tests.wire.frames import block, frame
from casproxy_tests.wire.peer import RawPeer

ROUNDS, CALLS = 10, 50
MOST = 2.0


def _resets(peer: RawPeer) -> bytes:
    for _ in range(2000):
        peer.reset(peer.open(to(CHAT)))
    return b""


def _made_resets(peer: RawPeer) -> bytes:
    for _ in range(2000):
        peer.credit(peer.open(to(CHAT)), 2**31 - 1)
    return b""


def _opens(peer: RawPeer) -> bytes:
    for _ in range(3000):
        peer.open(to(CHAT))
    return b""


def _continuations(peer: RawPeer) -> bytes:
    one = frame(9, 0, 1) * 7 + frame(9, 4, 1)
    return b"".join(
        frame(1, 1, number, block()) + one.replace(b"\0\0\0\x01", struct.pack(">I", number))
        for number in range(1, 4000, 2)
    )


def _bombs(peer: RawPeer) -> bytes:
    entry = literal(b"b", b"z" * 3000, indexed=True) + b"\xbe" * 8
    return b"".join(frame(1, 5, number, entry) for number in range(1, 4000, 2))


ATTACKS: dict[str, Callable[[RawPeer], bytes]] = {
    "nothing": lambda peer: b"",
    "rapid reset": _resets,
    "made you reset": _made_resets,
    "calls over the limit": _opens,
    "continuations": _continuations,
    "bombs": _bombs,
    "pings": lambda peer: frame(6, 0, 0, bytes(8)) * 20_000,
    "settings": lambda peer: frame(4, 0, 0) * 20_000,
    "priority": lambda peer: frame(2, 0, 3, struct.pack(">IB", 0, 5)) * 20_000,
    "empty data": lambda peer: frame(1, 4, 1, block()) + frame(0, 0, 1) * 20_000,
    "unknown frames": lambda peer: frame(0x55, 0, 0) * 20_000,
    "size updates": lambda peer: frame(1, 5, 1, b"\x20" * 16_000),
    "frames of 16 MB": lambda peer: b"\xff\xff\xff\0\0\0\0\0\x01" + bytes(65_536),
}


async def _calls(ring: Arena, channel: Channel) -> list[float]:
    taken = []
    for _ in range(CALLS):
        start = time.perf_counter() - ring.attackers_seconds
        await channel.unary(UNARY.path, b"x" * 64)
        taken.append(time.perf_counter() - ring.attackers_seconds - start)
    return taken


def _built(name: str) -> bytes:
    """What the attacker sends after its greeting; made beforehand, as it is made at nobody's cost in real life."""
    peer = RawPeer()
    peer.output.clear()
    rest = ATTACKS[name](peer)
    return bytes(peer.output) + rest


async def _keep_attacking(ring: Arena, wire: bytes) -> None:
    """One hostile connection after the other."""
    while True:
        attacker = await ring.attacker()
        await attacker.send(wire, passes=1)
        while not attacker.closed:
            await attacker.send(b"", passes=5)
            if not wire:
                await trio.sleep_forever()


async def _all_leave(ring: Arena) -> None:
    while ring.attackers:
        ring.attackers.pop().hang_up()
    while len(ring.world.server._live) > 2:
        await trio.lowlevel.checkpoint()


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


@pytest.mark.skipif(os.environ.get("CASPROXY_SOAK") != "1", reason="a measurement: CASPROXY_SOAK=1")
@pytest.mark.parametrize("name", ATTACKS)
async def test_the_neighbours_latency(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    alone: list[float] = []
    attacked: list[float] = []
    async with (
        arena((CHAT, chat), neighbour=False) as ring,
        open_channel_over(ring.world.dial, authority="n") as channel,
    ):
        await _calls(ring, channel)
        wire = _built(name)
        for _ in range(ROUNDS):
            alone += await _calls(ring, channel)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_keep_attacking, ring, wire)
                attacked += await _calls(ring, channel)
                nursery.cancel_scope.cancel()
            await _all_leave(ring)
    ratios = [percentile(attacked, share) / percentile(alone, share) for share in (0.5, 0.99)]
    with capsys.disabled():
        print(
            f"\n{name:22} p50 {percentile(alone, 0.5) * 1e3:5.2f} ms x {ratios[0]:.2f}   p99 x {ratios[1]:.2f}", end=""
        )
    assert ratios[0] <= MOST
