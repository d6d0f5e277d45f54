"""The rows that noise does not touch, for continuous integration: ``python -m contrib.bench --ci``, below 30 s.

Counted: requests to the registry, reads of the secret. Weighed: memory above idle. On the processor's own clock, and as
a ratio to sha256 in the same run: CPU per GB, with a margin that a busy machine does not use up. The copies of a
payload byte are counted where buffers can be told apart, in casproxy_tests/rpc/test_copies.py.
"""

from __future__ import annotations

from casproxy.bench.artifact import Pattern
from casproxy.bench.load import Load, Scenario, Target
from casproxy.bench.local import LocalServer, running_server
from casproxy.bench.runner import Sample, measure
from contrib.bench import limits, parties
from contrib.bench.plan import MIB
from contrib.bench.rows_registry import requests_so_far
from contrib.bench.table import Figure, Table

_LARGE = 256 * MIB
_CALLS = 40
_RSS_MIB = 64
_LOOK_UPS = "casproxy_secret_lookup_seconds_count"
_TIMES_SHA256 = {Scenario.UPLOAD: 6.0, Scenario.DOWNLOAD: 6.0}
"""CPU of the whole server for a byte, over that of hashing it; 2.5 on a quiet machine."""


async def check(table: Table) -> None:
    """Take the figures; which of them are short, the table says."""
    async with (
        parties.sink() as sink,
        running_server("--oci-repo", f"{sink}/bench", "--log-level", "warning") as server,
    ):
        await _requests(table, server, sink)
    for backend in ("MEMORY", "FS"):
        async with running_server("--log-level", "warning") as server:
            await _weigh(table, server.target(backend), backend)


async def _requests(table: Table, server: LocalServer, sink: str) -> None:
    target = server.target("OCI")
    pattern = Pattern(4096)
    await measure(target, Load(Scenario.UPLOAD, size=4096, concurrency=1, count=1), pattern)
    secrets = parties.gauge(server, _LOOK_UPS)
    for scenario, prepared, reach in ((Scenario.UPLOAD, 0, 6), (Scenario.DEDUP, 6, 1), (Scenario.DOWNLOAD, 6, 2)):
        before = requests_so_far(sink)
        load = Load(scenario, size=4096, concurrency=4, count=_CALLS)
        _good(await measure(target, load, pattern))
        each = (requests_so_far(sink) - before - 1 - prepared) / _CALLS  # the question itself is one
        table.add(Figure(7, f"requests per {scenario} of 4 KiB", [each], reach, False, "each"))
    read = parties.gauge(server, _LOOK_UPS) - secrets
    table.add(Figure(7, "secret reads when cached", [read], 0, False, "reads"))


async def _weigh(table: Table, target: Target, backend: str) -> None:
    for scenario in (Scenario.UPLOAD, Scenario.DOWNLOAD):
        await measure(target, Load(scenario, size=MIB, concurrency=1, count=2))
        pattern = Pattern(_LARGE)
        sha256 = 1e9 / limits.sha256_rate()
        sample = _good(await measure(target, Load(scenario, size=_LARGE, concurrency=1, count=2), pattern))
        what = f"{backend} {scenario}, {_LARGE // MIB} MiB"
        if sample.server is None:
            raise RuntimeError("the server's memory cannot be read")
        grown = (sample.server[1].peak - sample.server[0].rss) / MIB
        table.add(Figure(6, f"{what}: RSS", [grown], _RSS_MIB, False, "MiB"))
        if backend == "MEMORY":
            ratio = sample.cpu_per_gb / sha256
            table.add(Figure(5, f"{what}: CPU, times sha256", [ratio], _TIMES_SHA256[scenario], False))


def _good(sample: Sample) -> Sample:
    if sample.errors:
        raise RuntimeError(f"calls failed: {sample.last_error}")
    return sample
