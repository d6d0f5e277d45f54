"""What hostile peers cost a well-behaved one: latency beside each attack, and ten thousand open streams.

    python -m contrib.bench.hostile latency [--seconds 3]
    python -m contrib.bench.hostile streams [--connections 10 --streams 1000]

Server, attacker and neighbour are processes of their own; the server is the wire with an echo behind it, no store. With
``--check`` the exit code is 1 when a figure is worse than what docs/explanation/abuse.md promises.
"""

from __future__ import annotations

import argparse
import math
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import trio

from casproxy.rpc.api import Method, MethodInfo, MethodKind, ServerCall
from casproxy.rpc.channel import Channel, open_channel
from casproxy.rpc.server import Server, ServerSettings
from contrib.bench.attacks import ATTACKS, DATA, PREFACE, SETTINGS, WINDOW_UPDATE, attack, frame, request

ECHO = MethodInfo("bench", "Echo", MethodKind.UNARY)
STALL = MethodInfo("bench", "Stall", MethodKind.BIDI_STREAM)
BUDGET = 64 << 20
MOST_LATENCY_RATIO = 2.0
MOST_BYTES_PER_STREAM = 20 << 10
LEAST_THROUGHPUT_RATIO = 0.9


# -- the server -----------------------------------------------------------------------------------------


async def _echo(call: ServerCall) -> None:
    await call.send_message(await call.receive_message() or b"")


async def _stall(call: ServerCall) -> None:
    parts = await call.receive_parts()  # what is there of the first message; the rest is never taken
    await trio.sleep_forever()
    del parts


async def _serve() -> None:
    server = Server(
        [Method(ECHO, _echo), Method(STALL, _stall)], settings=ServerSettings(memory_budget=BUDGET, drain_grace=0)
    )
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listener.socket.getsockname()[1], flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, [listener])
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            held = sum(live._protocol._credit.held for live in server._live)
            calls = sum(len(live._calls) for live in server._live)
            print(calls, held, server.budget.exposed, flush=True)
        nursery.cancel_scope.cancel()


class ServerProcess:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        return self._process.stdout.readline()

    def books(self) -> tuple[int, int, int]:
        """Open calls, payload bytes held, bytes exposed."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        calls, held, exposed = map(int, self._line().split())
        return calls, held, exposed

    @property
    def cpu_seconds(self) -> float:
        """Processor time used so far."""
        return sum(psutil.Process(self._process.pid).cpu_times()[:2])

    @property
    def rss(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text("ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@contextmanager
def _child(*args: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "contrib.bench.hostile", *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def _server() -> Iterator[ServerProcess]:
    with _child("serve") as process:
        yield ServerProcess(process)


# -- the neighbour --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rate:
    """Calls per second, and the server's processor seconds for each: the steadier figure on a busy machine."""

    calls: float
    cpu: float


async def _latencies(channel: Channel, seconds: float) -> list[float]:
    """Seconds of each call, one after the other, a millisecond apart."""
    taken = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        await channel.unary(ECHO.path, b"x" * 64)
        taken.append(time.perf_counter() - start)
        await trio.sleep(0.001)
    return taken


async def _rate(channel: Channel, server: ServerProcess, seconds: float) -> Rate:
    """Sixteen calls at a time."""
    done, cpu = 0, server.cpu_seconds
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:

            async def call_on() -> None:
                nonlocal done
                while True:
                    await channel.unary(ECHO.path, b"x" * 64)
                    done += 1

            for _ in range(16):
                nursery.start_soon(call_on)
    return Rate(done / seconds, (server.cpu_seconds - cpu) / done if done else math.inf)


async def _best_rate(channel: Channel, server: ServerProcess, seconds: float) -> Rate:
    """The best of three: what else the machine does only ever takes away."""
    rates = [await _rate(channel, server, seconds) for _ in range(3)]
    return Rate(max(rate.calls for rate in rates), min(rate.cpu for rate in rates))


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, math.floor(len(values) * share))]


async def measure_latency(seconds: float) -> bool:
    """Each attack beside a neighbour, and the same neighbour alone just before."""
    print(
        f"{'attack':16} {'p50 alone':>10} {'attacked':>10} {'ratio':>6} {'p99 alone':>10} {'attacked':>10} {'ratio':>6}"
    )
    good = True
    for name in ATTACKS:
        with _server() as server:
            async with open_channel("127.0.0.1", server.port) as channel:
                await _latencies(channel, 0.5)
                alone = await _latencies(channel, seconds)
                with _child("attack", name, str(server.port)):
                    await trio.sleep(0.5)
                    attacked = await _latencies(channel, seconds)
        row, ratios = [], []
        for share in (0.5, 0.99):
            before, after = _percentile(alone, share), _percentile(attacked, share)
            ratios.append(after / before)
            row += [f"{before * 1e3:8.2f}ms", f"{after * 1e3:8.2f}ms", f"{after / before:6.2f}"]
        print(f"{name:16} {' '.join(row)}", flush=True)
        good = good and max(ratios) <= MOST_LATENCY_RATIO
    return good


