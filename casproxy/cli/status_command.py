"""Owns ``casproxy status``: what a server is and whether it takes work. Refuses to know how it asks (``client``)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from casproxy.cli.connection import add_connection_flags, find_connection
from casproxy.cli.text import print_fields, print_json

if TYPE_CHECKING:
    from casproxy.cli.connection import Connection
    from casproxy.client import ServerInfo


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "status",
        help="show what a server is and whether it is ready",
        description="Show a server's version, the backends it serves, and whether it is ready. Needs no token. "
        "Exit code 1 when it is not ready.",
    )
    add_connection_flags(parser, default_timeout="30", token=False)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from casproxy.cli.session import run

    connection = find_connection(args)
    info, reason, trouble = run(lambda: _ask(connection, args.timeout))
    if args.output == "json":
        _print_json(info, reason, trouble)
    else:
        _print_text(info, reason, trouble)
    return 1 if reason else 0


async def _ask(connection: Connection, timeout: float | None) -> tuple[ServerInfo, str, str]:
    """What the server says of itself, why it is not ready (empty: it is), and what works badly (empty: nothing)."""
    from casproxy.client.client import UNARY_TIMEOUT
    from casproxy.rpc.errors import RpcError
    from casproxy.wire.status import StatusCode

    seconds = timeout or UNARY_TIMEOUT
    async with connection.open() as client:
        info = await client.infoz(timeout=seconds)
        try:
            trouble = await client.statusz(readiness=True, timeout=seconds)
        except RpcError as error:
            if error.code is not StatusCode.UNAVAILABLE:
                raise
            return info, error.message or "the server gave no reason", ""
        return info, "", trouble


def _print_json(info: ServerInfo, reason: str, trouble: str) -> None:
    print_json(
        {
            "version": info.version,
            "chart_version": info.chart_version,
            "backends": info.backends,
            "ready": not reason,
            "reason": reason,
            "trouble": trouble,
        }
    )


def _print_text(info: ServerInfo, reason: str, trouble: str) -> None:
    fields = {"version": info.version, "chart": info.chart_version, "backends": ", ".join(info.backends)}
    fields["ready"] = f"no: {reason}" if reason else "yes"
    fields["trouble"] = trouble
    print_fields({name: value for name, value in fields.items() if value})
