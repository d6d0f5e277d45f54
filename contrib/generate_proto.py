"""Generate ``casproxy/_proto`` from ``proto/``, or, with ``--check``, say whether it is up to date.

Owns the way from a ``.proto`` file to a Python module. Refuses to know what the messages are for.
It needs the ``dev`` extra: grpcio-tools brings protoc, and the pinned version of it makes the output reproducible.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "proto"
TARGET = ROOT / "casproxy" / "_proto"
_PACKAGE_DOCSTRING = '''"""Generated from ``proto/`` by ``just proto``; checked in, never edited.

``google.rpc`` is not here: ``from google.rpc import status_pb2, error_details_pb2`` (googleapis-common-protos).
"""
'''


def main(arguments: list[str] | None = None) -> int:
    """Return an exit code: 0 done or up to date, 1 stale or broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when something is stale")
    check: bool = parser.parse_args(arguments).check
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory)
        if not _generate(fresh):
            return 1
        stale = sorted(_differences(fresh))
        if check:
            for path in stale:
                print(f"casproxy/_proto/{path} is stale: run `just proto`", file=sys.stderr)
            return 1 if stale else 0
        _install(fresh)
        print("\n".join(f"wrote casproxy/_proto/{path}" for path in stale) or "casproxy/_proto is up to date")
        return 0


def _generate(target: Path) -> bool:
    """Run protoc over every file, as packages. False when protoc refused; it has said why on stderr."""
    sources = sorted(path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.proto"))
    command = ["protoc", f"--proto_path={SOURCES}", f"--python_out={target}", f"--pyi_out={target}", *sources]
    if protoc.main(command) != 0:
        return False
    for directory in (target, *(path for path in target.rglob("*") if path.is_dir())):
        (directory / "__init__.py").write_text(_PACKAGE_DOCSTRING)
    return True


def _differences(fresh: Path) -> Iterator[Path]:
    """Every file that is not the same on both sides, relative to the package."""
    for path in _files(fresh) | _files(TARGET):
        ours, theirs = TARGET / path, fresh / path
        if not (ours.exists() and theirs.exists() and filecmp.cmp(ours, theirs, shallow=False)):
            yield path


def _files(directory: Path) -> set[Path]:
    return {path.relative_to(directory) for path in directory.rglob("*.py*") if path.suffix in {".py", ".pyi"}}


def _install(fresh: Path) -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    shutil.copytree(fresh, TARGET)


if __name__ == "__main__":
    sys.exit(main())
