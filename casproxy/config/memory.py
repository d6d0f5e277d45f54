"""Owns how much memory payload may take: a share of what the cgroup allows. Refuses to know who spends it.

``server.memory_budget`` wins; without it the budget is 256 MiB or a quarter of the smallest limit of this process's
cgroups (v2 ``memory.max``, v1 ``memory.limit_in_bytes``), whichever is less. Sources: the kernel's
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from casproxy.config.cgroup import group_directories, read_text

DEFAULT_BUDGET = 256 << 20


def memory_budget(configured: int | None, *, root: Path = Path("/")) -> int:
    """Payload bytes this process may hold. ``root`` is where /proc and /sys are looked for."""
    if configured is not None:
        return configured
    limit = cgroup_memory_limit(root)
    return DEFAULT_BUDGET if limit is None else min(DEFAULT_BUDGET, limit // 4)


def cgroup_memory_limit(root: Path = Path("/")) -> int | None:
    """The smallest memory limit of this process's cgroups and their ancestors, in bytes; None when there is none."""
    return min(_limits(root), default=None)


def _limits(root: Path) -> Iterator[int]:
    for version, group in group_directories(root, "memory"):
        text = read_text(group / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        # v2 says "max" for no limit, v1 a number close to 2**63.
        if text.isdigit() and int(text) < 2**62:
            yield int(text)
