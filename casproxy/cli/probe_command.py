"""Owns ``casproxy probe``: is the server of this configuration, on this machine, well? For a container's health check.

It asks over HTTP what Kubernetes' probes ask, and finds the port in the configuration the server was started with, so
that one command in an image suits every configuration. Refuses to know what readiness means (``/statusz`` does).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from casproxy.cli.parser import add_output_flag

if TYPE_CHECKING:
    from http.client import HTTPConnection


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``casproxy probe``."""
    parser = commands.add_parser(
        "probe",
        help="check the health of the server on this machine",
        description="Ask the server that runs on this machine with this configuration whether it is ready, as a "
        "container's health check. Needs no token. Exit code 1 when it is not, or does not answer.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--conf", "-conf", type=Path, required=True, metavar="PATH", help="the configuration the server was given"
    )
    parser.add_argument("--live", action="store_true", help="only ask whether it answers, ready or not")
    parser.add_argument(
        "--timeout", type=float, default=3.0, metavar="SECONDS", help="longest wait for the answer (default: 3)"
    )
    add_output_flag(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import os

    from casproxy.cli.text import print_json
    from casproxy.config.load import load
    from casproxy.listen import reached_at

    http = load(args.conf, os.environ).config.server.http
    host, port = reached_at(http.addr, setting="server.http.addr", network=http.network)
    path = "/statusz" if args.live else "/statusz?readiness=1"
    status, text = _ask(_connection(host, port, args.timeout, tls=http.tls_config is not None), path)
    state, reason = "live" if args.live else "ready", "" if status == 200 else _reason(status, text)
    if args.output == "json":
        print_json({state: not reason, "reason": reason})
    else:
        print(reason or state)
    return 1 if reason else 0


def _connection(host: str, port: int, timeout: float, *, tls: bool) -> HTTPConnection:
    """Not opened yet. Whose certificate it is does not matter: health is asked for, and nothing is told."""
    import http.client
    import ssl

    if not tls:
        return http.client.HTTPConnection(host, port, timeout=timeout)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)


def _ask(connection: HTTPConnection, path: str) -> tuple[int, str]:
    """Status and body of one answer; ``OSError``, named after the address, when there is none."""
    import http.client
    from contextlib import closing

    address = f"{connection.host}:{connection.port}"
    with closing(connection):
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read(64 << 10).decode("utf-8", "replace")
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), address) from error
        except http.client.HTTPException as error:
            raise OSError(None, "what answers there is no HTTP server", address) from error


def _reason(status: int, text: str) -> str:
    """One line for the operator: the server's own words if it gave any."""
    import json

    from casproxy.cli.text import printable

    try:
        return printable(str(json.loads(text)["message"]))
    except (ValueError, TypeError, KeyError):
        return f"HTTP status {status}"
