"""Owns a real nats-server with JetStream, and a plain client to look at what arrived there. Knows nothing of ours.

Two versions are tried: the one Debian ships (2.9) and the one that comes as a Python package (2.15).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casproxy_tests.real import missing
from casproxy_tests.real.process import answers, free_port, running, wait_until

VERSIONS = ("debian", "python-package")
STREAM = "chainloop-audit"


def nats_program(version: str) -> Path:
    """The program of one of ``VERSIONS``, or skip (fail) the calling test."""
    beside_python = Path(sys.executable).parent / "nats-server"
    if version == "python-package":
        found = str(beside_python) if beside_python.exists() else None
    else:
        places = [*os.defpath.split(os.pathsep), "/usr/sbin", "/usr/local/sbin"]
        found = shutil.which("nats-server", path=os.pathsep.join(places))
    if found is None:
        missing(f"nats-server ({version}) is not installed; needed for audit events")
    return Path(found)


@dataclass(frozen=True, slots=True)
class Nats:
    """A running server."""

    port: int
    token: str
    process: subprocess.Popen[bytes]

    @property
    def uri(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """SIGKILL: what it had not written is gone."""
        self.process.kill()
        self.process.wait()

    def create_stream(self, **more: Any) -> None:
        """What the control plane does: the stream that audit events go to."""
        self._ask(f"$JS.API.STREAM.CREATE.{STREAM}", {"name": STREAM, "subjects": ["audit.>"]} | more)

    def count(self) -> int:
        """Messages in the stream."""
        state = self._ask(f"$JS.API.STREAM.INFO.{STREAM}", {})["state"]
        return int(state["messages"])

    def wait_for(self, count: int) -> list[tuple[str, bytes]]:
        """Every message's subject and payload, once there are ``count``."""
        wait_until(lambda: self.count() >= count)
        return [self._message(number) for number in range(1, self.count() + 1)]

    def _message(self, number: int) -> tuple[str, bytes]:
        message = self._ask(f"$JS.API.STREAM.MSG.GET.{STREAM}", {"seq": number})["message"]
        return message["subject"], base64.b64decode(message["data"])

    def _ask(self, subject: str, request: dict[str, Any]) -> dict[str, Any]:
        """One request and its answer, on a connection of its own."""
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=30)) as connection:
            stream = connection.makefile("rwb")
            assert stream.readline().startswith(b"INFO ")
            body, hello = json.dumps(request).encode(), {"verbose": False, "auth_token": self.token}
            stream.write(b"CONNECT %b\r\nSUB answers 1\r\n" % json.dumps(hello).encode())
            stream.write(b"PUB %b answers %d\r\n%b\r\n" % (subject.encode(), len(body), body))
            stream.flush()
            while not (line := stream.readline()).startswith(b"MSG "):
                assert line and not line.startswith(b"-ERR"), line
            answer: dict[str, Any] = json.loads(stream.read(int(line.split()[-1])))
            stream.close()
        assert "error" not in answer, answer["error"]
        return answer


@contextmanager
def running_nats(
    directory: Path, version: str, *arguments: str | Path, port: int = 0, token: str = "", jetstream: bool = True
) -> Iterator[Nats]:
    """A server that keeps its streams in ``directory``: start it again there, and they are back."""
    directory.mkdir(exist_ok=True)
    port = port or free_port()
    command: list[str | Path] = [nats_program(version), "-a", "127.0.0.1", "-p", str(port), *arguments]
    if jetstream:
        command += ["-js", "-sd", directory / "streams"]
    if token:
        command += ["--auth", token]
    with running(command, directory, lambda: answers(port)) as process:
        yield Nats(port, token, process)
