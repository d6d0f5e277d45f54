"""Owns one worker as its supervisor sees it: the process, what it says, what it was handed. Decides nothing.

A worker is started anew, never forked off: neither threads nor an event loop survive a fork. It inherits two
descriptors and nothing else, and is in a process group of its own, so that Ctrl-C reaches the supervisor only, which
then drains.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog
import trio

from casproxy.errors import CasproxyError, ConfigError
from casproxy.workers.balance import Standing
from casproxy.workers.hand_over import Giver, WorkerGone, socket_pair, take_back
from casproxy.workers.merge import Family
from casproxy.workers.messages import DOORS, Drain, Failed, Link, Message, Orders, Scrape, Snapshot, State

log = structlog.get_logger("casproxy.workers")

COMMAND: Final = (sys.executable, "-P", "-m", "casproxy.workers.worker")
"""The numbers of the two descriptors follow. ``-P``: what lies in the working directory is never imported."""

SILENT_SECONDS: Final = 5.0
"""A worker that says nothing for so long hangs or is stopped: others are preferred."""

_LAST_STEPS_SECONDS: Final = 10.0
"""How long a process may take to exit once its link has ended."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker ended. ``status``: of the process, negative for a signal. ``failed``: what it said of it itself.

    ``ready_for``: seconds that it served, None: it never did.
    """

    process_id: int
    status: int
    ready_for: float | None
    failed: Failed | None

    def sentence(self) -> str:
        """For the log."""
        if self.failed is not None:
            return self.failed.text
        if self.status < 0:
            return f"killed by {signal.Signals(-self.status).name}"
        return f"exited with status {self.status}"

    def error(self, number: int) -> Exception:
        """What to raise when the service cannot go on without it: the worker's own error where that is known."""
        if self.failed is not None and self.failed.kind == "config":
            return ConfigError(self.failed.text)
        if self.failed is not None and self.failed.kind == "os":
            return OSError(self.failed.errno, self.failed.text, self.failed.file or None)
        return CasproxyError(f"worker {number} ended before it was ready: {self.sentence()}; its log lines say more")


