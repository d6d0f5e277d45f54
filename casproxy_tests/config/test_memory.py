"""The memory budget, from cgroup files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from casproxy.config.memory import DEFAULT_BUDGET, cgroup_memory_limit, memory_budget

MIB = 1 << 20


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{512 * MIB}\n"}, 512 * MIB),
        (
            {
                "proc/self/cgroup": "0::/kubepods/pod1\n",
                "sys/fs/cgroup/kubepods/pod1/memory.max": "max\n",
                "sys/fs/cgroup/kubepods/memory.max": f"{64 * MIB}\n",
                "sys/fs/cgroup/memory.max": f"{128 * MIB}\n",
            },
            64 * MIB,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/docker/abc\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{256 * MIB}\n",
            },
            256 * MIB,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "nonsense\n\n:::\n"}, None),
    ],
    ids=["no cgroups", "v2 max", "v2 limit", "v2 ancestors", "v1 other namespace", "v1 no limit", "nonsense"],
)
def test_reads_the_smallest_limit(files: dict[str, str], limit: int | None, tmp_path: Path) -> None:
    assert cgroup_memory_limit(put(tmp_path, files)) == limit


def test_the_budget_is_a_quarter_of_a_small_limit(tmp_path: Path) -> None:
    root = put(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{512 * MIB}\n"})
    assert memory_budget(None, root=root) == 128 * MIB


def test_the_budget_is_256_mib_at_most_by_itself(tmp_path: Path) -> None:
    root = put(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{8192 * MIB}\n"})
    assert memory_budget(None, root=root) == DEFAULT_BUDGET == 256 * MIB
    assert memory_budget(None, root=tmp_path / "elsewhere") == DEFAULT_BUDGET


def test_a_configured_budget_wins(tmp_path: Path) -> None:
    root = put(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n"})
    assert memory_budget(MIB, root=root) == MIB
