"""Look into the newest wheel of a directory, install it into an empty environment and start it.

Owns the last look at what users get: the package and its types, no tests, a command that starts.
Refuses to know how the wheel was built. Usage: ``check_wheel.py dist``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

_REQUIRED = (
    "casproxy/py.typed",
    "casproxy/cli/main.py",
    "casproxy/_proto/google/bytestream/bytestream_pb2.py",
    "casproxy/_proto/google/bytestream/bytestream_pb2.pyi",
)


def main(directory: Path) -> None:
    """Exit with a sentence when something is wrong."""
    wheel = max(directory.glob("casproxy-*.whl"), key=lambda path: path.stat().st_mtime)
    names = set(zipfile.ZipFile(wheel).namelist())
    missing = [name for name in _REQUIRED if name not in names]
    strangers = sorted(name for name in names if not name.startswith("casproxy/") and ".dist-info/" not in name)
    if missing or strangers:
        sys.exit(f"{wheel.name}: missing {missing}, does not belong {strangers}")
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        sys.exit(f"{wheel.name}: no LICENSE")
    with tempfile.TemporaryDirectory() as empty:
        _start(wheel, Path(empty))


def _start(wheel: Path, environment: Path) -> None:
    venv.create(environment, with_pip=True)
    subprocess.run([environment / "bin" / "pip", "install", "-q", wheel], check=True)
    for flag in ("--version", "--help"):
        subprocess.run([environment / "bin" / "casproxy", flag], check=True, stdout=subprocess.DEVNULL)
    print(f"{wheel.name}: complete, installs and starts")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