class Worker:
    """One process, from its start to its end. ``changed`` is called whenever there is news of it."""

    def __init__(self, orders: Orders, changed: Callable[[], None]) -> None:
        self.number = orders.number
        self.state = State()
        self.silent = False
        self.families: list[Family] = []
        """Its metrics when it was last asked."""
        self.untaken: list[tuple[str, socket.socket]] = []
        """Once it has ended: door and connection of what it was given and never took. The caller's to close."""
        self._orders = orders
        self._changed = changed
        self._handed = dict.fromkeys(DOORS, 0)
        self._link: Link | None = None
        self._giver: Giver | None = None
        self.process_id = 0
        self._ready_at: float | None = None
        self._failed: Failed | None = None
        self._told_to_drain = False
        self._asked = self._answered = 0
        self._answer = trio.Event()

    async def run(self, command: Sequence[str]) -> Ending:
        """Start the process and listen to it until it has ended; that it cannot be started is an end as well.

        Cancelled: the worker sees its link end, and at once ends what it drains; it is killed if it does not.
        """
        link_end, their_link = socket_pair(socket.SOCK_STREAM)
        give_end, their_give = socket_pair(socket.SOCK_SEQPACKET)
        with link_end, give_end, their_give:
            with their_link:
                try:
                    process = await _start(command, their_link.fileno(), their_give.fileno())
                except OSError as error:
                    reason = error.strerror or str(error)
                    return Ending(0, 1, None, Failed(kind="os", text=reason, errno=error.errno or 0, file=command[0]))
            self.process_id = process.pid
            try:
                self._giver = Giver(give_end)
                await self._listen(Link(trio.SocketStream(trio.socket.from_stdlib_socket(link_end))))
            finally:
                self._gone()
                give_end.shutdown(socket.SHUT_RDWR)  # whoever waits to give it one hears that it is gone
                await _end(process, link_end)
                self.untaken = take_back(their_give)
        served = None if self._ready_at is None else trio.current_time() - self._ready_at
        return Ending(process.pid, process.returncode or 0, served, self._failed)

    # -- what to tell it --------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Tell it to drain, now or as soon as it listens."""
        self._told_to_drain = True
        await self._tell(Drain())

    async def give(self, door: str, connection: trio.socket.SocketType) -> None:
        """Hand over a connection. ``WorkerGone``: the connection is still the caller's. ``OSError``: so it is."""
        if self._giver is None:
            raise WorkerGone
        await self._giver.give(door, connection)
        self._handed[door] += 1

    async def refresh(self, seconds: float) -> None:
        """Ask for its metrics; after so many seconds without an answer those of the last time stay."""
        if self.silent:  # it would not read the question, and questions would pile up
            return
        self._asked += 1
        serial = self._asked
        with trio.move_on_after(seconds):
            await self._tell(Scrape(serial))
            while self._link is not None and self._answered < serial:
                await self._answer.wait()

    async def _tell(self, message: Message) -> None:
        if self._link is not None:
            try:
                await self._link.send(message)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # it is gone, and whoever listens to it knows in a moment

    # -- what is known of it ----------------------------------------------------------------------------

    @property
    def serves(self) -> bool:
        """It is there and its start-up is over."""
        return self._link is not None and self.state.started

    def standing(self, door: str, room: int, *, draining: bool) -> Standing:
        """What counts for who gets the next connection. ``draining``: all do, so that this one does is no reason."""
        waiting = {name: self._handed[name] - self.state.taken.get(name, 0) for name in DOORS}
        on_the_way = sum(waiting.values())
        return Standing(
            number=self.number,
            serves=self.serves and (draining or not self.state.draining),
            ready=not self.state.not_ready,
            silent=self.silent,
            connections=self.state.open.get(door, 0) + waiting[door],
            room=room,
            on_the_way=on_the_way,
            load=sum(self.state.open.values()) + on_the_way + self.state.calls,
        )

    # -- listening --------------------------------------------------------------------------------------

    async def _listen(self, link: Link) -> None:
        self._link = link
        await self._tell(self._orders)
        if self._told_to_drain:
            await self._tell(Drain())
        while True:
            message: Message | None = None
            with trio.move_on_after(SILENT_SECONDS) as waiting:
                try:
                    message = await link.receive()
                except msgspec.MsgspecError as error:
                    log.error("worker speaks nonsense", worker=self.number, error=str(error))  # noqa: TRY400
            if waiting.cancelled_caught:
                self._mark_silent(self.state.started)
            elif message is None:
                return
            else:
                self._mark_silent(False)
                self._hear(message)
                self._changed()

    def _mark_silent(self, silent: bool) -> None:
        if silent != self.silent:
            self.silent = silent
            told = "worker is silent" if silent else "worker is heard again"
            log.warning(told, worker=self.number, silent_seconds=SILENT_SECONDS)

    def _hear(self, message: Message) -> None:
        match message:
            case State():
                self.state = message
                if message.started and self._ready_at is None:
                    self._ready_at = trio.current_time()
                    log.info("worker started", worker=self.number, pid=self.process_id)
            case Snapshot():
                self.families = message.families
                self._answered = max(self._answered, message.serial)
                self._answer.set()
                self._answer = trio.Event()
            case Failed():
                self._failed = message

    def _gone(self) -> None:
        self._link = self._giver = None
        self._answer.set()
        self._changed()


async def _start(command: Sequence[str], *descriptors: int) -> trio.Process:
    return await trio.lowlevel.open_process(
        [*command, *map(str, descriptors)], stdin=subprocess.DEVNULL, pass_fds=descriptors, process_group=0
    )


async def _end(process: trio.Process, link_end: socket.socket) -> None:
    """Let a worker whose link has ended exit, and kill it when it does not."""
    with suppress(OSError):  # the worker's end may be closed already
        link_end.shutdown(socket.SHUT_RDWR)
    with trio.move_on_after(_LAST_STEPS_SECONDS, shield=True):
        await process.wait()
        return
    process.kill()
    with trio.move_on_after(_LAST_STEPS_SECONDS, shield=True):
        await process.wait()
