"""Every case of h2spec, the conformance suite for HTTP/2 servers, and its strict ones (``-S``)."""

from __future__ import annotations

import re
import subprocess

import pytest

from casproxy_tests.interop.programs import running
from casproxy_tests.real import require_real

SUMMARY = re.compile(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed")


@pytest.mark.parametrize(("strict", "cases"), [([], 145), (["-S"], 146)], ids=["plain", "strict"])
def test_b16_h2spec_passes_in_full(strict: list[str], cases: int) -> None:
    h2spec = require_real("h2spec", "the conformance suite for HTTP/2 servers")
    with running("h2spec_server") as server:
        command = [str(h2spec), *strict, "--host", "127.0.0.1", "--port", str(server.port), "--timeout", "10"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    summary = SUMMARY.search(run.stdout)
    assert summary is not None, run.stdout + run.stderr
    assert [int(number) for number in summary.groups()] == [cases, cases, 0, 0], run.stdout
    assert run.returncode == 0
