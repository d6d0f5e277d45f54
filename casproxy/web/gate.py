"""Owns how many transfers there are at once on the HTTP port. Refuses to know what they transfer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from casproxy.web.errors import ServerBusy


class Gate:
    """Lets at most ``most`` transfers in, and no new one while ``draining``. ``on_limit`` is told the limit's name."""

    def __init__(self, most: int, draining: Callable[[], bool], on_limit: Callable[[str], None]) -> None:
        self._most = most
        self._draining = draining
        self._on_limit = on_limit
        self.inside = 0
        """Transfers in flight."""

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place for one transfer; raises ``ServerBusy`` when there is none."""
        if self._draining():
            raise ServerBusy("the server is shutting down; try again")
        if self.inside >= self._most:
            self._on_limit("http_transfers")
            raise ServerBusy("too many transfers at once; try again")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
