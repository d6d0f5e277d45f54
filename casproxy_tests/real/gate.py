"""Owns a door in front of a real server that a test can shut, jam or answer at itself. Knows TCP and nothing above.

One thread does everything, so that a client which blocks the test's own event loop is served as well.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import TracebackType

from casproxy_tests.real.process import wait_until

_HOST = "127.0.0.1"


@dataclass(slots=True, eq=False)
class _Pair:
    """A client's connection and ours to the server for it."""

    client: socket.socket
    server: socket.socket
    asked: bytes = b""

    def other(self, end: socket.socket) -> socket.socket:
        return self.server if end is self.client else self.client


@dataclass(slots=True)
class _State:
    listener: socket.socket | None
    pairs: list[_Pair] = field(default_factory=list)
    swallowing: threading.Event | None = None
    answer: bytes | None = None
    asked: bytearray = field(default_factory=bytearray)
    closing: bool = False

    def answer_with(self, answer: bytes | None, asked: bytearray) -> None:
        self.answer, self.asked = answer, asked


class Gate:
    """Connections to ``port`` lead to ``upstream`` on this host, unless a test wants otherwise."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._state = _State(_listen(0))
        assert self._state.listener is not None
        self.port: int = self._state.listener.getsockname()[1]
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._bell, self._ear = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="gate")
        self._thread.start()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._order(self._close)
        self._thread.join()
        self._bell.close()
        self._ear.close()

    def shut(self) -> None:
        """Connections in use break and new ones are refused."""
        self._order(self._shut)

    def reopen(self) -> None:
        """As before, at the same port."""
        self._order(self._reopen)

    @contextmanager
    def jammed(self) -> Iterator[threading.Event]:
        """Within the block nothing is answered; the event tells that somebody has asked. Then the connections break."""
        begun = threading.Event()
        self._order(lambda: setattr(self._state, "swallowing", begun))
        try:
            yield begun
        finally:
            self._order(self._unjam)

    @contextmanager
    def answering(
        self, status: str, body: str, *, headers: str = "Content-Type: application/json\r\n"
    ) -> Iterator[bytearray]:
        """Within the block every HTTP request is answered like this; the requests are given, one after another."""
        answer = (
            f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body.encode())}\r\nConnection: close\r\n\r\n{body}"
        )
        asked = bytearray()
        self._order(lambda: self._state.answer_with(answer.encode(), asked))
        try:
            yield asked
        finally:
            self._order(lambda: self._state.answer_with(None, bytearray()))

    def wait_idle(self) -> None:
        """Return once no client is connected any more."""
        wait_until(lambda: not self._state.pairs)

    # -- in the gate's own thread ---------------------------------------------------------------

    def _order(self, work: Callable[[], None]) -> None:
        done = threading.Event()

        def obey() -> None:
            work()
            done.set()

        self._orders.put(obey)
        self._bell.send(b"!")
        assert done.wait(10)

    def _run(self) -> None:
        state = self._state
        while not state.closing:
            ends = [end for pair in state.pairs for end in (pair.client, pair.server)]
            listeners = [state.listener] if state.listener is not None else []
            readable, _, _ = select.select([self._ear, *listeners, *ends], [], [])
            for end in readable:
                if end is self._ear:
                    self._ear.recv(1)
                    self._orders.get()()
                elif end is state.listener:
                    self._accept(end)
                else:
                    self._forward(end)

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        try:
            server = socket.create_connection((_HOST, self._upstream))
        except OSError:
            client.close()
        else:
            self._state.pairs.append(_Pair(client, server))

    def _forward(self, end: socket.socket) -> None:
        pair = next((pair for pair in self._state.pairs if end in (pair.client, pair.server)), None)
        if pair is None:  # dropped in this very round
            return
        try:
            data = end.recv(65536)
            if not data:
                self._drop(pair)
            elif self._state.swallowing is not None:
                if end is pair.client:
                    self._state.swallowing.set()
            elif self._state.answer is not None and end is pair.client:
                self._answer(pair, data)
            else:
                pair.other(end).sendall(data)
        except OSError:
            self._drop(pair)

    def _answer(self, pair: _Pair, data: bytes) -> None:
        pair.asked += data
        head, complete, body = pair.asked.partition(b"\r\n\r\n")
        if not complete:
            return
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if len(body) >= int(lengths[0] if lengths else 0):
            assert self._state.answer is not None
            self._state.asked += pair.asked
            pair.client.sendall(self._state.answer)
            self._drop(pair)

    def _drop(self, pair: _Pair) -> None:
        for end in (pair.client, pair.server):
            with suppress(OSError):  # the peer may have left first
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._state.pairs.remove(pair)  # last: ``wait_idle`` promises that nothing is open

    def _shut(self) -> None:
        if self._state.listener is not None:
            self._state.listener.close()
            self._state.listener = None
        for pair in list(self._state.pairs):
            self._drop(pair)

    def _reopen(self) -> None:
        if self._state.listener is None:
            self._state.listener = _listen(self.port)

    def _unjam(self) -> None:
        self._state.swallowing = None
        for pair in list(self._state.pairs):
            self._drop(pair)

    def _close(self) -> None:
        self._shut()
        self._state.closing = True


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((_HOST, port))
    listener.listen(128)
    return listener
