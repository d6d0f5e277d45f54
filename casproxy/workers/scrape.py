"""Owns ``/metrics`` of a server with workers: asks all of them, adds up, and adds what the supervisor knows itself.

A process that died counts as it was when it was last asked: what was ever exposed stays, so no counter goes back, and
what it did after that is lost. Refuses to know how metrics are added (``merge.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

import trio

from casproxy.web.asgi import AsgiApp, Receive, Scope, Send, pages
from casproxy.web.exposition import metrics_pages
from casproxy.workers.merge import Family, exposition, lasting, merged, process_families
from casproxy.workers.process import Worker

STATES: Final = ("ready", "not_ready", "starting", "draining", "silent", "absent")
"""``absent``: not started yet, or ended and not started again yet; nobody is missed in a drain."""

_ANSWER_SECONDS: Final = 2.0


class Scrapes:
    """The metrics of all workers. ``living`` gives those that there are, ``wanted`` how many there should be."""

    def __init__(self, living: Callable[[], Collection[Worker]], wanted: Callable[[], int]) -> None:
        self._living = living
        self._wanted = wanted
        self._dead: list[Family] = []
        self.restarts = 0

    def retire(self, worker: Worker) -> None:
        """A worker has ended; it must not be among the living any more."""
        self._dead = merged([("", self._dead), ("", lasting(worker.families))])

    async def refresh(self) -> None:
        """Ask all workers at once."""
        async with trio.open_nursery() as nursery:
            for worker in self._living():
                nursery.start_soon(worker.refresh, _ANSWER_SECONDS)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """See ``Metrics.exposition``: what was heard when workers were last asked."""
        living = [(str(worker.number), worker.families) for worker in self._living()]
        own = [*process_families(), *self._own()]
        return exposition(merged([*living, ("", self._dead), ("supervisor", own)]), accept)

    def app(self) -> AsgiApp:
        """The metrics port."""
        answer = pages(metrics_pages(self))

        async def ask_then_answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["path"] == "/metrics":
                await self.refresh()
            await answer(scope, receive, send)

        return ask_then_answer

    def _own(self) -> list[Family]:
        living = self._living()
        states = Counter(map(state_of, living))
        states["absent"] = max(0, self._wanted() - len(living))
        return [
            Family(
                "casproxy_worker_restarts",
                "counter",
                "Worker processes started again after one ended.",
                [("casproxy_worker_restarts_total", {}, float(self.restarts))],
            ),
            Family(
                "casproxy_workers",
                "gauge",
                "Worker processes, by what they do.",
                [("casproxy_workers", {"state": state}, float(states[state])) for state in STATES],
            ),
        ]


def state_of(worker: Worker) -> str:
    """What a worker that there is does, in one of ``STATES``."""
    if not worker.serves:
        return "starting"
    if worker.silent:
        return "silent"
    if worker.state.draining:
        return "draining"
    return "not_ready" if worker.state.not_ready else "ready"