# -- ten thousand streams -------------------------------------------------------------------------------


class Flooder:
    """A connection with many calls open."""

    def __init__(self, port: int, streams: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, 1, 0))
        self._streams = range(1, streams * 2, 2)
        self._window = 65_535
        self._unread = b""

    def open(self) -> None:
        """Every call, with the first byte of a message."""
        for number in self._streams:
            self._socket.sendall(request(number, STALL.path) + frame(DATA, 0, number, b"\0"))
            self._window -= 1

    def _read(self, wait: float) -> bool:
        """Look for credit for the connection; False when there is none for ``wait`` seconds."""
        self._socket.settimeout(wait)
        try:
            self._unread += self._socket.recv(1 << 20)
        except (TimeoutError, BlockingIOError):
            return False
        while len(self._unread) >= 9:
            length = int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < 9 + length:
                break
            kind, stream_id = self._unread[3], int.from_bytes(self._unread[5:9], "big")
            if kind == WINDOW_UPDATE and not stream_id:
                self._window += int.from_bytes(self._unread[9:13], "big")
            self._unread = self._unread[9 + length :]
        return True

    def fill(self) -> int:
        """Fill the window of every call, as far as the connection's allows; bytes sent."""
        sent = 0
        message = struct.pack(">BI", 0, 1 << 20)[1:]
        for number in self._streams:
            left = 65_535
            while left:
                if self._window < 16_384 and not self._read(0.5) and self._window <= 0:
                    return sent
                size = min(left, 16_384, self._window)
                body = (message if left == 65_535 else b"") + bytes(size)
                self._socket.settimeout(None)
                self._socket.sendall(frame(DATA, 0, number, body[:size]))
                self._window -= size
                left -= size
                sent += size
        return sent


async def measure_streams(connections: int, streams: int, seconds: float) -> bool:
    """Open, fill, stall; what it costs in memory, and what the neighbour loses."""
    total = connections * streams
    with _server() as server:
        async with open_channel("127.0.0.1", server.port) as channel:
            await _rate(channel, server, 1.0)
            alone = await _best_rate(channel, server, seconds)
            before = server.rss
            flooders = [Flooder(server.port, streams) for _ in range(connections)]
            for flooder in flooders:
                await trio.to_thread.run_sync(flooder.open)
            while server.books()[0] < total:  # noqa: ASYNC110 - the server is another process
                await trio.sleep(0.2)
            opened = server.rss
            per_stream = (opened - before) / total
            print(f"{total} calls open with a byte sent: {per_stream:.0f} bytes of RSS each")
            beside_open = await _best_rate(channel, server, seconds)
            sent = 0
            for flooder in flooders:
                sent += await trio.to_thread.run_sync(flooder.fill)
            _, held, exposed = server.books()
            print(
                f"windows filled and stalled: {sent} bytes sent, {held} held, {exposed} exposed of {BUDGET}, "
                f"RSS {server.rss - opened} more"
            )
            beside_filled = await _best_rate(channel, server, seconds)
    ratios = []
    for name, rate in (("alone", alone), ("beside the open calls", beside_open), ("the filled ones", beside_filled)):
        ratios += [max(rate.calls / alone.calls, alone.cpu / rate.cpu)]
        print(f"neighbour {name}: {rate.calls:.0f} calls/s, {rate.cpu * 1e6:.0f} us of CPU each; {ratios[-1]:.2f}")
    return (
        per_stream <= MOST_BYTES_PER_STREAM
        and held <= BUDGET + connections * 65_535
        and min(ratios) >= LEAST_THROUGHPUT_RATIO
    )


def main() -> int:
    """One of the two measurements; the exit code."""
    random.seed(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["latency", "streams", "serve", "attack"])
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.what == "serve":
        trio.run(_serve)
        return 0
    if args.what == "attack":
        attack(args.rest[0], int(args.rest[1]))
        return 0
    if args.what == "latency":
        good = trio.run(measure_latency, args.seconds)
    else:
        good = trio.run(measure_streams, args.connections, args.streams, args.seconds)
    return 0 if good or not args.check else 1


if __name__ == "__main__":
    sys.exit(main())
