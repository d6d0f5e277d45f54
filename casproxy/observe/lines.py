"""Owns when log lines are written: those of one turn of the event loop together. Refuses to know what they say.

Under load a turn has dozens of lines, and a write of its own for each took a twelfth of what a small call costs. What
the kernel has been given is safe when this process is killed; what a turn has not ended with is lost then, a
millisecond's lines at most. Outside of the event loop, in a worker thread for instance, a line is written at once.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from typing import Final, TextIO

import trio

from casproxy import turns

MOST_KEPT: Final = 256
"""Lines that wait for the end of their turn; one more, and all are written."""


class LinesOfATurn:
    """The part of ``TextIO`` that loggers use, over ``out``. Safe for use by any number of threads.

    Lines that cannot be written are dropped: there is nowhere to say so.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lines: list[str] = []
        self._due = False
        self._writing = threading.Lock()

    def write(self, text: str) -> int:
        """Keep ``text`` until ``flush``."""
        with self._writing:
            self._lines.append(text)
        return len(text)

    def flush(self) -> None:
        """Have everything written at the end of this turn, or now where there is none."""
        if len(self._lines) > MOST_KEPT or not trio.lowlevel.in_trio_run():
            self._write_out()
        elif not self._due:
            self._due = turns.at_end(self._end_turn)

    def isatty(self) -> bool:
        """Nobody watches."""
        return False

    def _end_turn(self) -> None:
        self._due = False
        self._write_out()

    def _write_out(self) -> None:
        with self._writing:
            lines, self._lines = self._lines, []
            try:
                for some in _unbroken(lines):
                    self._out.write(some)
                    self._out.flush()
            except (OSError, ValueError):  # ValueError: it was closed
                pass


def _unbroken(lines: list[str]) -> Iterator[str]:
    """The lines, as many together as workers that share a pipe can write without breaking each other's (pipe(7))."""
    some, size = "", 0
    for line in lines:
        length = len(line.encode(errors="replace"))
        if some and size + length > select.PIPE_BUF:
            yield some
            some, size = "", 0
        some += line
        size += length
    if some:
        yield some
