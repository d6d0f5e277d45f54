"""The client's connection: lost, going away, full, refused; wire.md Behaviour 9 and 15."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock

from casproxy.rpc.errors import RpcError
from casproxy.wire.status import StatusCode
from casproxy_tests.rpc.test_client_calls import Outcome
from casproxy_tests.rpc.world import CHAT, OK, RESPONSE, ClientWorld, channel
from casproxy_tests.wire.peer import RawPeer, message

MAX_CONCURRENT_STREAMS = 3


def answer(peer: RawPeer, stream_id: int, payload: bytes = b"answer") -> None:
    peer.headers(stream_id, RESPONSE)
    peer.data(stream_id, message(payload))
    peer.headers(stream_id, OK, end=True)


async def test_b15_a_lost_connection_is_unavailable_and_the_next_call_dials_again() -> None:
    lost, again = Outcome(), Outcome()
    async with channel() as world, trio.open_nursery() as nursery:
        nursery.start_soon(lost.unary, world.channel)
        await world.exchange()
        world.wire.hang_up()
        await world.exchange()
        assert lost.code is StatusCode.UNAVAILABLE
        nursery.start_soon(again.unary, world.channel)
        peer = await world.exchange()
        assert len(world.wires) == 2
        answer(peer, 1)
        await world.exchange()
    assert again.answer == b"answer"


async def test_b15_a_connection_lost_in_mid_answer_delivers_what_came_and_then_the_error() -> None:
    got: list[bytes | None] = []
    errors: list[RpcError] = []
    async with channel() as world, trio.open_nursery() as nursery:

        async def download() -> None:
            async with world.channel.call(CHAT.path) as call:
                try:
                    while True:
                        got.append(await call.receive_message())
                except RpcError as error:
                    errors.append(error)

        nursery.start_soon(download)
        peer = await world.exchange()
        peer.headers(1, RESPONSE)
        peer.data(1, message(b"whole") + message(b"half")[:7])
        await world.exchange()
        world.wire.hang_up()
        await world.exchange()
    assert got == [b"whole"]
    assert [error.code for error in errors] == [StatusCode.UNAVAILABLE]


async def test_what_a_server_said_before_it_hung_up_is_still_heard_for_a_second(mock_clock: MockClock) -> None:
    answered, cut_off, again = Outcome(), Outcome(), Outcome()
    async with channel() as world, trio.open_nursery() as nursery:
        nursery.start_soon(answered.unary, world.channel)
        peer = await world.exchange()
        world.wire.break_writes()
        nursery.start_soon(cut_off.unary, world.channel)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(again.unary, world.channel)
        await world.exchange()
        assert len(world.wires) == 2  # nothing more begins on a connection that cannot be written to
        answer(peer, 1)
        await world.wires[0].exchange()
        assert answered.answer == b"answer"
        assert not cut_off.done.is_set()
        mock_clock.jump(1.0)
        await world.wires[0].exchange()
        assert cut_off.code is StatusCode.UNAVAILABLE
        assert world.wires[0].closed
        answer(world.wire.peer, 1)
        await world.exchange()
    assert again.answer == b"answer"


async def test_b09_goaway_lets_calls_finish_and_new_ones_dial_again() -> None:
    old, refused, new = Outcome(), Outcome(), Outcome()
    async with channel() as world, trio.open_nursery() as nursery:
        nursery.start_soon(old.unary, world.channel)
        await world.exchange()
        nursery.start_soon(refused.unary, world.channel)
        first = await world.exchange()
        first.go_away(1)
        await world.exchange()
        assert refused.code is StatusCode.UNAVAILABLE
        assert not old.done.is_set()
        nursery.start_soon(new.unary, world.channel)
        second = await world.exchange()
        assert len(world.wires) == 2
        answer(first, 1, b"old")
        await world.wires[0].exchange()
        assert old.answer == b"old"
        assert world.wires[0].closed
        answer(second, 1, b"new")
        await world.exchange()
    assert new.answer == b"new"


async def test_b09_the_first_of_two_goaways_refuses_nothing() -> None:
    one = Outcome()
    async with channel() as world, trio.open_nursery() as nursery:
        nursery.start_soon(one.unary, world.channel)
        peer = await world.exchange()
        peer.go_away(2**31 - 1)
        await world.exchange()
        peer.go_away(1)
        await world.exchange()
        answer(peer, 1)
        await world.exchange()
    assert one.answer == b"answer"


async def test_b09_an_idle_connection_is_closed_after_goaway() -> None:
    one = Outcome()
    async with channel() as world, trio.open_nursery() as nursery:
        nursery.start_soon(one.unary, world.channel)
        peer = await world.exchange()
        answer(peer, 1)
        await world.exchange()
        assert not world.wire.closed
        peer.go_away(1)
        await world.exchange()
        assert world.wire.closed


async def test_many_calls_share_one_connection() -> None:
    outcomes = [Outcome() for _ in range(20)]
    async with channel() as world, trio.open_nursery() as nursery:
        for outcome in outcomes:
            nursery.start_soon(outcome.unary, world.channel)
        peer = await world.exchange()
        assert len(world.wires) == 1
        for index in reversed(range(20)):
            answer(peer, 2 * index + 1, str(index).encode())
        await world.exchange()
    assert sorted(outcome.answer or b"" for outcome in outcomes) == sorted(str(index).encode() for index in range(20))


async def test_calls_over_the_servers_limit_wait_for_a_slot() -> None:
    outcomes = [Outcome() for _ in range(5)]
    async with channel() as world, trio.open_nursery() as nursery:
        world.settings = {MAX_CONCURRENT_STREAMS: 2}
        nursery.start_soon(outcomes[0].unary, world.channel)
        peer = await world.exchange()
        for outcome in outcomes[1:]:
            nursery.start_soon(outcome.unary, world.channel)
        await world.exchange()
        for index in range(5):
            assert len(opened(peer)) == min(index + 2, 5)
            answer(peer, opened(peer)[index])
            await world.exchange()
    assert [outcome.answer for outcome in outcomes] == [b"answer"] * 5


def opened(peer: RawPeer) -> list[int]:
    return [seen.stream_id for seen in peer.seen if seen.text.startswith("HEADERS")]


async def test_a_call_waiting_for_a_slot_hears_of_a_lost_connection_and_dials_again() -> None:
    holds, waits = Outcome(), Outcome()
    async with channel() as world, trio.open_nursery() as nursery:
        world.settings = {MAX_CONCURRENT_STREAMS: 1}
        nursery.start_soon(holds.unary, world.channel)
        await world.exchange()
        nursery.start_soon(waits.unary, world.channel)
        await world.exchange()
        assert opened(world.wire.peer) == [1]
        world.wires[0].hang_up()
        await world.wires[0].exchange()
        assert holds.code is StatusCode.UNAVAILABLE
        peer = await world.exchange()
        assert len(world.wires) == 2
        answer(peer, 1)
        await world.exchange()
    assert waits.answer == b"answer"


async def test_b15_a_refused_dial_is_unavailable_and_says_why() -> None:
    async with channel() as world:
        world.refuse = OSError("connection refused")
        with pytest.raises(RpcError, match=r"cannot connect to test: connection refused") as caught:
            await world.channel.unary("/t.Test/Unary", b"")
        assert caught.value.code is StatusCode.UNAVAILABLE


async def test_b15_dialling_backs_off_and_starts_afresh_after_success(mock_clock: MockClock) -> None:
    dials: list[float] = []

    async with channel() as world:
        dial = world.dial

        async def counted() -> trio.abc.Stream:
            dials.append(trio.current_time())
            return await dial()

        world.channel._dial = counted
        world.refuse = OSError("down")
        for _ in range(2000):  # a caller that tries again every 10 ms for 20 s
            with pytest.raises(RpcError, match="down"):
                await world.channel.unary("/t.Test/Unary", b"")
            mock_clock.jump(0.01)
        gaps = [after - before for before, after in itertools.pairwise(dials)]
        assert 5 < len(dials) < 20
        assert gaps[0] < 0.3
        assert max(gaps) > 2
        assert gaps[-1] > gaps[0]

        world.refuse = None
        mock_clock.jump(60)
        outcome = Outcome()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome.unary, world.channel)
            peer = await world.exchange()
            answer(peer, 1)
            await world.exchange()
        assert outcome.answer == b"answer"
        world.wire.hang_up()
        await world.exchange()
        before = len(dials)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Outcome().unary, world.channel)
            await world.exchange()
            assert len(dials) == before + 1  # a lost connection is dialled again at once
            nursery.cancel_scope.cancel()


async def test_a_connection_that_breaks_the_protocol_ends_its_calls_and_no_more() -> None:
    outcome, again = Outcome(), Outcome()
    async with channel() as world, trio.open_nursery() as nursery:
        nursery.start_soon(outcome.unary, world.channel)
        peer = await world.exchange()
        peer.output += b"HTTP/1.1 400 Bad Request\r\n\r\n"
        await world.exchange()
        assert outcome.code is StatusCode.UNAVAILABLE
        nursery.start_soon(again.unary, world.channel)
        peer = await world.exchange()
        answer(peer, 1)
        await world.exchange()
    assert again.answer == b"answer"


async def test_leaving_the_channel_ends_its_calls_and_closes_the_connection() -> None:
    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        world: ClientWorld
        async with channel() as world:
            nursery.start_soon(outcome.unary, world.channel)
            await world.exchange()
        await world.exchange()
        assert world.wire.closed
        assert outcome.code is StatusCode.UNAVAILABLE


async def test_an_error_of_the_callers_own_leaves_the_channel_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with channel() as world:
            async with trio.open_nursery() as nursery:
                outcome = Outcome()
                nursery.start_soon(outcome.unary, world.channel)
                peer = await world.exchange()
                answer(peer, 1)
                await world.exchange()
            raise KeyError("mine")
