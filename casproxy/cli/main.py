"""Owns the ``casproxy`` command: finds the sub-command, parses, runs, exits. Refuses to know what any command does.

Exit codes, the same for every command::

    0  ok            2  usage                 4  unauthenticated     130  interrupted (Ctrl-C)
    1  failed        3  artifact not found    5  integrity           141  the reader of our output left

A command is a module ``<name>_command.py`` whose ``add_parser`` is cheap and whose ``_run`` imports what it needs:
``casproxy --help`` answers at once although some commands load cloud SDKs.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from casproxy import __version__
from casproxy.cli.parser import Parser, UsageError, parse, unknown_command

COMMANDS = (
    "dev",
    "serve",
    "upload",
    "download",
    "describe",
    "status",
    "probe",
    "token",
    "keys",
    "secrets",
    "config",
    "bench",
    "completion",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; ``casproxy`` on the command line ends up here."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _dispatch(arguments)
        finally:
            sys.stdout.flush()  # here, where a closed pipe is still an exception with an answer
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        from casproxy.cli.errors import report

        return report(error)


def build_parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser with these sub-commands; only their modules are imported."""
    parser = Parser(
        prog="casproxy",
        description="Content-addressable storage proxy: artifacts in over gRPC, named by sha256, verified both ways.",
        epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 unauthenticated, 5 integrity.",
    )
    parser.add_argument("--version", action="version", version=f"casproxy {__version__}")
    added = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in commands:
        importlib.import_module(f"casproxy.cli.{name}_command").add_parser(added)
    return parser


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    if not first.startswith("-") and first not in COMMANDS:
        raise UsageError(unknown_command(first, COMMANDS))
    parsed = parse(build_parser((first,) if first in COMMANDS else COMMANDS), arguments)
    code: int = parsed.run(parsed)
    return code


if __name__ == "__main__":
    sys.exit(main())
