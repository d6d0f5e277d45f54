"""The container is stopped and started at the same ports while clients go on working: no call fails for good.

What the clients do is in ``casproxy_tests.e2e.load``. Long form (``CASPROXY_SOAK=1``): 100 restarts.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

from casproxy.auth.claims import Role
from casproxy_tests.container import SLOWEST_SECONDS
from casproxy_tests.container.build import Image
from casproxy_tests.container.chart import installed
from casproxy_tests.e2e.load import CLIENTS, ROUNDS_BETWEEN, Load, clients
from casproxy_tests.real.certificates import authority
from casproxy_tests.real.openbao import OpenBao
from casproxy_tests.soak import LONG

RESTARTS = 100 if LONG else 3
pytestmark = pytest.mark.timeout(SLOWEST_SECONDS)


async def test_restarts_under_load(image: Image, tmp_path: Path, openbao: OpenBao) -> None:
    load = Load()
    async with installed(image, tmp_path, openbao) as chart:
        address, ca = f"localhost:{chart.ports['grpc']}", authority().certificate_pem
        tokens = chart.tokens[Role.UPLOADER], chart.tokens[Role.DOWNLOADER]
        with ThreadPoolExecutor(CLIENTS) as threads, clients(address, *tokens, load, ca) as working:
            async with chart.running():
                ends = [threads.submit(client.work, seed) for seed, client in enumerate(working)]
                await trio.to_thread.run_sync(load.wait_for_more, ROUNDS_BETWEEN)
            for _ in range(RESTARTS):
                async with chart.running():
                    await trio.to_thread.run_sync(load.wait_for_more, ROUNDS_BETWEEN)
                if load.ended:
                    break
            async with chart.running():
                load.end()
                for end in ends:
                    await trio.to_thread.run_sync(end.result, SLOWEST_SECONDS)
    print(f"{RESTARTS} restarts, {load.rounds} artifacts up and down, {load.repeated} calls made a second time")
    assert load.repeated, "no call met a restart: this proves nothing"
