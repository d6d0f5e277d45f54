"""Owns finding what the kernel's control groups allow this process. Refuses to know what the figures mean.

Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def group_directories(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Where limits may be, as (version of the hierarchy, directory): this process's own cgroup and every ancestor, in
    v2's tree and in v1's tree of ``controller``. ``root`` is where /proc and /sys are looked for.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            version, tree = 2, root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            version, tree = 1, root / "sys/fs/cgroup" / controller
        else:
            continue
        path = PurePosixPath("/", group)
        for ancestor in (path, *path.parents):
            yield version, tree / ancestor.relative_to("/")


def read_text(file: Path) -> str:
    """What stands in a cgroup's file; empty when it cannot be read: not this hierarchy, or another namespace's path."""
    try:
        return file.read_text("ascii").strip()
    except OSError:
        return ""
