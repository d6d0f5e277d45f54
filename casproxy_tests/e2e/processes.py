"""Owns real ``casproxy`` processes for tests: starting, waiting until they say they are ready, ending, looking inside.

Readiness is a line the process prints, never a time. Whatever a test does, no process is left.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-m", "casproxy.cli.main"]
FREE_PORTS = ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]
SLOWEST_SECONDS = 110
_STAGING_LOCK = re.compile(r"\.staging/[^/]+/lock$")


@dataclass(frozen=True, slots=True)
class Dev:
    """A running ``casproxy dev``. ``directory`` is where it was started, ``lines`` what it printed until ready."""

    process: subprocess.Popen[str]
    directory: Path
    lines: list[str]

    @property
    def facts(self) -> dict[str, str]:
        """``dev.json``."""
        found: dict[str, str] = json.loads((self.directory / ".casproxy/dev.json").read_text())
        return found

    @property
    def store(self) -> Path:
        return self.directory / ".casproxy/store"

    def log(self) -> list[dict[str, Any]]:
        """The log lines so far; not a terminal, so they are JSON."""
        return [json.loads(line) for line in (self.directory / "dev.log").read_text().splitlines()]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(SLOWEST_SECONDS)


@contextmanager
def running_dev(directory: Path, *options: str) -> Iterator[Dev]:
    """``casproxy dev`` in ``directory``, ready. Ended by SIGTERM, if the test did not end it, and then with code 0."""
    with (directory / "dev.log").open("w") as log:
        process = subprocess.Popen(
            [*PROGRAM, "dev", *FREE_PORTS, *options],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        try:
            dev = Dev(process, directory, _lines_until_ready(process, directory))
            yield dev
            if process.poll() is None:
                assert dev.stop() == 0, (directory / "dev.log").read_text()
        finally:
            process.kill()


def _lines_until_ready(process: subprocess.Popen[str], directory: Path) -> list[str]:
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("Ready."):
            return lines
    raise AssertionError(f"casproxy dev ended before it was ready: {(directory / 'dev.log').read_text()}")


def casproxy(
    directory: Path, *arguments: str, stdin: bytes = b"", prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Run one command to its end in ``directory``."""
    command = [*prefix, *PROGRAM, *arguments]
    return subprocess.run(
        command, cwd=directory, input=stdin, capture_output=True, timeout=SLOWEST_SECONDS, check=False
    )


def error_line(result: subprocess.CompletedProcess[bytes]) -> str:
    """The one line a failed command printed on stderr."""
    text = result.stderr.decode()
    assert text.count("\n") == 1, text
    assert text.startswith("casproxy: "), text
    return text.removeprefix("casproxy: ").rstrip("\n")


def tree(root: Path) -> dict[str, str]:
    """Every path below ``root`` with the sha256 of its content (``dir`` for a directory)."""
    return {
        str(path.relative_to(root)): "dir" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
    }


def files(root: Path) -> dict[str, str]:
    """Like ``tree`` for what is left when processes come and go: no directories, not the lock a live process holds."""
    return {path: content for path, content in tree(root).items() if content != "dir" and not _STAGING_LOCK.match(path)}


def reset_peak_rss(pid: int) -> int:
    """Forget the highest RSS of a process (proc(5), clear_refs) and return the present one, in bytes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _status_bytes(pid, "VmRSS")


def peak_rss(pid: int) -> int:
    """The highest RSS since ``reset_peak_rss``, in bytes."""
    return _status_bytes(pid, "VmHWM")


def _status_bytes(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {key} in /proc/{pid}/status")
