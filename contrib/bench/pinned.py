"""Run a program on some cores only: ``python -m contrib.bench.pinned 0,1 PROGRAM ARGUMENT…``; its children as well."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    os.sched_setaffinity(0, map(int, sys.argv[1].split(",")))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the caller's own command
