"""Owns ``casproxy dev``: a whole service on this machine from nothing. Refuses to know the parts."""

from __future__ import annotations

import argparse
from pathlib import Path

from casproxy.cli.parser import add_output_flag


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``casproxy dev``."""
    parser = commands.add_parser(
        "dev",
        help="serve from ./.casproxy, nothing to set up",
        description="Make keys, tokens, a secret and a store under ./.casproxy, serve from there on the loopback, and "
        "print what to try next. What is stored survives a restart.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dir", type=Path, default=Path(".casproxy"), metavar="DIR", help="work here, not in .casproxy"
    )
    for name, default in (("grpc", 9001), ("http", 8001), ("metrics", 5001)):
        parser.add_argument(
            f"--{name}-port",
            type=_port,
            metavar="PORT",
            help=f"port for {name}; 0 takes any free one (default: {default}, or the next free one)",
        )
    add_output_flag(parser)
    parser.set_defaults(run=_run)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 to 65535")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    from casproxy.cli.dev_session import serve

    serve(args.dir, {"grpc": args.grpc_port, "http": args.http_port, "metrics": args.metrics_port}, args.output)
    return 0
