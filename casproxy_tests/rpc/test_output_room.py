"""Streams that wait for room in the output of their connection are woken one after the other, and none is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from casproxy.rpc.credit_queue import CreditQueue
from casproxy.rpc.errors import StreamGone
from casproxy.rpc.stream import OUTPUT_HIGH_WATER, MessageStream
from casproxy.wire.framing import Buffer
from casproxy.wire.protocol import Protocol


class Output:
    """Of a ``Protocol`` what a sender asks: room in the output, and credit for some streams."""

    connection_capacity = 1 << 20
    output_room = 1 << 20
    frame_size = 1 << 14

    def __init__(self) -> None:
        self.output_size = OUTPUT_HIGH_WATER
        self.poor: set[int] = set()
        self.sent: list[int] = []

    def can_send(self, stream_id: int) -> bool:
        return stream_id > 0

    def capacity(self, stream_id: int) -> int:
        return 0 if stream_id in self.poor else 1 << 20

    def send_data(self, stream_id: int, _buffers: Sequence[Buffer], size: int) -> None:
        self.sent.append(stream_id)
        self.output_size += size


class Senders:
    """Streams whose tasks wait, in order, for the output to be written."""

    def __init__(self) -> None:
        self.output = Output()
        self.drained = trio.lowlevel.ParkingLot()
        protocol = cast("Protocol", self.output)
        queue = CreditQueue(protocol)
        self.streams = {
            number: MessageStream(
                number, protocol, wake_writer=lambda: None, output_drained=self.drained, credit_queue=queue
            )
            for number in range(1, 6)
        }

    async def start(self, nursery: trio.Nursery, number: int, size: int = 1) -> None:
        nursery.start_soon(self._send, number, size)
        await wait_all_tasks_blocked()

    async def _send(self, number: int, size: int) -> None:
        try:
            await self.streams[number].send([bytes(size)])
        except StreamGone:
            self.output.sent.append(-number)

    async def written(self) -> None:
        """What the connection's writer does after each write."""
        self.output.output_size = 0
        self.drained.unpark()
        await wait_all_tasks_blocked()


async def test_all_who_find_room_send_after_one_write() -> None:
    senders = Senders()
    async with trio.open_nursery() as nursery:
        for number in (1, 2, 3):
            await senders.start(nursery, number)
        assert senders.output.sent == []
        await senders.written()
        assert senders.output.sent == [1, 2, 3]


async def test_whoever_finds_no_room_left_goes_on_waiting() -> None:
    senders = Senders()
    async with trio.open_nursery() as nursery:
        await senders.start(nursery, 1, OUTPUT_HIGH_WATER)
        await senders.start(nursery, 2)
        await senders.written()
        assert senders.output.sent == [1]
        await senders.written()
        assert senders.output.sent == [1, 2]


async def test_a_stream_without_credit_leaves_the_room_to_the_next() -> None:
    senders = Senders()
    senders.output.poor = {1, 2}
    async with trio.open_nursery() as nursery:
        for number in (1, 2, 3):
            await senders.start(nursery, number)
        await senders.written()
        assert senders.output.sent == [3]
        senders.output.poor.clear()
        senders.streams[1].on_credit()
        senders.streams[2].on_credit()


@pytest.mark.parametrize("how", ["reset", "cancelled"])
async def test_a_stream_that_is_gone_leaves_the_room_to_the_next(how: str) -> None:
    """Also when it goes in the same turn in which it is woken."""
    senders = Senders()
    async with trio.open_nursery() as nursery, trio.open_nursery() as doomed:
        await senders.start(doomed, 1)
        await senders.start(nursery, 2)
        senders.output.output_size = 0
        senders.drained.unpark()
        if how == "reset":
            senders.streams[1].on_gone(StreamGone(8))
        else:
            doomed.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert 2 in senders.output.sent
        nursery.cancel_scope.cancel()
