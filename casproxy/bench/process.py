"""Owns what the kernel tells of a process on this machine: its processor time and its memory. Linux only (proc(5))."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """``cpu``: seconds of user and system time. ``rss``, ``peak``: bytes; the peak since the meter was made."""

    cpu: float
    rss: int
    peak: int


class ProcessMeter:
    """Reads one process. Raises ``OSError`` when it is gone or not ours."""

    def __init__(self, process_id: int) -> None:
        self._proc = Path("/proc", str(process_id))
        (self._proc / "clear_refs").write_text("5")  # forgets the highest RSS so far

    def read(self) -> Usage:
        """What it has used until now."""
        fields = dict(line.split(":", 1) for line in (self._proc / "status").read_text().splitlines())
        return Usage(self._cpu_seconds(), _kib(fields["VmRSS"]), _kib(fields["VmHWM"]))

    def _cpu_seconds(self) -> float:
        """From the scheduler's own nanoseconds, of all threads; ticks of 10 ms would be too coarse for a short run."""
        living = 0.0
        for thread in (self._proc / "task").iterdir():
            try:
                living += int((thread / "schedstat").read_text().split()[0]) / 1e9
            except OSError:  # a thread that has just ended; the ticks below know of it
                continue
        stat = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return max(living, (int(stat[11]) + int(stat[12])) / _TICKS)


def _kib(field: str) -> int:
    return int(field.split()[0]) * 1024


def machine() -> dict[str, str | int]:
    """What a figure should be read with: processor, cores, memory in bytes, kernel, Python."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else os.uname().machine,
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": os.uname().release,
    }
