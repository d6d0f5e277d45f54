"""Pieces from one stage to the next: order, room, the ends, and cancellation."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from casproxy.handover import Handover


async def _send(handover: Handover[bytes], count: int, sent: list[int]) -> None:
    for number in range(count):
        await handover.send(b"%d" % number)
        sent.append(number)
    handover.end()


@pytest.mark.parametrize("capacity", [0, 1, 2])
async def test_pieces_come_in_order_and_then_none(capacity: int) -> None:
    handover, sent, received = Handover[bytes](capacity), list[int](), list[bytes]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send, handover, 5, sent)
        while (piece := await handover.receive()) is not None:
            received.append(bytes(piece))
    assert received == [b"0", b"1", b"2", b"3", b"4"]
    assert await handover.receive() is None


@pytest.mark.parametrize("capacity", [0, 1, 2])
async def test_a_sender_waits_for_room(capacity: int) -> None:
    handover, sent = Handover[bytes](capacity), list[int]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send, handover, 5, sent)
        await trio.testing.wait_all_tasks_blocked()
        assert len(sent) == capacity
        assert await handover.receive() == b"0"
        await trio.testing.wait_all_tasks_blocked()
        assert len(sent) == capacity + 1
        nursery.cancel_scope.cancel()


async def test_who_waits_for_a_piece_makes_room_for_one_more() -> None:
    """The stage itself holds one: a sender need not wait until it runs."""
    handover = Handover[bytes](1)
    received: list[object] = []

    async def receive() -> None:
        received.append(await handover.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        with trio.testing.assert_no_checkpoints():
            await handover.send(b"0")
            await handover.send(b"1")
        await trio.testing.wait_all_tasks_blocked()
        assert received == [b"0"]


async def test_what_was_sent_before_the_end_is_received() -> None:
    handover = Handover[bytes](2)
    await handover.send(b"last")
    handover.end()
    assert await handover.receive() == b"last"
    assert await handover.receive() is None


async def test_the_end_wakes_who_waits() -> None:
    handover = Handover[bytes](2)
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            assert await handover.receive() is None

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        handover.end()


async def test_a_sender_hears_that_its_receiver_has_left() -> None:
    handover, sent = Handover[bytes](1), list[int]()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await _send(handover, 5, sent)

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        handover.leave()
    assert sent == [0]
    with pytest.raises(trio.BrokenResourceError):
        await handover.send(b"late")


async def test_a_cancelled_receive_loses_nothing() -> None:
    handover = Handover[bytes](1)
    with trio.move_on_after(0) as scope:
        await handover.receive()
    assert scope.cancelled_caught
    await handover.send(b"0")
    with trio.CancelScope() as scope:
        scope.cancel()
        await handover.receive()
    assert scope.cancelled_caught
    assert await handover.receive() == b"0"


async def test_a_cancelled_send_has_not_happened() -> None:
    handover = Handover[bytes](1)
    await handover.send(b"0")
    with trio.move_on_after(0) as scope:
        await handover.send(b"never")
    assert scope.cancelled_caught
    handover.end()
    assert await handover.receive() == b"0"
    assert await handover.receive() is None


async def test_what_is_there_is_received_in_the_same_turn() -> None:
    handover, others_ran = Handover[bytes](1), False

    async def other() -> None:
        nonlocal others_ran
        others_ran = True

    await handover.send(b"0")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        assert await handover.receive() == b"0"
        assert not others_ran
