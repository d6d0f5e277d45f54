"""How much a run does. Sizes in bytes. The default takes below ten minutes; ``full`` is the table to the letter."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Plan:
    """``big``: the artifact of the throughput rows; ``large``: of the memory and growth rows; ``many``: of each of 64
    at once. ``few``: rounds of costly rows. ``stalled``: uploads of row 9. ``seconds``: of a timed sample.
    """

    big: int = GIB
    large: int = GIB
    many: int = 16 * MIB
    rounds: int = 3
    few: int = 1
    stalled: int = 10_000
    seconds: float = 2.0


DEFAULT = Plan()
FULL = Plan(large=4 * GIB, many=256 * MIB, few=3, seconds=5.0)
QUICK = Plan(big=64 * MIB, large=128 * MIB, many=2 * MIB, rounds=1, stalled=500, seconds=0.5)
"""For a look, and for the tests."""
