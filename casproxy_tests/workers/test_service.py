"""``casproxy serve`` with two workers: real processes, live calls, a worker killed in the middle of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from casproxy.client import open_client
from casproxy.dev.place import Place, prepare
from casproxy.digest import Digest
from casproxy.rpc.errors import RpcError
from casproxy.wire.status import StatusCode
from casproxy_tests.e2e.processes import PROGRAM, SLOWEST_SECONDS
from casproxy_tests.workers.service import half_upload, serving, uploads_running, write_config

CONTENT = bytes(range(256)) * 4096
STARTED = (
    'grpc_server_started_total{grpc_method="Write",grpc_service="google.bytestream.ByteStream",'
    'grpc_type="client_stream"}'
)


async def test_a_killed_worker_costs_its_own_calls_only_and_a_drain_ends_all(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        victim = await service.worker_process(1)
        first, second = CONTENT + b"1", CONTENT + b"2"
        async with half_upload(service, first) as lost, half_upload(service, second) as kept:
            before = await uploads_running(service, 2)
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(RpcError) as failed:
                await lost.finish()
            assert failed.value.code is StatusCode.UNAVAILABLE
            ended = await service.line("worker ended", worker=1)
            assert (ended["pid"], ended["how"]) == (victim, "killed by SIGKILL")
            await service.worker_process(1, other_than=victim)
            after = await uploads_running(service, 1)
            assert after[STARTED] == before[STARTED] == 2
            assert after["casproxy_worker_restarts_total"] == 1
            assert after['casproxy_workers{state="ready"}'] == 2

            service.process.send_signal(signal.SIGTERM)
            for number in (1, 2):
                await service.line("draining", worker=number)
            assert (await service.get("http", "/statusz?readiness=1")).status_code == 503
            assert (await service.get("http", "/statusz")).status_code == 200
            with pytest.raises(RpcError):
                async with open_client(await service.address("grpc"), insecure=True) as late:
                    await late.infoz()
            assert await kept.finish() == len(second)
        assert await service.process.wait() == 0
        lines = await service.rest()
        assert [line["worker"] for line in lines if line["event"] == "call"] == [2]
        assert lines[-1]["event"] == "drained"
        stored = [path for path in service.place.root.rglob(Digest.of(second).hex) if path.is_file()]
    assert [path.stat().st_size for path in stored] == [len(second)]


async def test_two_workers_are_one_service_for_who_looks_at_it(tmp_path: Path) -> None:
    async with serving(tmp_path, memory_budget="100MiB") as service:
        assert (await service.get("http", "/statusz?readiness=1")).status_code == 200
        async with half_upload(service, CONTENT + b"1") as one, half_upload(service, CONTENT + b"2") as other:
            scrape = await uploads_running(service, 2)
            assert scrape["casproxy_memory_budget_bytes"] == 100 << 20
            assert scrape['casproxy_build_total{version="0.1.0"}'] == 1
            processes = [name for name in scrape if name.startswith("process_resident_memory_bytes")]
            assert sorted(processes) == [
                f'process_resident_memory_bytes{{worker="{worker}"}}' for worker in ("1", "2", "supervisor")
            ]
            for upload in (one, other):
                assert await upload.finish() == len(upload.content)
        calls = [await service.line("call", worker=number) for number in (1, 2)]
        assert [call["code"] for call in calls] == ["OK", "OK"]

        own = await service.worker_process(2)
        os.kill(own, signal.SIGTERM)
        assert (await service.line("worker ended", worker=2))["how"] == "exited with status 0"
        assert await service.worker_process(2, other_than=own) != own
        assert (await service.scrape())[STARTED] == 2


async def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as service, half_upload(service, CONTENT) as upload:
        await uploads_running(service, 1)
        service.process.send_signal(signal.SIGINT)
        for number in (1, 2):
            await service.line("draining", worker=number)
        service.process.send_signal(signal.SIGINT)
        with pytest.raises(RpcError):
            await upload.call.receive_message()
        assert await service.process.wait() == 0


async def test_a_supervisor_that_is_killed_leaves_nobody_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as service, half_upload(service, CONTENT) as upload:
        await uploads_running(service, 1)
        service.process.kill()
        assert await upload.finish() == len(CONTENT)
        lines = await service.rest()  # ends when the last process that holds the pipe has ended
        gone = [line["worker"] for line in lines if line["event"] == "the supervisor is gone: draining"]
        assert sorted(gone) == [1, 2]
        assert sorted(line["worker"] for line in lines if line["event"] == "drained") == [1, 2]


@pytest.mark.parametrize("broken", ["key", "port"])
def test_what_cannot_start_says_so_once(place: Place, tmp_path: Path, broken: str) -> None:
    config = write_config(place, tmp_path / "config.yaml", workers=2)
    text = config.read_text()
    wrong, reason = {
        "key": (str(place.public_key), "cannot read the public key"),
        "port": ("127.0.0.1:0", "is not an address of this machine"),
    }[broken]
    config.write_text(text.replace(wrong, "198.51.100.1:0" if broken == "port" else str(tmp_path / "none")))
    command = [*PROGRAM, "serve", "--conf", str(config)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=SLOWEST_SECONDS, check=False)
    assert result.returncode == 1
    *log, line = result.stderr.splitlines()
    assert line.startswith("casproxy: ") and reason in line
    assert not [entry for entry in map(json.loads, log) if entry["level"] != "info" or entry["worker"] != 1]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    with prepare(tmp_path / "place", now=0.0) as made:
        return made
