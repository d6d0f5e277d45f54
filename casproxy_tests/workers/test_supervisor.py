"""Who is started, who is given up, who gets a connection: the real supervisor, with workers that do nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from casproxy import __version__
from casproxy.config import Config
from casproxy.config.model import GrpcServer, HttpServer, MetricsServer, Server
from casproxy.errors import CasproxyError, ConfigError
from casproxy.ports import Ports, open_ports
from casproxy.workers import process
from casproxy.workers import supervisor as supervisor_module
from casproxy.workers.messages import GRPC, Orders
from casproxy.workers.process import Ending, Worker
from casproxy.workers.restarts import Patience
from casproxy.workers.scrape import STATES
from casproxy.workers.supervisor import Supervisor
from casproxy_tests.cancellation.harness import Run, cancel_everywhere

ANY = "127.0.0.1:0"
CONFIG = Config(
    server=Server(
        grpc=GrpcServer(addr=ANY), http=HttpServer(addr=ANY), http_metrics=MetricsServer(addr=ANY), drain_grace=0.5
    )
)
HASTY = Patience(first=0.01, longest=0.02, tries=3)
_OBEY = "import sys; link = open(int(sys.argv[1]), 'rb'); link.read(int.from_bytes(link.read(4), 'big')); link.read(1)"
OBEDIENT = [sys.executable, "-IS", "-c", _OBEY]
"""Takes its orders and ends at the next word, or with its link. Serves nobody."""
DEAF = ["sh", "-c", "exec sleep 1000", "sh"]


def fake(mode: str, directory: Path) -> list[str]:
    return [sys.executable, "-m", "casproxy_tests.workers.fake_worker", mode, str(directory)]


@asynccontextmanager
async def supervised(command: Sequence[str], workers: int = 2) -> AsyncIterator[tuple[Supervisor, Ports]]:
    """A supervisor whose first worker is at work; drained at the end."""
    supervisor = Supervisor(CONFIG, workers, command=command, patience=HASTY)
    with open_ports(CONFIG) as ports:
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.serve, ports)
            await supervisor.all_serve()
            yield supervisor, ports
            supervisor.drain()


async def connect(ports: Ports) -> trio.SocketStream:
    return await trio.open_tcp_stream(*ports.grpc.getsockname())


async def number_of(stream: trio.SocketStream) -> int:
    """Of the worker that has this connection."""
    return int(bytes(await stream.receive_some(10)))


async def start_fails(command: Sequence[str]) -> Exception:
    with open_ports(CONFIG) as ports:
        try:
            await Supervisor(CONFIG, 2, command=command, patience=HASTY).serve(ports)
        except ExceptionGroup as group:
            error: Exception = group
            while isinstance(error, ExceptionGroup):
                [error] = error.exceptions
            return error
    raise AssertionError("it could start")


# -- starting and giving up -------------------------------------------------------------------------


async def test_what_the_first_worker_finds_wrong_ends_the_service_in_its_words(tmp_path: Path) -> None:
    error = await start_fails(fake("refuse", tmp_path))
    assert isinstance(error, ConfigError)
    assert str(error) == "server.grpc.addr: not today"


async def test_a_first_worker_that_ends_without_a_word_ends_the_service() -> None:
    error = await start_fails(["sh", "-c", "exit 3", "sh"])
    assert isinstance(error, CasproxyError)
    assert "worker 1 ended before it was ready: exited with status 3" in str(error)


async def test_a_program_that_is_not_there_ends_the_service() -> None:
    error = await start_fails(["no-such-program"])
    assert isinstance(error, FileNotFoundError)
    assert error.filename == "no-such-program"


async def test_a_worker_that_is_not_there_is_counted_until_the_drain(tmp_path: Path) -> None:
    supervisor = Supervisor(CONFIG, 2, command=fake("serve", tmp_path))
    assert state_counts(supervisor) == {"absent": 2}
    supervisor.drain()
    assert state_counts(supervisor) == {}


async def test_a_worker_that_fails_over_and_over_ends_the_service_when_nobody_serves(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as failed:
        async with supervised(fake("once", tmp_path), workers=1) as (_, ports), await connect(ports) as last:
            assert await last.receive_some(1) == b""
            await trio.sleep_forever()
    assert failed.group_contains(CasproxyError, match="worker 1 ended before it was ready: exited with status 3")


# -- who gets a connection --------------------------------------------------------------------------


async def test_connections_are_spread_and_what_is_freed_is_filled_again(tmp_path: Path) -> None:
    async with supervised(fake("serve", tmp_path)) as (supervisor, ports):
        streams = [await connect(ports) for _ in range(10)]
        numbers = [await number_of(stream) for stream in streams]
        assert Counter(numbers) == {1: 5, 2: 5}
        await reported_open(supervisor, [5, 5])
        for stream, number in zip(streams, numbers, strict=True):
            if number == 2:
                await stream.aclose()
        await reported_open(supervisor, [5, 0])
        more = [await connect(ports) for _ in range(4)]
        assert [await number_of(stream) for stream in more] == [2] * 4
        for stream in (*streams, *more):
            await stream.aclose()


async def test_a_worker_that_is_stopped_gets_nothing_until_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "SILENT_SECONDS", 0.2)
    async with supervised(fake("serve", tmp_path)) as (supervisor, ports):
        [stopped, other] = workers_of(supervisor)
        os.kill(stopped.process_id, signal.SIGSTOP)
        try:
            while not stopped.silent:
                await trio.lowlevel.checkpoint()
            streams = [await connect(ports) for _ in range(4)]
            assert [await number_of(stream) for stream in streams] == [other.number] * 4
        finally:
            os.kill(stopped.process_id, signal.SIGCONT)
        while stopped.silent:
            await trio.lowlevel.checkpoint()
        assert state_counts(supervisor) == {"ready": 2}
        for stream in streams:
            await stream.aclose()


async def test_what_a_killed_worker_has_not_taken_another_gets(tmp_path: Path) -> None:
    async with supervised(fake("serve", tmp_path)) as (supervisor, ports):
        [stopped, other] = workers_of(supervisor)
        os.kill(stopped.process_id, signal.SIGSTOP)
        streams = [await connect(ports) for _ in range(6)]
        while stopped.standing(GRPC, 100, draining=False).on_the_way < 3:
            await trio.lowlevel.checkpoint()
        os.kill(stopped.process_id, signal.SIGKILL)
        assert {await number_of(stream) for stream in streams} <= {other.number, stopped.number}
        for stream in streams:
            await stream.aclose()


async def test_when_the_only_worker_is_killed_what_it_has_not_taken_is_closed(tmp_path: Path) -> None:
    async with supervised(fake("serve", tmp_path), workers=1) as (supervisor, ports):
        [stopped] = workers_of(supervisor)
        os.kill(stopped.process_id, signal.SIGSTOP)
        async with await connect(ports) as stream:
            while not stopped.standing(GRPC, 100, draining=False).on_the_way:
                await trio.lowlevel.checkpoint()
            os.kill(stopped.process_id, signal.SIGKILL)
            assert await stream.receive_some(1) == b""
        await supervisor.all_serve()


async def reported_open(supervisor: Supervisor, connections: list[int]) -> None:
    while [worker.state.open.get(GRPC, 0) for worker in workers_of(supervisor)] != connections:
        await trio.lowlevel.checkpoint()


def workers_of(supervisor: Supervisor) -> list[Worker]:
    return list(supervisor._crew.values())


def state_counts(supervisor: Supervisor) -> dict[str, float]:
    text = supervisor._scrapes.exposition("")[0].decode()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("casproxy_workers{")]
    counts = {name.split('"')[1]: float(count) for name, count in lines}
    assert set(counts) == set(STATES)
    return {state: count for state, count in counts.items() if count}


# -- one process ------------------------------------------------------------------------------------


def orders() -> Orders:
    return Orders(number=1, version=__version__, config=CONFIG, addresses={}, ports=())


async def test_a_worker_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_LAST_STEPS_SECONDS", 0.05)
    worker = Worker(orders(), lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, DEAF)
        while not worker.process_id:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.process_id, 0)


async def test_a_worker_that_does_not_drain_is_killed_and_the_end_is_not_a_good_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "_LAST_STEPS_SECONDS", 0.05)
    monkeypatch.setattr(supervisor_module, "_MARGIN_SECONDS", 0.0)
    supervisor = Supervisor(CONFIG, 1, command=DEAF)

    async def drain_what_has_started() -> None:
        while not any(worker.process_id for worker in workers_of(supervisor)):
            await trio.lowlevel.checkpoint()
        supervisor.drain()

    with pytest.raises(ExceptionGroup) as failed, open_ports(CONFIG) as ports:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain_what_has_started)
            await supervisor.serve(ports)
    assert failed.group_contains(CasproxyError, match="not drained within")


async def test_cancelled_anywhere_no_process_is_left() -> None:
    started: list[Worker] = []

    async def scenario() -> Ending:
        worker = Worker(orders(), lambda: None)
        started.append(worker)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.drain)
            nursery.start_soon(worker.refresh, 0.01)
            with trio.move_on_after(0.05):
                return await worker.run(OBEDIENT)
        return Ending(0, 0, None, None)

    async def check(_run: Run[Ending]) -> None:
        if started[-1].process_id:
            with pytest.raises(ProcessLookupError):
                os.kill(started[-1].process_id, 0)

    assert await cancel_everywhere(scenario, check) >= 3


async def test_a_supervisor_that_is_cancelled_anywhere_leaves_nothing() -> None:
    async def start_and_drain() -> None:
        supervisor = Supervisor(CONFIG, 2, command=OBEDIENT)
        with open_ports(CONFIG) as ports:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.serve, ports)
                async with await connect(ports):
                    supervisor.drain()

    async def check(_run: Run[None]) -> None:
        """What the harness and every test look at: tasks, descriptors, processes."""

    assert await cancel_everywhere(start_and_drain, check) > 5
