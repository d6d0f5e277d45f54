"""Runs the real ``casproxy`` beside the test's own Trio loop, which may be its server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

PROGRAM = [sys.executable, "-m", "casproxy.cli.main"]


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    def error(self, code: int) -> str:
        """The one line on stderr, without ``casproxy: ``, after checking that there is no other output."""
        assert self.code == code, self
        assert self.err.startswith("casproxy: "), self
        assert self.err.count("\n") == 1, self
        assert self.err.endswith("\n"), self
        return self.err.removeprefix("casproxy: ").rstrip("\n")


async def casproxy(
    *arguments: str | Path, cwd: Path | None = None, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> Result:
    """Run one command to its end; ``env`` is added to ours, without our own token and debugging switch."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CASPROXY_")}
    done = await trio.run_process(
        [*PROGRAM, *map(str, arguments)],
        cwd=cwd,
        stdin=stdin,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=environment | {"PYTHONUTF8": "1"} | dict(env or {}),
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def write_dev_file(directory: Path, addr: str) -> Path:
    """A ``.casproxy/dev.json`` as ``casproxy dev`` would leave it, for a server at ``addr``."""
    from casproxy.cli.dev_file import DEV_FILE, DevFile

    path = directory / DEV_FILE
    path.parent.mkdir(mode=0o700)
    path.write_bytes(DevFile(addr, addr, addr, "FS", "secret", "org", "up.tok", "down.tok", "pub", "priv").encode())
    path.chmod(0o600)
    return path


def run_to_end(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command from a test without Trio."""
    return subprocess.run([*PROGRAM, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def watched(**more: str) -> dict[str, str]:
    """The environment of somebody at a terminal, whatever ours is: not CI, colours welcome."""
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR")}
    return environment | {"TERM": "xterm", **more}
