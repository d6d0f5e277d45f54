"""``buf curl`` with the .proto files calls what needs no stream."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from casproxy import __version__
from casproxy.digest import Digest
from casproxy_tests.e2e.processes import SLOWEST_SECONDS, Dev
from casproxy_tests.real import require_real

PROTOS = Path(__file__).parents[2] / "proto"
HELLO = b"hello from casproxy dev\n"


def buf_curl(dev: Dev, method: str, request: dict[str, Any], token: str = "") -> Any:
    buf = require_real("buf", "calling with the .proto files")
    header = ["--header", f"authorization: Bearer {token}"] if token else []
    url = f"http://{dev.facts['grpc']}/{method}"
    command = [str(buf), "curl", "--schema", str(PROTOS), "--protocol", "grpc", "--http2-prior-knowledge", *header]
    result = subprocess.run(
        [*command, "--data", json.dumps(request), url],
        capture_output=True,
        text=True,
        check=False,
        timeout=SLOWEST_SECONDS,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_infoz(dev: Dev) -> None:
    assert buf_curl(dev, "cas.v1.StatusService/Infoz", {}) == {"version": __version__, "backends": ["FS", "OCI"]}


def test_describe(dev: Dev) -> None:
    digest = Digest.of(HELLO)
    answer = buf_curl(dev, "cas.v1.ResourceService/Describe", {"digest": str(digest)}, dev.facts["downloader_token"])
    assert answer == {"result": {"fileName": "hello.txt", "digest": digest.hex, "size": str(len(HELLO))}}
