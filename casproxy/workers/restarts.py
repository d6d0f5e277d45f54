"""Owns when a worker that has ended is started again, and when that is pointless. Pure: refuses to know processes.

::

    ended long after its start ────────────────▶ at once
    ended soon, or before it was ready ────────▶ first, 2 · first, 4 · first … longest
    … and nobody serves, for the fifth time ───▶ give up: the service ends with the worker's message

While another worker serves, trying goes on for ever: half a service is better than none, and a key file or secret
source that is broken now may be mended without a restart of what still works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds. ``settled``: a worker that was ready for so long ended for a reason of its own."""

    first: float = 0.5
    longest: float = 30.0
    settled: float = 10.0
    tries: int = 5


PATIENCE: Final = Patience()


class Restarts:
    """The restarts of one worker's place."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._soon = 0
        self._never_ready = 0

    def ended(self, ready_for: float | None) -> float:
        """Note an end ``ready_for`` seconds after it was ready, None: it never was. Seconds until the next start."""
        self._never_ready = self._never_ready + 1 if ready_for is None else 0
        if ready_for is not None and ready_for >= self._patience.settled:
            self._soon = 0
            return 0.0
        self._soon += 1
        return min(self._patience.longest, self._patience.first * 2.0 ** min(self._soon - 1, 30))

    def pointless(self, others_serve: bool) -> bool:
        """Whether to give up."""
        return not others_serve and self._never_ready >= self._patience.tries
