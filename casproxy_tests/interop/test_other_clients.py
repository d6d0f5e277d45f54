"""grpc-go, grpc-js and grpclib, unmodified, against our server. Each is a program that prints one line per check."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from casproxy_tests.e2e.processes import running_dev
from casproxy_tests.interop.programs import ROOT, running

DRAIN_CALLS = 3000 if os.environ.get("CASPROXY_SOAK") == "1" else 600
TIMEOUT = 100
EVERYONE = ["unary", "upload", "download", "status", "cancel", "deadline", "metadata"]
CLIENTS = {
    "go": [*EVERYONE, "unary gzip", "upload gzip", "early answers", "keepalive"],
    "js": [*EVERYONE, "unary gzip", "upload gzip", "early answers"],
    "grpclib": [*EVERYONE, "chat"],
}
"""grpclib knows no compression, and fails a call that is answered while it sends."""
BYTESTREAM_CHECKS = ["large", "again", "empty", "one byte", "wrong digest", "wrong role", "unknown"]


def lines_of(command: list[str], *arguments: str) -> list[str]:
    run = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert not run.stderr
    return run.stdout.splitlines()


@pytest.mark.parametrize(("other", "checks"), CLIENTS.items(), ids=CLIENTS, indirect=["other"])
def test_every_kind_of_call(other: list[str], checks: list[str]) -> None:
    with running("our_server") as server:
        lines = lines_of(other, "client", f"127.0.0.1:{server.port}")
    assert sorted(lines) == sorted(f"{name}: ok" for name in checks)


def test_artifacts_with_names_from_gos_own_gob(grpc_go: list[str], tmp_path: Path) -> None:
    with running_dev(tmp_path) as dev:
        facts = dev.facts
        lines = lines_of(grpc_go, "bytestream", facts["grpc"], facts["uploader_token"], facts["downloader_token"])
    assert lines == [f"{name}: ok" for name in BYTESTREAM_CHECKS]


@pytest.mark.parametrize("other", ["go", "js"], indirect=True)
def test_b09_no_call_is_lost_while_servers_are_replaced(other: list[str]) -> None:
    """Retries are off in grpc-go. grpc-js cannot do without: ``contrib/interop/js/client.js`` says why."""
    with running("our_server") as server:
        command = [*other, "load", f"127.0.0.1:{server.port}", str(DRAIN_CALLS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            assert load.stdout is not None
            lines = []
            for line in load.stdout:
                if line == "tick\n":
                    server.tell("roll")
                else:
                    lines.append(line)
    assert lines == ["load: ok\n"]
