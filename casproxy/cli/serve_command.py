"""Owns ``casproxy serve``: configuration in, a process that serves until told to stop. Refuses to know the parts."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``casproxy serve``."""
    parser = commands.add_parser(
        "serve",
        help="serve in production",
        description="Serve the gRPC, HTTP and metrics ports until SIGTERM or Ctrl-C, then drain: calls in flight may "
        "end within server.drain_grace; a second signal ends everything at once.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--conf",
        "-conf",
        type=Path,
        required=True,
        metavar="PATH",
        help="a YAML file, or a directory whose YAML files are merged in name order",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import os

    import structlog
    import trio

    from casproxy.config.cores import worker_count
    from casproxy.config.load import load
    from casproxy.observe import log
    from casproxy.ports import open_ports

    loaded = load(args.conf, os.environ)
    config = loaded.config
    log.configure(config.observability.log.level, config.observability.log.format)
    for warning in loaded.warnings:
        structlog.get_logger("casproxy.config").warning(warning)
    workers = worker_count(config.server.workers)
    with open_ports(config) as ports:
        if workers == 1:
            from casproxy.app import run

            trio.run(run, config, ports)
        else:
            from casproxy.workers.supervisor import supervise

            trio.run(supervise, config, ports, workers)
    return 0
