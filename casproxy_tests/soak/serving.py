"""Owns a ``casproxy serve`` process with an OCI backend, and a look at its memory.

Peak memory is the kernel's own high-water mark, reset when a measurement begins: nothing is missed between samples.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from casproxy.auth.claims import Claims, Role
from casproxy.auth.mint import generate_keypair, mint
from casproxy_tests.e2e.processes import PROGRAM, SLOWEST_SECONDS

MIB = 1024 * 1024
_ORG_ID = "00000000-0000-4000-8000-000000000001"


@dataclass(frozen=True, slots=True)
class Serving:
    """A running server. ``grpc`` is its port."""

    process: subprocess.Popen[str]
    grpc: int
    uploader: str
    downloader: str

    def rss(self) -> int:
        """Resident memory now, in bytes."""
        return self._status("VmRSS")

    def forget_peak(self) -> None:
        """Let the high-water mark begin at what is used now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_rss(self) -> int:
        """The most resident memory since ``forget_peak``, in bytes."""
        return self._status("VmHWM")

    def _status(self, field: str) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {field}")


@contextmanager
def serving_oci(directory: Path, host: str) -> Iterator[Serving]:
    """A server whose tenant's registry is ``host``; drained at the end, and then its exit code is 0."""
    private, public = generate_keypair()
    (directory / "public.pem").write_bytes(public)
    secrets = directory / "secrets.yaml"
    secrets.touch(0o600)
    secrets.write_text(json.dumps({"tenant": {"Repo": f"{host}/soak", "Username": "alice", "Password": "x"}}))
    config = directory / "config.yaml"
    config.write_text(json.dumps(_config(directory)))
    tokens = {role: _token(private, role) for role in Role}
    with (directory / "serve.log").open("w+") as log:
        command = [*PROGRAM, "serve", "--conf", str(config)]
        with subprocess.Popen(command, stderr=log, text=True) as process:
            try:
                port = _port(process, directory / "serve.log")
                yield Serving(process, port, tokens[Role.UPLOADER], tokens[Role.DOWNLOADER])
                process.terminate()
                assert process.wait(SLOWEST_SECONDS) == 0, (directory / "serve.log").read_text()[-2000:]
            finally:
                process.kill()


def _config(directory: Path) -> dict[str, object]:
    return {
        "server": {name: {"addr": "127.0.0.1:0"} for name in ("grpc", "http", "http_metrics")},
        "auth": {"public_key_path": str(directory / "public.pem")},
        "credentials_service": {"file": {"path": str(directory / "secrets.yaml")}},
        "outbound": {"allow": ["127.0.0.0/8"]},
    }


def _token(private: bytes, role: Role) -> str:
    now = time.time()
    return mint(private, Claims(role, "tenant", "OCI", _ORG_ID, expires_at=now + 24 * 3600), now=now)


def _port(process: subprocess.Popen[str], log: Path) -> int:
    deadline = time.monotonic() + SLOWEST_SECONDS
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if '"event": "serving"' in line or '"event":"serving"' in line:
                return int(str(json.loads(line)["grpc"]).rpartition(":")[2])
        assert process.poll() is None, log.read_text()[-2000:]
        time.sleep(0.02)
    raise AssertionError(f"not serving: {log.read_text()[-2000:]}")
