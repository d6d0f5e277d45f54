"""curl as a counterpart: runs it to its end beside the test's own server."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import trio

from casproxy_tests.real import require_real

HTTP2 = "--http2-prior-knowledge"


@dataclass(frozen=True, slots=True)
class Ran:
    """How one curl ended."""

    code: int
    stdout: bytes
    stderr: str


async def curl(*arguments: object) -> Ran:
    """Run ``curl`` with these arguments, silent but for errors."""
    program = require_real("curl", "the HTTP port's most common client")
    command = [str(program), "-sS", "--noproxy", "*", "--max-time", "100", *map(str, arguments)]
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return Ran(done.returncode, done.stdout, done.stderr.decode())


def has_http2() -> bool:
    """Whether this curl was built with HTTP/2."""
    program = require_real("curl", "HTTP/2")
    return "HTTP2" in subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
