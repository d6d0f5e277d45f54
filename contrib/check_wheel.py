"""Look into the newest wheel of a directory, install it into an empty environment and use it as a newcomer does.

Owns the last look at what users get: exactly the package's files that are in git, and a program that serves, takes an
artifact and gives it back. Refuses to know how the wheel was built. Usage: ``python -m contrib.check_wheel dist``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_SECONDS = 60
_CONTENT = b"what a newcomer has at hand\n"
_ANY_PORTS = ("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")


def main(directory: Path) -> None:
    """Exit with a sentence when something is wrong."""
    wheel = newest_wheel(directory)
    check_files(wheel)
    with installed(wheel) as environment:
        use(environment)
    print(f"{wheel.name}: complete, installs, serves, takes an artifact and gives it back")


def newest_wheel(directory: Path) -> Path:
    """The wheel that was built last."""
    return max(directory.glob("casproxy-*.whl"), key=lambda path: path.stat().st_mtime)


def check_files(wheel: Path) -> None:
    """Exit unless the wheel holds the package as git knows it, its licence, and nothing else."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    packed = {name for name in names if ".dist-info/" not in name}
    tracked = set(_output("git", "-C", ROOT, "ls-files", "-z", "casproxy").rstrip("\0").split("\0"))
    if packed != tracked:
        missing, strangers = sorted(tracked - packed), sorted(packed - tracked)
        sys.exit(f"{wheel.name}: missing {missing}; does not belong or is not in git: {strangers}")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        sys.exit(f"{wheel.name}: no LICENSE")


@contextmanager
def installed(wheel: Path) -> Iterator[Path]:
    """An environment with the wheel and what it needs, not even pip besides; gone at the end of the block."""
    with tempfile.TemporaryDirectory() as name:
        environment = Path(name, "environment")
        venv.create(environment, with_pip=False, symlinks=True)
        pip = (sys.executable, "-m", "pip", "--python", environment / "bin/python")
        _output(*pip, "install", "-q", wheel.resolve(), cwd=Path(name))
        yield environment


def use(environment: Path) -> None:
    """``casproxy dev``, an upload, a download; exits when the bytes do not come back."""
    program = environment / "bin/casproxy"
    for flag in ("--version", "--help"):
        _output(program, flag)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "file").write_bytes(_CONTENT)
        with _serving(program, directory):
            digest = _output(program, "upload", "file", cwd=directory).split()[0]
            _output(program, "download", digest, "-o", "copy", cwd=directory)
        if (directory / "copy").read_bytes() != _CONTENT:
            sys.exit(f"{program}: what came back is not what was uploaded")


@contextmanager
def _serving(program: Path, directory: Path) -> Iterator[None]:
    """``casproxy dev`` from when it says that it is ready to a SIGTERM at the end of the block."""
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(
            [program, "dev", *_ANY_PORTS], cwd=directory, stdout=subprocess.PIPE, stderr=log, text=True
        ) as server,
    ):
        try:
            if server.stdout is None or not any(line.startswith("Ready.") for line in server.stdout):
                sys.exit(f"casproxy dev ended: {(directory / 'log').read_text()}")
            yield
            server.terminate()
            if server.wait(_SECONDS) != 0:
                sys.exit(f"casproxy dev ended badly: {(directory / 'log').read_text()}")
        finally:
            server.kill()


def _output(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command prints; exits with its words when it fails. It sees the wheel's modules, never the checkout's."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr or done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))
