"""SIGTERM and a new process at the same ports, again and again, while clients go on working: no call fails for good.

What the clients do is in ``load``. Long form (``CASPROXY_SOAK=1``): 100 restarts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from casproxy.dev.place import Place, prepare
from casproxy_tests.e2e.load import CLIENTS, ROUNDS_BETWEEN, Load, clients
from casproxy_tests.e2e.processes import PROGRAM, SLOWEST_SECONDS
from casproxy_tests.real.process import free_port, wait_until
from casproxy_tests.soak import LONG

RESTARTS = 100 if LONG else 3
pytestmark = pytest.mark.timeout(3600 if LONG else 120)


def test_restarts_under_load(tmp_path: Path) -> None:
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("grpc", "http", "http_metrics")}
    load = Load()
    with prepare(tmp_path / "place", now=time.time()) as place:
        config = write_config(tmp_path, place, ports)
        tokens = place.uploader_token, place.downloader_token
        with ThreadPoolExecutor(CLIENTS) as threads, clients(ports["grpc"], *tokens, load) as working:
            with serving(config, tmp_path / "serve.log"):
                ends = [threads.submit(client.work, seed) for seed, client in enumerate(working)]
                load.wait_for_more(ROUNDS_BETWEEN)
            for _ in range(RESTARTS):
                with serving(config, tmp_path / "serve.log"):
                    load.wait_for_more(ROUNDS_BETWEEN)
                    if load.ended:
                        break
            with serving(config, tmp_path / "serve.log"):
                load.end()
                for end in ends:
                    end.result(SLOWEST_SECONDS)
        shutil.rmtree(place.root / "store")
    print(f"{RESTARTS} restarts, {load.rounds} artifacts up and down, {load.repeated} calls made a second time")
    assert load.repeated, "no call met a restart: this proves nothing"


def write_config(directory: Path, place: Place, ports: dict[str, str]) -> Path:
    path = directory / "server.yaml"
    server = {name: {"addr": address} for name, address in ports.items()}
    path.write_text(
        json.dumps(
            {
                "server": server,
                "auth": {"public_key_path": str(place.public_key)},
                "credentials_service": {"file": {"path": str(place.root / "secrets.yaml")}},
                "storage": {"fs": {"root": str(place.root / "store")}},
            }
        )
    )
    return path


@contextmanager
def serving(config: Path, log: Path) -> Iterator[None]:
    """``casproxy serve`` from when it serves to a SIGTERM at the end of the block; exit code 0."""
    with log.open("w") as out:
        process = subprocess.Popen([*PROGRAM, "serve", "--conf", str(config)], stderr=out)
    try:
        wait_until(lambda: process.poll() is not None or '"event":"serving"' in log.read_text(), log.read_text)
        assert process.poll() is None, log.read_text()
        yield
        process.terminate()
        assert process.wait(SLOWEST_SECONDS) == 0, log.read_text()[-2000:]
    finally:
        process.kill()
        process.wait()
