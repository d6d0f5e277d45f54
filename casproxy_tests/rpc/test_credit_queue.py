"""``casproxy.rpc.credit_queue``: turns in order, and nobody is kept who waits no more."""

from __future__ import annotations

from dataclasses import dataclass

from casproxy.rpc.credit_queue import CreditQueue


@dataclass
class Stream:
    """Waits, and counts how often it was woken."""

    id: int
    woken: int = 0

    def wake_sender(self) -> bool:
        self.woken += 1
        return True


@dataclass
class Window:
    connection_capacity: int = 0


def test_turns_are_given_in_the_order_in_which_streams_came() -> None:
    window = Window()
    queue, first, second = CreditQueue(window), Stream(1), Stream(3)
    for stream in (first, second, first):
        queue.join(stream)
    queue.pass_on()
    assert (first.woken, second.woken) == (0, 0)
    window.connection_capacity = 1
    queue.pass_on()
    assert (first.woken, second.woken) == (1, 0)
    queue.pass_on()
    assert (first.woken, second.woken) == (1, 1)


def test_a_stream_that_has_ended_has_no_turn() -> None:
    """It may have been reset while it waited, and would be kept for as long as the peer gives no credit."""
    queue, ended, other = CreditQueue(Window(connection_capacity=1)), Stream(1), Stream(3)
    queue.join(ended)
    queue.join(other)
    queue.leave(ended)
    queue.leave(ended)
    queue.pass_on()
    assert (ended.woken, other.woken) == (0, 1)
