"""What may go wrong at which request, when, and how often. Data only: ``http`` makes it happen.

::

    Fault("patch", Hangup.RESET, Phase.BODY, after_bytes=700_000)         # once, in the middle of the body
    Fault("put", Answer(429, {"retry-after": "1"}), times=math.inf)       # for ever
    Fault("blob-get", flip=17)                                            # one byte of an answer's body inverted
    Fault("blob-get", Hangup.CLOSE, Phase.ANSWER_BODY, after_bytes=5)     # truncated
    Fault("manifest-put", Hangup.RESET, Phase.ANSWER)                     # done, but nobody is told
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio


class Phase(enum.Enum):
    """When in an exchange."""

    HEAD = "before the body is read"
    BODY = "in the request's body"
    ANSWER = "when all is done, before the answer's first byte"
    ANSWER_BODY = "in the answer's body"


class Hangup(enum.Enum):
    """How a connection ends, or does not."""

    RESET = "connection reset"
    CLOSE = "closed"
    BLACK_HOLE = "black hole"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer in place of the registry's own."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"errors": [{"code": "UNKNOWN", "message": "scripted"}]}'


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong at the requests of ``step``, a name of ``app.STEPS`` (``""``: at any).

    ``skip``: how many such requests stay well first; ``times``: at how many it happens then. ``after_bytes``: of the
    body, in the two phases that have one. ``flip``: offset of a byte of the answer's body to invert. ``headers``: set
    in its own answer (an empty value takes one away). ``delay_per_slice``: seconds before each slice of a body.
    ``only``: requests with this in their target. ``effect`` runs when a request is hit. ``reached`` is set when it has
    happened; ``hits`` counts requests.
    """

    step: str
    action: Answer | Hangup | None = None
    phase: Phase = Phase.HEAD
    after_bytes: int = 0
    skip: int = 0
    times: float = 1
    flip: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_per_slice: float = 0.0
    effect: Callable[[], None] | None = None
    only: str = ""
    hits: int = 0
    reached: trio.Event = field(default_factory=trio.Event)

    def claims(self, step: str, target: str) -> bool:
        """Whether this request is one of those that are hit; counts it."""
        if self.step not in ("", step) or self.only not in target or not self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1 if self.times is not math.inf else 0
        self.hits += 1
        if self.effect is not None:
            self.effect()
        return True
