"""Starting the other process of an interop test, and ending it. Ready is a line with its port, never a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

UNARY = "/t.Test/Unary"
"""Echoes its request, its ``x-…`` metadata as trailers, and pads the answer to the ``x-pad`` it was asked for."""
UPLOAD = "/t.Test/Upload"
"""Answers the sha256 of all it was sent, in hex."""
DOWNLOAD = "/t.Test/Download"
"""Asked for ``COUNT SIZE``: as many messages of as many bytes."""
CHAT = "/t.Test/Chat"
"""Each message comes back."""
EARLY = "/t.Test/Early"
"""A client stream that is answered ``stored`` before anything is read."""
FAIL = "/t.Test/Fail"
"""NOT_FOUND, with a message and details that need encoding."""
WAIT = "/t.Test/Wait"
"""Never answers."""
CANCELLED = "/t.Test/Cancelled"
"""Answers when one more ``WAIT`` was cancelled than was told before."""
SERVED = "/t.Test/Served"
"""Our server only: how many calls of ``UNARY`` and ``UPLOAD`` it began so far."""

MESSAGE = "né %\n x"
DETAILS = b"\x08\x05\x12\x02\xc3\xa9"


@dataclass(frozen=True, slots=True)
class Program:
    """A running server. ``tell`` writes a line to it, ``hear`` reads one."""

    process: subprocess.Popen[str]
    port: int

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")


@contextmanager
def running(module: str) -> Iterator[Program]:
    """``python -m casproxy_tests.interop.<module>``: it ends when its standard input does, and then with code 0."""
    with started(python(module)) as program:
        yield program


def python(module: str) -> list[str]:
    """The command line of a module of this package."""
    return [sys.executable, "-m", f"casproxy_tests.interop.{module}"]


@contextmanager
def started(command: list[str]) -> Iterator[Program]:
    """A server that prints its port first, and ends, with code 0, when its standard input does."""
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            program = Program(process, int(process.stdout.readline()))
            yield program
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0
        finally:
            process.kill()
