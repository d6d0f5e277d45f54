"""Owns how long one turn of the event loop lasts. Refuses to know what is done in it.

Trio runs every task that is ready before it looks at sockets and timers again. Thirty-two downloads that each hash a
mebibyte make a turn of 20 ms, and timers, cancellations and answers to others wait for its end. So whoever is about to
do a piece of work as large as that asks here first: in a turn that has lasted long enough, the rest goes to the next.
And what is cheaper done once for all of a turn's tasks is done at its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio

LONG_TURN_SECONDS: Final = 0.0012
"""After this a turn takes no more large pieces of work. 1 MiB is hashed in 0.7 ms; a timer may wait for two turns."""
MOST_CONTENDERS: Final = 16
"""Tasks that look every turn whether it is theirs; a thousand of them would make turns of looking alone."""


class _Turn(trio.abc.Instrument):
    """When the turn of one run that is going on began, on a clock of its own: virtual time does not pass in a turn.

    ``contenders``: tasks that give way and look again in each turn; ``behind``: those who will, one for each that goes.
    """

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.contenders = 0
        self.behind = trio.lowlevel.ParkingLot()
        self.at_end: list[Callable[[], None]] = []

    @property
    def is_long(self) -> bool:
        return time.perf_counter() - self.began > LONG_TURN_SECONDS

    def before_io_wait(self, timeout: float) -> None:
        if self.at_end:
            due, self.at_end = self.at_end, []
            for work in due:
                work()

    def after_io_wait(self, timeout: float) -> None:
        self.began = time.perf_counter()

    def after_run(self) -> None:
        self.before_io_wait(0)


_turn: trio.lowlevel.RunVar[_Turn | None] = trio.lowlevel.RunVar("casproxy_turn", None)


def _turn_of_this_run() -> _Turn:
    turn = _turn.get()
    if turn is None:
        turn = _Turn()
        _turn.set(turn)
        trio.lowlevel.add_instrument(turn)
    return turn


def at_end(work: Callable[[], None]) -> bool:
    """Have ``work`` done, once, when this turn ends or the run does; False outside of a run. It must not raise."""
    if not trio.lowlevel.in_trio_run():
        return False
    _turn_of_this_run().at_end.append(work)
    return True


async def give_way() -> None:
    """Let the others of this turn and the sockets have theirs if it has lasted long; else return at once.

    A checkpoint only then.
    """
    turn = _turn_of_this_run()
    if not turn.is_long:
        return
    if turn.contenders >= MOST_CONTENDERS:
        await turn.behind.park()
    turn.contenders += 1
    try:
        while turn.is_long:
            await trio.lowlevel.checkpoint()
    finally:
        turn.contenders -= 1
        turn.behind.unpark()
