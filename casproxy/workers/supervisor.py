"""Owns a server of several processes: who accepts, who is started when, how all of them end. Carries no byte of a call.

::

    start-up                                        drain (SIGTERM, SIGINT)
    1  ports bound, metrics answer                  1  gRPC: stops accepting; all workers are told to drain
    2  worker 1 starts, with every check            2  HTTP: probes go on being handed over, and hear 503
    3  it is ready: connections are accepted …      3  each worker ends as ``app.py`` draws it
    4  … and the other workers start                4  the last is gone: HTTP and metrics stop, the process exits 0

What is wrong with configuration, keys or secrets is found by worker 1 and said once. A second signal ends everything at
once. A supervisor that is killed leaves nobody behind: its workers see their links end, and drain.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog
import trio

from casproxy import __version__
from casproxy.config import Config
from casproxy.errors import CasproxyError
from casproxy.ports import Ports
from casproxy.signals import serve_until_signalled
from casproxy.web.server import serve_http
from casproxy.workers.balance import choose
from casproxy.workers.hand_over import WorkerGone
from casproxy.workers.messages import GRPC, HTTP, Orders
from casproxy.workers.process import COMMAND, Ending, Worker
from casproxy.workers.restarts import PATIENCE, Patience, Restarts
from casproxy.workers.scrape import Scrapes
from casproxy.workers.shares import share_of

log = structlog.get_logger("casproxy.workers")

_CAPACITY: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
_CAPACITY_SECONDS: Final = 0.1
_MARGIN_SECONDS: Final = 15.0
"""How much longer than ``server.drain_grace`` a worker may take: last answers, and sending what is queued."""


async def supervise(config: Config, ports: Ports, workers: int) -> None:
    """Serve with so many workers until SIGTERM or SIGINT, then drain; returns when nothing is left. Main thread only.

    Errors: what ``Supervisor.serve`` raises, in an ``ExceptionGroup``.
    """
    await serve_until_signalled(Supervisor(config, workers), ports, config.server.drain_grace)


class Supervisor:
    """All workers of one server. Serves once. ``command`` starts one; two numbers are added."""

    def __init__(
        self, config: Config, workers: int, *, command: Sequence[str] = COMMAND, patience: Patience = PATIENCE
    ) -> None:
        self._config = config
        self._share = share_of(config, workers)
        self._count = workers
        self._command = command
        self._patience = patience
        self._room = {
            GRPC: self._share.server.grpc.limits.max_connections,
            HTTP: self._share.server.http.limits.max_connections,
        }
        self._crew: dict[int, Worker] = {}
        self._scrapes = Scrapes(self._crew.values, lambda: 0 if self.draining else workers)
        self._changed = trio.Event()
        self._drain = trio.Event()
        self._somebody_has_served = trio.Event()
        self._bad_end = ""

    @property
    def draining(self) -> bool:
        """The drain drawn above has begun."""
        return self._drain.is_set()

    def drain(self) -> None:
        """Begin the drain drawn above; ``serve`` returns at its end. Idempotent."""
        self._drain.set()
        self._notice()

    async def serve(self, doors: Ports, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start up, serve, drain. Started when connections are accepted. Cancelled: everything ends at once.

        Errors, in an ``ExceptionGroup``: ``ConfigError``, ``OSError`` and ``CasproxyError`` of the first worker, or of
        one that fails over and over while no other serves; ``CasproxyError`` when a worker did not end well.
        """
        stop, probes, calls = trio.Event(), trio.CancelScope(), trio.CancelScope()
        orders = partial(Orders, version=__version__, config=self._share, ports=doors.numbers())
        orders = partial(orders, addresses=doors.addresses())
        async with trio.open_nursery() as around:
            await around.start(serve_http, self._scrapes.app(), doors.metrics, stop)
            around.start_soon(self._accept, HTTP, doors.open_http(), probes)
            async with trio.open_nursery() as crew:
                crew.start_soon(self._keep, 1, orders, crew)
                await self._first_news()
                if not self.draining:
                    for number in range(2, self._count + 1):
                        crew.start_soon(self._keep, number, orders, crew)
                    log.info("serving", version=__version__, workers=self._count, **doors.addresses())
                crew.start_soon(self._accept, GRPC, doors.open_grpc(), calls)
                task_status.started()
                await self._drain.wait()
                calls.cancel()
                for worker in self._crew.values():
                    crew.start_soon(worker.drain)
                crew.cancel_scope.deadline = trio.current_time() + self._config.server.drain_grace + _MARGIN_SECONDS
            if crew.cancel_scope.cancelled_caught:
                self._bad_end = f"not drained within server.drain_grace and {_MARGIN_SECONDS:g} s: killed"
            stop.set()
            probes.cancel()
        if self._bad_end:
            raise CasproxyError(f"workers did not end well: {self._bad_end}")
        log.info("drained")

    async def all_serve(self) -> None:
        """Wait until every worker serves."""
        while len([worker for worker in self._crew.values() if worker.serves]) < self._count:
            await self._changed.wait()

    # -- who serves -------------------------------------------------------------------------------------

    async def _keep(self, number: int, orders: partial[Orders], crew: trio.Nursery) -> None:
        """Have a worker in this place, one after another, until the drain; what one leaves untaken, others get."""
        restarts = Restarts(self._patience)
        while not self.draining:
            worker = self._crew[number] = Worker(orders(number=number), self._notice)
            try:
                ending = await worker.run(self._command)
            finally:
                del self._crew[number]
                for door, connection in worker.untaken:
                    crew.start_soon(self._hand_on, door, trio.socket.from_stdlib_socket(connection))
                self._scrapes.retire(worker)
                self._notice()
            if self.draining:
                self._note_end(number, ending)
                return
            delay = restarts.ended(ending.ready_for)
            if not self._somebody_has_served.is_set() or restarts.pointless(self._somebody_serves()):
                raise ending.error(number)
            say = log.info if ending.status == 0 else log.error
            say("worker ended", worker=number, pid=ending.process_id, how=ending.sentence(), again_in_seconds=delay)
            with trio.move_on_after(delay):
                await self._drain.wait()
            self._scrapes.restarts += not self.draining

    def _note_end(self, number: int, ending: Ending) -> None:
        if ending.status and ending.ready_for is not None:
            self._bad_end = f"worker {number}: {ending.sentence()}"
            log.error("worker ended badly", worker=number, pid=ending.process_id, how=ending.sentence())

    def _somebody_serves(self) -> bool:
        return any(worker.serves for worker in self._crew.values())

    async def _first_news(self) -> None:
        """Wait until a worker serves, or the drain."""
        while not self._somebody_has_served.is_set() and not self.draining:
            await self._changed.wait()

    def _notice(self) -> None:
        if self._somebody_serves():
            self._somebody_has_served.set()
        self._changed.set()
        self._changed = trio.Event()

    # -- who is served ----------------------------------------------------------------------------------

    async def _accept(
        self, door: str, listener: trio.abc.Listener[trio.SocketStream], until_cancelled: trio.CancelScope
    ) -> None:
        """Hand over whoever comes. While no worker can take anybody, clients wait in the kernel's queue."""
        with until_cancelled:
            async with listener:
                while True:
                    await self._choice(door)
                    try:
                        stream = await listener.accept()
                    except OSError as error:
                        if error.errno not in _CAPACITY:
                            raise
                        log.error("cannot accept", error=os.strerror(error.errno), again_in_seconds=_CAPACITY_SECONDS)  # noqa: TRY400
                        await trio.sleep(_CAPACITY_SECONDS)
                    else:
                        with stream.socket:
                            await self._hand_over(door, stream.socket)

    async def _hand_over(self, door: str, connection: trio.socket.SocketType) -> None:
        while not await self._give(await self._choice(door), door, connection):
            pass

    async def _hand_on(self, door: str, connection: trio.socket.SocketType) -> None:
        """A worker has ended without taking this one: another gets it, if one can take it now; closed if none can."""
        with connection:
            while (worker := self._choose(door)) is not None and not await self._give(worker, door, connection):
                pass

    async def _give(self, worker: Worker, door: str, connection: trio.socket.SocketType) -> bool:
        """False: the worker is gone, somebody else has to have it."""
        try:
            await worker.give(door, connection)
        except WorkerGone:
            return False
        except OSError as error:
            log.error("connection not handed over", worker=worker.number, error=error.strerror)  # noqa: TRY400
        return True

    async def _choice(self, door: str) -> Worker:
        """The worker to get the next connection; waits until there is one."""
        while (worker := self._choose(door)) is None:
            await self._changed.wait()
        return worker

    def _choose(self, door: str) -> Worker | None:
        draining = self.draining
        standings = [worker.standing(door, self._room[door], draining=draining) for worker in self._crew.values()]
        number = choose(standings, draining=draining)
        return None if number is None else self._crew[number]
