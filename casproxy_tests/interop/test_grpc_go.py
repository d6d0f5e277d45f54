"""grpc-go, unmodified, against our server: ``contrib/interop/go``, built where ``go`` is installed.

Its ByteStream client encodes resource names with Go's own gob, as Chainloop's does.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from casproxy_tests.e2e.processes import running_dev
from casproxy_tests.interop.programs import ROOT, running
from casproxy_tests.real import require_real

DRAIN_CALLS = 3000 if os.environ.get("CASPROXY_SOAK") == "1" else 600
TIMEOUT = 100
CLIENT_CHECKS = [
    "unary",
    "unary gzip",
    "upload",
    "upload gzip",
    "download",
    "early answers",
    "status",
    "cancel",
    "deadline",
    "metadata",
    "keepalive",
]
BYTESTREAM_CHECKS = ["large", "again", "empty", "one byte", "wrong digest", "wrong role", "unknown"]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = require_real("go", "building grpc-go's side of the interoperability tests")
    built = tmp_path_factory.mktemp("go") / "peer"
    subprocess.run([go, "build", "-o", built, "."], cwd=ROOT / "contrib/interop/go", check=True)
    return built


def lines_of(peer: Path, *arguments: str) -> list[str]:
    run = subprocess.run([peer, *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert not run.stderr
    return run.stdout.splitlines()


def test_every_kind_of_call(peer: Path) -> None:
    with running("our_server") as server:
        lines = lines_of(peer, "client", f"127.0.0.1:{server.port}")
    assert lines == [f"{name}: ok" for name in CLIENT_CHECKS]


def test_artifacts_with_gob_names(peer: Path, tmp_path: Path) -> None:
    with running_dev(tmp_path) as dev:
        facts = dev.facts
        lines = lines_of(peer, "bytestream", facts["grpc"], facts["uploader_token"], facts["downloader_token"])
    assert lines == [f"{name}: ok" for name in BYTESTREAM_CHECKS]


def test_b09_no_call_is_lost_while_servers_are_replaced(peer: Path) -> None:
    with running("our_server") as server:
        command = [peer, "load", f"127.0.0.1:{server.port}", str(DRAIN_CALLS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            assert load.stdout is not None
            lines = []
            for line in load.stdout:
                if line == "tick\n":
                    server.tell("roll")
                else:
                    lines.append(line)
    assert lines == ["load: ok\n"]
