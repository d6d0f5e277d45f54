"""Owns the choice of the worker that gets the next connection. Pure: refuses to know processes and sockets.

The least loaded one gets it: an open connection counts one and so does a call in flight, for a connection with a
hundred uploads is not as idle as one with none. Connections that are on their way to a worker count already, so a burst
is spread evenly although the workers' own figures arrive a moment later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ON_THE_WAY: Final = 128
"""Connections that a worker may have been handed without having taken them: then it gets no more."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one worker, for one door.

    ``serves``: it is started and its door is open. ``ready``: it should get traffic. ``silent``: it has not been heard
    of for longer than it should. ``connections``, ``room``: at this door, of its share of the limit; ``on_the_way``:
    of all doors; ``load``: connections of all doors, those on the way and calls in flight.
    """

    number: int
    serves: bool
    ready: bool
    silent: bool
    connections: int
    room: int
    on_the_way: int
    load: int


def choose(standings: Iterable[Standing], *, draining: bool = False) -> int | None:
    """The number of the worker that gets the next connection; None while nobody can take one.

    A worker that is not ready, silent or full gets it only when all are: it answers for itself, with a status, and so
    does the last resort of a full one, which closes it and counts the limit. While all are draining the busiest gets
    it, which ends last: an idle one may have gone before it takes what it was handed. None is ready then, and one that
    still seems to be has not been heard of since it was told.
    """
    able = [standing for standing in standings if standing.serves and standing.on_the_way < ON_THE_WAY]
    if not able:
        return None
    return min(able, key=lambda standing: _reluctance(standing, draining)).number


def _reluctance(standing: Standing, draining: bool) -> tuple[bool, bool, bool, int, int]:
    full = standing.connections >= standing.room
    if draining:
        return standing.silent, False, full, -standing.load, standing.number
    return standing.silent, not standing.ready, full, standing.load, standing.number
