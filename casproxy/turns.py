"""Owns how long one turn of the event loop lasts. Refuses to know what is done in it.

Trio runs every task that is ready before it looks at sockets and timers again. Thirty-two downloads that each hash a
mebibyte make a turn of 20 ms, and timers, cancellations and answers to others wait for its end. So whoever is about to
do a piece of work as large as that asks here first: in a turn that has lasted long enough, the rest goes to the next.
"""

from __future__ import annotations

import time
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

    @property
    def is_long(self) -> bool:
        return time.perf_counter() - self.began > LONG_TURN_SECONDS

    def after_io_wait(self, timeout: float) -> None:
        self.began = time.perf_counter()


_turn: trio.lowlevel.RunVar[_Turn | None] = trio.lowlevel.RunVar("casproxy_turn", None)


def _turn_of_this_run() -> _Turn:
    turn = _turn.get()
    if turn is None:
        turn = _Turn()
        _turn.set(turn)
        trio.lowlevel.add_instrument(turn)
    return turn


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
