"""Owns artifacts that cost next to nothing: to make, to name by their sha256, and to check byte for byte.

An artifact is one random mebibyte over and over, and sixteen bytes at its end that make it unlike any other. The
state of sha256 up to those bytes is kept, so that a new digest takes a microsecond; the check compares memory.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

from casproxy.digest import Digest
from casproxy.errors import CasproxyError

TAIL_SIZE = 16
_BLOCK_SIZE = 1 << 20
_LARGEST_PIECE = 4 << 20


@dataclass(frozen=True, slots=True)
class Artifact:
    """``size`` bytes of which ``tail`` is the end. ``file_name`` tells the bench's own server what to do with it."""

    digest: Digest
    size: int
    tail: bytes
    file_name: str


class WrongBytes(CasproxyError):
    """A download brought other bytes than were uploaded."""


class Pattern:
    """The artifacts of one size, in bytes. ``seed`` makes two runs send the same; None: nobody has seen them before."""

    def __init__(self, size: int, seed: bytes | None = None) -> None:
        self.size = size
        block = hashlib.shake_128(os.urandom(16) if seed is None else seed).digest(_BLOCK_SIZE)
        self._body_size = max(0, size - TAIL_SIZE)
        self._repeated = memoryview(block * (1 + _LARGEST_PIECE // _BLOCK_SIZE))
        self._state = hashlib.sha256()
        for start in range(0, self._body_size, _BLOCK_SIZE):
            self._state.update(self._repeated[: min(_BLOCK_SIZE, self._body_size - start)])
        self._salt = int.from_bytes(hashlib.sha256(block).digest()[:8], "big")
        self._numbers = itertools.count()

    def next(self, prefix: str = "bench") -> Artifact:
        """An artifact that differs from those before; of fewer than 16 bytes there are not many."""
        number = next(self._numbers)
        tail = ((self._salt << 64) + number).to_bytes(TAIL_SIZE, "big")[TAIL_SIZE - min(TAIL_SIZE, self.size) :]
        state = self._state.copy()
        state.update(tail)
        return Artifact(Digest(state.hexdigest()), self.size, tail, f"{prefix}-{number}.bin")

    def pieces(self, artifact: Artifact, size: int) -> Iterator[memoryview]:
        """The bytes in runs of ``size``, at most 4 MiB; only a run that holds some of the tail is a copy."""
        for start in range(0, artifact.size, size):
            end = min(start + size, artifact.size)
            if end <= self._body_size:
                yield self._body(start, end)
            else:
                rest = artifact.tail[max(0, start - self._body_size) : end - self._body_size]
                yield memoryview(bytes(self._body(start, self._body_size)) + rest)

    def check(self, artifact: Artifact, offset: int, message: bytes, start: int) -> int:
        """``message[start:]`` must be the artifact's bytes from ``offset``; returns the offset behind them.

        Raises ``WrongBytes``.
        """
        end = offset + len(message) - start
        body_end = min(end, self._body_size)
        for begin in range(offset, body_end, _LARGEST_PIECE):
            stop = min(begin + _LARGEST_PIECE, body_end)
            if not message.startswith(self._body(begin, stop), start + begin - offset):
                raise WrongBytes(f"the bytes from {begin} of {artifact.digest} are not those that were uploaded")
        if end > self._body_size:
            begin = max(offset, self._body_size)
            expected = artifact.tail[begin - self._body_size : end - self._body_size]
            if end > artifact.size or message[start + begin - offset :] != expected:
                raise WrongBytes(f"the end of {artifact.digest} is not what was uploaded")
        return end

    def _body(self, start: int, end: int) -> memoryview:
        shift = start % _BLOCK_SIZE
        return self._repeated[shift : shift + max(0, end - start)]
