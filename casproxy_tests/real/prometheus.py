"""Owns a real Prometheus that is given the scrapes of an hour at once, and promtool. Knows nothing of ours."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from casproxy_tests.cas import PLAIN
from casproxy_tests.real import require_real
from casproxy_tests.real.process import free_port, running


def promtool(*arguments: str | Path, given: bytes = b"") -> str:
    """Run promtool; its output, and an assertion that it had nothing to complain of."""
    command = [require_real("promtool", "metrics, alerts and dashboards"), *arguments]
    done = subprocess.run(list(map(str, command)), input=given, capture_output=True, check=False)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output
    return output


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server."""

    port: int

    def query(self, expression: str, at: float) -> list[Any]:
        """The samples of an instant query, at ``at`` seconds since the epoch."""
        url = f"http://127.0.0.1:{self.port}/api/v1/query"
        answer = httpx.get(
            url, params={"query": expression, "time": str(at)}, verify=PLAIN, trust_env=False, timeout=30
        ).json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        found: list[Any] = answer["data"]["result"]
        return found


@contextmanager
def running_prometheus(directory: Path, scrapes: Mapping[float, str]) -> Iterator[Prometheus]:
    """A server that remembers ``scrapes``: OpenMetrics text by when it was scraped, seconds since the epoch."""
    program = require_real("prometheus", "metrics, alerts and dashboards")
    history, blocks = directory / "history.txt", directory / "blocks"
    history.write_text(_history(scrapes))
    promtool("tsdb", "create-blocks-from", "openmetrics", history, blocks)
    config = directory / "prometheus.yaml"
    config.write_text("{}\n")
    server = Prometheus(free_port())
    address = f"--web.listen-address=127.0.0.1:{server.port}"
    command: Sequence[str | Path] = [program, f"--config.file={config}", f"--storage.tsdb.path={blocks}", address]
    with running(command, directory, lambda: _ready(server.port)):
        yield server


def _ready(port: int) -> bool:
    try:
        return (
            httpx.get(f"http://127.0.0.1:{port}/-/ready", verify=PLAIN, trust_env=False, timeout=30).status_code == 200
        )
    except httpx.TransportError:
        return False


def _history(scrapes: Mapping[float, str]) -> str:
    """All samples with their times, those of one family together (OpenMetrics wants that)."""
    families: dict[str, list[str]] = {}
    family: list[str] = []
    for at, text in scrapes.items():
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                family = families.setdefault(line, [line])
            elif not line.startswith("#"):
                family.append(f"{line} {at:.3f}")
    return "\n".join([*(line for lines in families.values() for line in lines), "# EOF\n"])
