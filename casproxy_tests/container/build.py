"""Owns building the image on a machine without an engine and without an image registry: debootstrap and buildah.

The base is what ``debian:bookworm-slim`` is made from. Everything lies in one directory; nothing of the machine's own
images is touched. Refuses to know how a container is run. ``python3 -m casproxy_tests.container.build DIRECTORY`` does
it ahead of the tests, before any package is installed: only the standard library is imported here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BASE = "localhost/debian:bookworm-slim"
TAG = "localhost/casproxy:test"
_SYSTEM_CAS = Path("/etc/ssl/certs/ca-certificates.crt")
_PIP_KEYS = ("cert", "extra-index-url", "index-url", "proxy", "timeout", "trusted-host")


@dataclass(frozen=True, slots=True)
class Image:
    """``root``: the unpacked file system. ``config``: the image's own, in Docker's spelling. ``directory``: for us."""

    root: Path
    config: dict[str, Any]
    directory: Path


def build(directory: Path) -> None:
    """The image, into ``directory``, which is gone if that fails. Needs root, buildah and debootstrap."""
    buildah = _Buildah(directory)
    try:
        _make_base(buildah, directory / "base")
        _build(buildah, directory)
    except BaseException:
        shutil.rmtree(directory)
        raise


@contextmanager
def opened(directory: Path) -> Iterator[Image]:
    """What ``build`` left in ``directory``, which is emptied at the end."""
    buildah = _Buildah(directory)
    try:
        container = buildah.run("from", TAG)
        inspected = json.loads(buildah.run("inspect", "--type", "image", TAG))
        yield Image(Path(buildah.run("mount", container)), inspected["Docker"]["config"], directory)
    finally:
        buildah.run("rm", "--all")
        shutil.rmtree(directory)


@dataclass(frozen=True, slots=True)
class _Buildah:
    """The command with a storage of its own. ``vfs`` works on every file system, ``chroot`` inside every sandbox."""

    directory: Path

    def run(self, *arguments: str | Path) -> str:
        storage: list[str | Path] = [
            "--storage-driver",
            "vfs",
            "--root",
            self.directory / "store",
            "--runroot",
            self.directory / "run",
        ]
        return _output(["buildah", *storage, *arguments])


def _make_base(buildah: _Buildah, directory: Path) -> None:
    # in a mount namespace of its own: killed half way, it leaves /proc mounted where we empty directories
    _output(["unshare", "--mount", "debootstrap", "--variant=minbase", "bookworm", directory])
    shutil.rmtree(directory / "var/cache/apt/archives")
    container = buildah.run("from", "scratch")
    buildah.run("add", "--quiet", container, directory, "/")
    buildah.run("commit", "--quiet", "--rm", container, BASE)
    shutil.rmtree(directory)


def _build(buildah: _Buildah, directory: Path) -> None:
    """As a user does, apart from the secrets: how this machine reaches its package index is none of the image's."""
    pip_conf = directory / "pip.conf"
    pip_conf.write_text(_pip_conf())
    own_cas = Path(_pip_settings().get("cert", _SYSTEM_CAS))
    options = ["--isolation", "chroot", "--format", "docker", "--build-arg", f"BASE={BASE}"]
    secrets = ["--secret", f"id=pip.conf,src={pip_conf}", "--secret", f"id=ca.pem,src={own_cas}"]
    buildah.run("build", *options, *secrets, "--build-arg", "VERSION=1.2.3", "--tag", TAG, ROOT)


def _pip_conf() -> str:
    settings = _pip_settings() | {"cert": "/run/secrets/ca.pem"}
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())


def _pip_settings() -> dict[str, str]:
    """What this machine's pip is told of its package index, by key; it says lines like ``global.cert='/a.b'``."""
    lines = _output([sys.executable, "-m", "pip", "config", "list"]).splitlines()
    pairs = ((name.rpartition(".")[2], value) for name, _, value in (line.partition("=") for line in lines))
    return {key: value.strip("'") for key, value in pairs if key in _PIP_KEYS}


def _output(command: Sequence[str | Path]) -> str:
    environ = {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, env=os.environ | environ, cwd="/"
    )
    assert done.returncode == 0, f"{command[0]} {command[-1]}: {(done.stdout + done.stderr)[-3000:]}"
    return done.stdout.strip()


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True)
    build(Path(sys.argv[1]).absolute())
