"""Owns the worker's own side: ``python -m casproxy.workers.worker LINK HAND_OVER``, the numbers of two descriptors.

It serves an ``App`` as a single process would, but for three things: connections are handed to it, it is scraped over
its link, and its end is the supervisor's to decide. SIGTERM drains this worker alone (another is started in its place)
and a second one ends it at once; a supervisor that is gone means to drain, and while draining to end at once.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable

import structlog
import trio

from casproxy import __version__
from casproxy.app import App
from casproxy.config import Config
from casproxy.errors import ConfigError
from casproxy.garbage import settle
from casproxy.observe import log as logs
from casproxy.observe.metrics import Metrics
from casproxy.workers.hand_over import Taker
from casproxy.workers.merge import snapshot
from casproxy.workers.messages import DOORS, GRPC, HTTP, Drain, Failed, Link, Message, Orders, Scrape, Snapshot, State

log = structlog.get_logger("casproxy.workers")

_REPORT_SECONDS = 1.0
"""How often the supervisor hears of this worker at least."""
_LOOK_SECONDS = 0.25
_PAUSE_SECONDS = 0.02
"""Between two reports of a burst of connections."""
_LAST_WORD_SECONDS = 5.0


def main(make_app: Callable[[Config], App] = App) -> int:
    """Work until told to stop; the exit code."""
    link_end, hand_over = (socket.socket(fileno=int(number)) for number in sys.argv[-2:])
    with link_end, hand_over:
        for end in (link_end, hand_over):
            end.set_inheritable(False)
        return trio.run(_work, link_end, hand_over, make_app)


async def _work(link_end: socket.socket, hand_over: socket.socket, make_app: Callable[[Config], App]) -> int:
    link = Link(trio.SocketStream(trio.socket.from_stdlib_socket(link_end)))
    orders = await link.receive()
    if not isinstance(orders, Orders):
        return 1
    settings = orders.config.observability.log
    logs.configure(settings.level, settings.format)
    structlog.contextvars.bind_contextvars(worker=orders.number)
    try:
        if orders.version != __version__:
            raise ConfigError(f"this worker is version {__version__}, its supervisor {orders.version}; restart both")
        await _Work(orders, link, hand_over, make_app(orders.config)).run()
    except Exception as error:
        failed = _failed(_first(error))
        if failed.kind == "unexpected":
            log.exception("worker failed")
        with trio.move_on_after(_LAST_WORD_SECONDS):
            await _say(link, failed)
        return 1
    return 0


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _failed(error: Exception) -> Failed:
    if isinstance(error, ConfigError):
        return Failed(kind="config", text=str(error))
    if isinstance(error, OSError) and error.errno and error.strerror:
        file = error.filename if isinstance(error.filename, str) else ""
        return Failed(kind="os", text=error.strerror, errno=error.errno, file=file)
    return Failed(kind="unexpected", text=f"{type(error).__name__}: {error}")


async def _say(link: Link, message: Message) -> None:
    try:
        await link.send(message)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # the supervisor is gone; whoever receives from the link sees that too, and acts


class _HandedDoors:
    """The ``Doors`` of a worker: what its supervisor hands over."""

    def __init__(self, orders: Orders, taker: Taker) -> None:
        self._orders = orders
        self._taker = taker
        self.metrics: Metrics | None = None

    def addresses(self) -> dict[str, str]:
        return self._orders.addresses

    def numbers(self) -> tuple[int, ...]:
        return self._orders.ports

    def open_grpc(self) -> trio.abc.Listener[trio.SocketStream]:
        return self._taker.doors[GRPC]

    def open_http(self) -> trio.abc.Listener[trio.SocketStream]:
        return self._taker.doors[HTTP]

    async def serve_metrics(
        self, metrics: Metrics, stop: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        self.metrics = metrics
        task_status.started()
        await stop.wait()


class _Work:
    def __init__(self, orders: Orders, link: Link, hand_over: socket.socket, app: App) -> None:
        self._link = link
        self._app = app
        self._taker = Taker(hand_over, self._look_now)
        self._doors = _HandedDoors(orders, self._taker)
        self._started = False
        self._look = trio.Event()

    async def run(self) -> None:
        """Serve until drained or ended."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._taker.run)
                nursery.start_soon(self._report)
                nursery.start_soon(self._obey_signals, nursery.cancel_scope)
                nursery.start_soon(self._obey_supervisor, nursery.cancel_scope)
                async with trio.open_nursery() as serving:
                    await serving.start(self._app.serve, self._doors)
                    settle()
                    self._started = True
                    self._look_now()
                await self._tell_metrics(0)
                nursery.cancel_scope.cancel()
        finally:
            self._taker.close()

    async def _obey_signals(self, everything: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            await anext(signals)
            log.info("draining", signal="SIGTERM")
            self._drain()
            await anext(signals)
            log.warning("second signal: ending at once", signal="SIGTERM")
            everything.cancel()

    async def _obey_supervisor(self, everything: trio.CancelScope) -> None:
        while (message := await self._link.receive()) is not None:
            match message:
                case Drain():
                    log.info("draining")
                    self._drain()
                case Scrape():
                    await self._tell_metrics(message.serial)
        if self._app.draining:
            log.warning("the supervisor ended the link: ending at once")
            everything.cancel()
        else:
            log.error("the supervisor is gone: draining")
            self._drain()

    def _drain(self) -> None:
        self._app.drain()
        self._look_now()

    async def _tell_metrics(self, serial: int) -> None:
        metrics = self._doors.metrics
        await _say(self._link, Snapshot(serial, [] if metrics is None else snapshot(metrics.registry)))

    async def _report(self) -> None:
        sent, next_at = State(), 0.0
        while True:
            state, now = self._state(), trio.current_time()
            if state != sent or now >= next_at:
                await _say(self._link, state)
                sent, next_at = state, now + _REPORT_SECONDS
            with trio.move_on_after(_LOOK_SECONDS):
                await self._look.wait()
            await trio.sleep(_PAUSE_SECONDS)

    def _state(self) -> State:
        self._look = trio.Event()
        doors, metrics = self._taker.doors, self._doors.metrics
        return State(
            started=self._started,
            draining=self._app.draining,
            not_ready=self._app.readiness.reason,
            taken={name: doors[name].taken for name in DOORS},
            open={name: doors[name].count_open() for name in DOORS},
            calls=0 if metrics is None else metrics.calls_in_flight(),
        )

    def _look_now(self) -> None:
        self._look.set()


if __name__ == "__main__":
    sys.exit(main())
