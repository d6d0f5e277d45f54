"""Measure uploads and downloads of one artifact through the command line: ``transfer.py [--size-mib N] [--rounds N]``.

Owns the figures one can have today: throughput as a user of the command line sees it, digest, start of Python and
disk included, and the processor time of the server for it. Refuses to compare them with anything.
Server, client and store share one machine, so the figures are a floor.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

_MIB = 1 << 20
_CASPROXY = Path(sys.executable).with_name("casproxy")
_START_SECONDS = 30.0


def main() -> None:
    """Print one line per transfer: what, MB/s (10^6 bytes), the server's CPU seconds per GB (10^9 bytes)."""
    parser = argparse.ArgumentParser(description="Measure uploads and downloads through the command line.")
    parser.add_argument("--size-mib", type=int, default=256, help="size of the artifact (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="casproxy-bench-") as name:
        place = Path(name)
        with _server(place) as server:
            for number in range(options.rounds):
                _round(server, place, options.size_mib, f"artifact-{number}")


def _round(server: psutil.Process, place: Path, size_mib: int, name: str) -> None:
    source, copy = place / name, place / f"{name}.copy"
    with source.open("wb") as file:
        for _ in range(size_mib):
            file.write(os.urandom(_MIB))
    size = size_mib * _MIB
    digest = _measure(server, "upload", size, place, ["upload", source.name]).split()[0]
    _measure(server, "download", size, place, ["download", digest, "-o", copy.name])
    source.unlink()
    copy.unlink()


def _measure(server: psutil.Process, what: str, size: int, place: Path, arguments: Sequence[str]) -> str:
    cpu, clock = _cpu_seconds(server), time.perf_counter()
    done = subprocess.run([_CASPROXY, *arguments], cwd=place, check=True, stdout=subprocess.PIPE, text=True)
    seconds, cpu = time.perf_counter() - clock, _cpu_seconds(server) - cpu
    print(f"{what:<9}{size / seconds / 1e6:7.0f} MB/s   server {cpu / (size / 1e9):5.2f} CPU s/GB", flush=True)
    return done.stdout


def _cpu_seconds(server: psutil.Process) -> float:
    times = server.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _server(place: Path) -> Iterator[psutil.Process]:
    """``casproxy dev`` in an empty directory, up to its ``dev.json``."""
    log = place / "server.log"
    with log.open("wb") as file, subprocess.Popen([_CASPROXY, "dev"], cwd=place, stdout=file, stderr=file) as process:
        try:
            give_up = time.monotonic() + _START_SECONDS
            while not (place / ".casproxy" / "dev.json").exists():
                if process.poll() is not None or time.monotonic() > give_up:
                    sys.exit(f"casproxy dev did not start:\n{log.read_text()}")
                time.sleep(0.05)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
