"""Owns ``casproxy upload``: files in, digests out. Refuses to know how an upload works (``client``)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from casproxy.cli.connection import add_connection_flags, find_connection
from casproxy.cli.parser import UsageError
from casproxy.cli.text import print_json, print_line, printable

if TYPE_CHECKING:
    from casproxy.cli.connection import Connection
    from casproxy.client import Client, UploadData, Uploaded

STDIN = "-"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "upload",
        help="store files and print their digests",
        description="Store files and print 'sha256:DIGEST  NAME' for each, in order. A file is hashed first, then "
        "sent; stdin and pipes are spooled to an unlinked file in the temporary directory (TMPDIR), because the digest "
        "must be known before the first byte is sent. What the server has already is not sent again.",
    )
    parser.add_argument("files", metavar="FILE", nargs="*", help="a file to store; - is stdin")
    parser.add_argument(
        "-f", "--file", metavar="FILE", dest="more", action="append", default=[], help="the same, as an option"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="the name to store; default: the file's, or the digest for stdin"
    )
    add_connection_flags(parser, default_timeout="none")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    files: list[str] = args.more + args.files
    _check(files, args.name)
    from casproxy.auth.claims import Role
    from casproxy.cli.session import run

    connection = find_connection(args, Role.UPLOADER)
    run(lambda: _upload_all(connection, files, args))
    return 0


def _check(files: list[str], name: str | None) -> None:
    if not files:
        raise UsageError("no file to upload: give FILE, or - for stdin; see 'casproxy upload --help'")
    if name is not None and len(files) > 1:
        raise UsageError("--name goes with one file only")
    if files.count(STDIN) > 1:
        raise UsageError("stdin (-) can be uploaded only once")
    for file in files:
        if file != STDIN:
            Path(file).stat()  # a misspelt last file is reported before the first one has been sent


async def _upload_all(connection: Connection, files: list[str], args: argparse.Namespace) -> None:
    async with connection.open() as client:
        for file in files:
            _print(file, await _upload(client, file, args), args.output)


async def _upload(client: Client, file: str, args: argparse.Namespace) -> Uploaded:
    import math

    from casproxy.cli.progress import progress_bar

    with progress_bar("stdin" if file == STDIN else file) as progress:
        data: UploadData = _stdin() if file == STDIN else Path(file)
        return await client.upload(data, name=args.name, timeout=args.timeout or math.inf, progress=progress)


def _stdin() -> UploadData:
    import io

    from casproxy.client.worker_file import WorkerFile

    return WorkerFile(lambda: io.FileIO(0, closefd=False))


def _print(file: str, uploaded: Uploaded, output: str) -> None:
    if output == "json":
        print_json(
            {
                "digest": str(uploaded.digest),
                "size": uploaded.size,
                "file_name": uploaded.file_name,
                "deduplicated": uploaded.deduplicated,
                "file": file,
            }
        )
    else:
        print_line(f"{uploaded.digest}  {printable(uploaded.file_name)}")
