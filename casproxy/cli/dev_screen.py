"""Owns what ``casproxy dev`` shows: where it serves, how the first trip went, what to type next.

Refuses to know how any of it came about. Colour on a terminal, the same words without it elsewhere; no line is ever
wrapped, so that a command can be copied whole.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from rich.text import Text

from casproxy import __version__
from casproxy.auth.claims import Role
from casproxy.cli.console import Console
from casproxy.cli.dev_file import DEV_FILE
from casproxy.cli.text import print_json
from casproxy.dev.place import Place
from casproxy.dev.trial import Trial


def show(place: Place, *, grpc: str, http: str, metrics: str, trial: Trial) -> None:
    """Print everything a newcomer needs, on standard output."""
    console = Console(soft_wrap=True)
    console.print(Text(f"casproxy {__version__}", style="bold"), Text(f"serving from {place.root}/"))
    for name, address in (("gRPC", grpc), ("web page", f"http://{http}/"), ("metrics", f"http://{metrics}/metrics")):
        console.print(Text(f"  {name:<8}"), Text(address, style="cyan"))
    console.print(Text(trial.sentence(), style="green"))
    console.print(Text("Try it from another terminal, in this directory:"))
    for command in commands(place, grpc, trial):
        console.print(Text(f"  {command}", style="bold cyan"))
    console.print(Text("Ready. Ctrl-C stops it; what is stored stays."))
    sys.stdout.flush()


def show_json(place: Place, *, grpc: str, http: str, metrics: str, trial: Trial) -> None:
    """The same as one JSON object on one line, for a program that waits until the server is ready."""
    print_json(
        {
            "version": __version__,
            "directory": str(place.root),
            "grpc": grpc,
            "http": http,
            "metrics": metrics,
            "digest": str(trial.digest),
            "commands": commands(place, grpc, trial),
        }
    )
    sys.stdout.flush()


def commands(place: Place, grpc: str, trial: Trial) -> tuple[str, str]:
    """The upload and the download to copy, complete for a shell in the current directory."""
    return (
        f"{_program()} upload{_flags(place, grpc, Role.UPLOADER)} {_quote(place.hello)}",
        f"{_program()} download{_flags(place, grpc, Role.DOWNLOADER)} {trial.digest} -o -",
    )


def _flags(place: Place, grpc: str, role: Role) -> str:
    if place.dev_file == DEV_FILE:
        return ""  # found without being told
    return f" --addr {grpc} --insecure --token-file {_quote(place.token_file(role))}"


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


def _program() -> str:
    """How the user called us: the bare name when the PATH leads to the same file, else the path."""
    called = Path(sys.argv[0])
    found = shutil.which("casproxy")
    if called.name != "casproxy" or (found is not None and Path(found).resolve() == called.resolve()):
        return "casproxy"
    return _quote(called)
