"""Owns what one peer may make this process do for little of its own work. Refuses to know clocks: time is passed in.

Each limit answers an attack seen in the field; all of them end the connection with GOAWAY(ENHANCE_YOUR_CALM), and each
is counted under its name. What bounds bytes and frames before they are stored is ``wire.inbound`` and
``wire.hpack_decoder``; what takes time (slow headers, idle connections) is the shell's.

``resets``    streams opened and reset at once (CVE-2023-44487), also by making us reset them (CVE-2025-8671)
``glitches``  frames that cost work and carry nothing: empty DATA, PRIORITY, SETTINGS, GOAWAY, unknown kinds, refused
              streams, header blocks in crumbs, and credit that nothing we sent accounts for (a peer that hands it out
              byte by byte makes us send byte by byte)
``replies``   PING and SETTINGS, each of which is owed an answer, sent faster than the answers are read
``pings``     keepalive more often than agreed
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

ACK = 0x1
END_STREAM = 0x1
END_HEADERS = 0x4
UPDATE_PRICE = 512
"""Bytes of ours that pay for one WINDOW_UPDATE of the peer; a frame of headers counts as many as four."""
HEADERS_VALUE = 4 * UPDATE_PRICE
"""Of a HEADERS frame of ours, in the bytes of DATA that would let the peer say as much."""
MOST_PREPAID = 16 * 1024 * 1024
STREAMS_PER_TOKEN = 8
"""SETTINGS may change the window of every open stream, which is work for each of them."""


class FrameKind(enum.IntEnum):
    """The frame types that are treated in a way of their own (RFC 9113, 6)."""

    DATA = 0x0
    HEADERS = 0x1
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PING = 0x6
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9


class TooMuch(Exception):
    """A limit is passed. ``limit``: its name; ``text``: the debug text of the GOAWAY."""

    def __init__(self, limit: str, text: str) -> None:
        super().__init__(text)
        self.limit = limit
        self.text = text


@dataclass(frozen=True, slots=True)
class AbuseLimits:
    """Bursts are counts, rates are per second, intervals are seconds."""

    reset_burst: int = 1000
    reset_rate: float = 33.0
    glitch_burst: int = 10_000
    glitch_rate: float = 330.0
    replies_pause: int = 100
    """Answers owed at which the shell stops reading until they are written."""
    replies_close: int = 1000
    ping_interval: float = 5.0
    """The least a peer waits between keepalive PINGs. Half of what clients keep to (10 s), as networks delay PINGs."""
    ping_strikes: int = 3


class TokenBucket:
    """``burst`` tokens at first, ``rate`` more per second up to ``burst``."""

    __slots__ = ("_burst", "_rate", "_tokens", "_when")

    def __init__(self, burst: float, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._tokens = burst
        self._when = 0.0

    @property
    def spent(self) -> float:
        """Tokens missing when one was last asked for."""
        return self._burst - self._tokens

    def take(self, now: float) -> bool:
        """One token; False when there is none."""
        return self.take_many(1, now)

    def take_many(self, count: int, now: float) -> bool:
        """``count`` tokens at once, or none."""
        self._tokens = min(self._burst, self._tokens + (now - self._when) * self._rate)
        self._when = now
        if self._tokens < count:
            return False
        self._tokens -= count
        return True


NOISE = 50
"""Tokens taken and not yet given back at which a peer counts as noisy. Clients that behave take a few."""


class Guard:
    """Counts for one connection. Its methods raise ``TooMuch``; ``now`` in seconds on any clock that does not jump."""

    def __init__(self, limits: AbuseLimits) -> None:
        self._limits = limits
        self._resets = TokenBucket(limits.reset_burst, limits.reset_rate)
        self._glitches = TokenBucket(limits.glitch_burst, limits.glitch_rate)
        self._last_ping = -limits.ping_interval
        self._strikes = 0
        self._being_written = 0
        self._prepaid = 0  # bytes we sent, which the peer may answer with credit
        self.replies = 0
        """Answers that are owed and not written yet."""

    def frame(self, kind: int, flags: int, now: float, *, streams: int) -> None:
        """A frame other than DATA with a body has arrived, while ``streams`` are open."""
        match kind:
            case FrameKind.HEADERS:
                pass  # a call is not abuse
            case FrameKind.CONTINUATION if flags & END_HEADERS:
                pass  # two frames are enough for the largest block allowed
            case FrameKind.DATA if flags & END_STREAM:
                pass
            case FrameKind.RST_STREAM:
                self.reset(now)
            case FrameKind.WINDOW_UPDATE:
                self._credited(now)
            case FrameKind.PING if not flags & ACK:
                self._owe_reply()
                self._ping(now)
            case FrameKind.SETTINGS if not flags & ACK:
                self._owe_reply()
                self.glitch(now, 1 + streams // STREAMS_PER_TOKEN)
            case _:
                self.glitch(now)

    def reset(self, now: float) -> None:
        """A stream was reset by the peer, or by us because of what the peer sent."""
        if not self._resets.take(now):
            raise TooMuch("resets", "too many streams reset")

    def glitch(self, now: float, tokens: int = 1) -> None:
        """Something that costs work and carries nothing."""
        if not self._glitches.take_many(tokens, now):
            raise TooMuch("glitches", "too many frames without content")

    def _credited(self, now: float) -> None:
        if self._prepaid >= UPDATE_PRICE:
            self._prepaid -= UPDATE_PRICE
        else:
            self.glitch(now)

    def _owe_reply(self) -> None:
        self.replies += 1
        if self.replies > self._limits.replies_close:
            raise TooMuch("replies", "too many unread replies")

    def _ping(self, now: float) -> None:
        if now - self._last_ping < self._limits.ping_interval:
            self._strikes += 1
            if self._strikes >= self._limits.ping_strikes:
                raise TooMuch("pings", "too_many_pings")
        self._last_ping = now

    @property
    def noisy(self) -> bool:
        """The peer has lately sent much that a limit counts, if less than the limit."""
        return self._glitches.spent > NOISE or self._resets.spent > NOISE

    @property
    def congested(self) -> bool:
        """Stop reading until the answers owed are written."""
        return self.replies > self._limits.replies_pause

    def sent_content(self, size: int = HEADERS_VALUE) -> None:
        """We sent HEADERS, or ``size`` bytes of DATA: the peer may give credit, and measure a busy connection."""
        self._prepaid = min(self._prepaid + size, MOST_PREPAID)
        self._strikes = 0
        self._last_ping = float("-inf")

    def taken(self) -> None:
        """Everything owed is now with the writer."""
        self._being_written = self.replies

    def written(self) -> None:
        """The writer is done with what it took."""
        self.replies -= self._being_written
        self._being_written = 0
