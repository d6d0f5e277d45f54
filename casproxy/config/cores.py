"""Owns how many cores this process may use. Refuses to know who uses them.

Both limits count: the cores it may be scheduled on (sched_setaffinity(2), a cpuset), and the processor time that its
cgroups and their ancestors allow (v2 ``cpu.max``, v1 ``cpu.cfs_quota_us`` over ``cpu.cfs_period_us``). A container with
``cpus: 2`` on a machine of 64 cores has two.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from casproxy.config.cgroup import group_directories, read_text


def worker_count(configured: int) -> int:
    """What ``server.workers`` asks for; 0 (``auto``) stands for the cores."""
    return configured or usable_cores()


def usable_cores(root: Path = Path("/")) -> int:
    """Cores, at least one; a part of a core that is allowed counts as a whole. ``root``: where /proc and /sys are."""
    allowed = min(_quotas(root), default=math.inf)
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), allowed)))


def _quotas(root: Path) -> Iterator[float]:
    for version, group in group_directories(root, "cpu"):
        if version == 2:
            quota, _, period = read_text(group / "cpu.max").partition(" ")
        else:
            quota, period = read_text(group / "cpu.cfs_quota_us"), read_text(group / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):  # no limit is "max" in v2 and -1 in v1
            yield int(quota) / int(period)
