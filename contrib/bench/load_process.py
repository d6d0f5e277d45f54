"""One of several loads that run at once: ``python -m contrib.bench.load_process SECONDS [HOST:PORT]``.

Prints ``ready``, waits for a line and then for SECONDS hashes, or uploads to HOST:PORT over one connection in 16 KiB
frames with the token of the variable CASPROXY_TOKEN; prints the bytes. It is a process of its own so that no client
shares an interpreter with another, and all of them start at the same moment.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable

from casproxy.bench.artifact import Pattern
from contrib.bench.plan import MIB
from contrib.bench.raw_client import RawConnection, upload
from contrib.bench.rows_stream import WRITE, raw_messages

_ARTIFACT = 64 * MIB


def _hashing() -> Callable[[], int]:
    block, state = os.urandom(MIB), hashlib.sha256()

    def step() -> int:
        state.update(block)
        return MIB

    return step


def _uploading(address: str) -> Callable[[], int]:
    host, _, port = address.rpartition(":")
    connection = RawConnection(host, int(port), WRITE, os.environ["CASPROXY_TOKEN"])
    pattern = Pattern(_ARTIFACT)

    def step() -> int:
        upload(connection, raw_messages(pattern, pattern.next()))
        return _ARTIFACT

    return step


if __name__ == "__main__":
    seconds, work = float(sys.argv[1]), _uploading(sys.argv[2]) if len(sys.argv) > 2 else _hashing()
    work()
    print("ready", flush=True)
    sys.stdin.readline()
    done, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        done += work()
    print(done / elapsed, flush=True)
