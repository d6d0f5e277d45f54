"""Owns other people's servers as child processes: started, waited for with a deadline, stopped. Knows none of them."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from casproxy_tests.real import missing

READY_SECONDS = 30.0
_STOP_SECONDS = 10.0
_FOREIGN = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
"""Variables of the machine that change whom a client or a server believes."""


def require_package(name: str, reason: str) -> Path:
    """The directory of an installed package, or skip (fail) the calling test."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        missing(f"the Python package {name} is not installed; needed for {reason}")
    return Path(spec.origin).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[object], directory: Path, ready: Callable[[], bool], env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process from when ``ready`` says so to the end of the block; its log is shown if it never does."""
    log = directory / "log.txt"
    environ = {name: value for name, value in os.environ.items() if name not in _FOREIGN} | dict(env or {})
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*map(str, command)], cwd=directory, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        wait_until(lambda: process.poll() is not None or ready(), lambda: log.read_text(errors="replace"))
        assert process.poll() is None, f"{command[0]} ended:\n{log.read_text(errors='replace')}"
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(true: Callable[[], bool], explain: Callable[[], str] = str) -> None:
    """Ask ``true`` again and again; an assertion with ``explain``'s text when it is not by the deadline."""
    deadline = time.monotonic() + READY_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"not ready after {READY_SECONDS:g} s:\n{explain()}"
        time.sleep(0.01)


def python(module: str, *arguments: object) -> list[object]:
    """The command that runs one of our modules as a program."""
    return [sys.executable, "-m", module, *arguments]


def answers(port: int) -> bool:
    """Somebody takes connections at this port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
