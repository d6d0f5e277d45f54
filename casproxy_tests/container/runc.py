"""Owns running an unpacked image as an engine does: an OCI runtime bundle for runc. Knows no chart and no server.

The container has its own processes, mounts and hostname, no capability, no way to gain one, and limits by cgroup; its
network is the machine's, so that tests reach it and it reaches their registries. Source: OCI runtime-spec, config.md.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casproxy_tests.container.build import Image
from casproxy_tests.real import require_real

_SECONDS = 60
_CPU_PERIOD_MICROSECONDS = 100_000


@dataclass(frozen=True, slots=True)
class Settings:
    """``mounts``: directories by where they are mounted, read-only. ``memory`` in bytes, ``cpus`` in cores (0: all)."""

    mounts: Mapping[str, Path]
    environ: Mapping[str, str]
    memory: int
    cpus: float


@dataclass(frozen=True, slots=True)
class Container:
    """A running container. ``log`` is what it writes."""

    name: str
    process: subprocess.Popen[bytes]
    state: Path
    log: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """One more process inside, to its end."""
        arguments = ["runc", "--root", str(self.state), "exec", self.name, *command]
        return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=_SECONDS)

    def peak_memory(self) -> int:
        """The most that its cgroup has been charged, page cache and kernel memory included, in bytes."""
        return int(self._memory_file("memory.max_usage_in_bytes", "memory.peak").read_text())

    def stop(self) -> int:
        """SIGTERM, as an engine does; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_SECONDS)

    def _memory_file(self, v1: str, v2: str) -> Path:
        old = Path("/sys/fs/cgroup/memory", self.name, v1)
        return old if old.exists() else Path("/sys/fs/cgroup", self.name, v2)


@contextmanager
def running_container(image: Image, directory: Path, settings: Settings) -> Iterator[Container]:
    """The image's entry point from here to the end of the block; whatever happens, nothing of it is left."""
    require_real("runc", "running a container")
    name = f"casproxy-test-{uuid.uuid4().hex[:12]}"
    state, log = directory / "runc", directory / "container.log"
    (directory / "config.json").write_text(json.dumps(_spec(image, name, settings)))
    with log.open("wb") as out:
        command = ["runc", "--root", str(state), "run", "--bundle", str(directory), name]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield Container(name, process, state, log)
    finally:
        subprocess.run(["runc", "--root", str(state), "delete", "--force", name], check=False, capture_output=True)
        process.wait(_SECONDS)


def _spec(image: Image, name: str, settings: Settings) -> dict[str, Any]:
    user, _, group = image.config["User"].partition(":")
    environ = [*image.config["Env"], *(f"{key}={value}" for key, value in settings.environ.items())]
    none: Sequence[str] = ()
    kinds = ("bounding", "effective", "permitted", "inheritable", "ambient")
    return {
        "ociVersion": "1.0.2",
        "hostname": "casproxy",
        "root": {"path": str(image.root), "readonly": True},
        "process": {
            "user": {"uid": int(user), "gid": int(group)},
            "args": image.config["Entrypoint"],
            "env": environ,
            "cwd": image.config.get("WorkingDir") or "/",
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(kinds, none),
        },
        "mounts": [*_system_mounts(), *(_bind(source, at) for at, source in settings.mounts.items())],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")],
            "cgroupsPath": f"/{name}",
            "resources": _resources(settings),
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
        },
    }


def _resources(settings: Settings) -> dict[str, Any]:
    quota = int(settings.cpus * _CPU_PERIOD_MICROSECONDS)
    cpu = {"cpu": {"quota": quota, "period": _CPU_PERIOD_MICROSECONDS}} if quota else {}
    return {"memory": {"limit": settings.memory}, "devices": [{"allow": False, "access": "rwm"}], **cpu}


def _system_mounts() -> list[dict[str, Any]]:
    """What every engine mounts."""
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "ro"]},
    ]


def _bind(source: Path, at: str) -> dict[str, Any]:
    assert os.access(source, os.R_OK)
    return {"destination": at, "type": "none", "source": str(source), "options": ["rbind", "ro", "nosuid", "nodev"]}
