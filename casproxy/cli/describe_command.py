"""Owns ``casproxy describe``: what is stored under a digest. Refuses to know how it is asked (``client``)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from casproxy.cli.connection import add_connection_flags, find_connection
from casproxy.cli.digests import digest_argument
from casproxy.cli.text import human_size, print_fields, print_json

if TYPE_CHECKING:
    from casproxy.cli.connection import Connection
    from casproxy.digest import Digest
    from casproxy.storage.api import Resource


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "describe",
        help="show name and size of an artifact",
        description="Show name and size of a stored artifact. Exit code 3 when nothing is stored under the digest.",
    )
    parser.add_argument("digest", metavar="DIGEST", nargs="?", help="sha256: and 64 hex digits")
    add_connection_flags(parser, default_timeout="30", retries=True)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from casproxy.auth.claims import Role
    from casproxy.cli.session import run

    digest = digest_argument(args.digest)
    connection = find_connection(args, Role.DOWNLOADER)
    resource = run(lambda: _describe(connection, digest, args))
    if args.output == "json":
        print_json({"digest": str(resource.digest), "file_name": resource.file_name, "size": resource.size})
    else:
        print_fields({"digest": str(resource.digest), "name": resource.file_name, "size": _size(resource.size)})
    return 0


async def _describe(connection: Connection, digest: Digest, args: argparse.Namespace) -> Resource:
    from casproxy.client.client import UNARY_TIMEOUT

    async with connection.open(args.retries) as client:
        return await client.describe(digest, timeout=args.timeout or UNARY_TIMEOUT)


def _size(size: int) -> str:
    return f"{size} bytes" if size < 1024 else f"{size} bytes ({human_size(size)})"
