"""Owns ``casproxy download``: a digest in, a verified file out. Refuses to know how a download works (``client``)."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from casproxy.cli.connection import add_connection_flags, find_connection
from casproxy.cli.digests import digest_argument
from casproxy.cli.parser import UsageError
from casproxy.cli.text import human_size, print_json, print_line, printable

if TYPE_CHECKING:
    from casproxy.cli.connection import Connection
    from casproxy.client import Client, Phase, Progress, Sink
    from casproxy.digest import Digest

STDOUT = "-"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "download",
        help="fetch an artifact, verified",
        description="Fetch an artifact and print the name of its file. The bytes are checked against the digest; the "
        "file appears whole under its name or not at all. Without -o it is named by the last segment of the stored "
        "name. A download that was interrupted leaves FILE.DIGEST.part (12 digits of it) beside the file, and the same "
        "command goes on from there; all of it is checked, and fetched again if it does not match.",
    )
    parser.add_argument("digest", metavar="DIGEST", nargs="?", help="sha256: and 64 hex digits")
    parser.add_argument("-d", "--digest", metavar="DIGEST", dest="option", help="the same, as an option")
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        default=".",
        help="a file or directory to write to; - is stdout: a damaged artifact is cut short there, with exit code 5",
    )
    parser.add_argument("--force", action="store_true", help="overwrite the file if it exists")
    add_connection_flags(parser, default_timeout="none", retries=True)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from casproxy.auth.claims import Role
    from casproxy.cli.session import run

    if args.digest is not None and args.option is not None:
        raise UsageError("one digest at a time: give it once")
    digest = digest_argument(args.digest or args.option)
    connection = find_connection(args, Role.DOWNLOADER)
    if args.out == STDOUT and args.output == "json":
        raise UsageError("--output json goes to stdout, where -o - puts the artifact: give -o FILE")
    notices = _Notices()
    try:
        run(lambda: _download(connection, digest, args, notices))
    except BaseException as error:
        if notices.kept:
            error.add_note(f"{human_size(notices.kept)} are kept: the same command goes on from there")
        raise
    return 0


class _Notices:
    """Listens to the progress of a download for what is worth a word. ``kept``: bytes that stay to be resumed."""

    def __init__(self) -> None:
        self.kept = 0

    def beside(self, progress: Progress) -> Progress:
        """``progress``, with us listening."""
        from casproxy.cli.errors import print_error
        from casproxy.client import Phase

        def listen(phase: Phase, done: int, total: int | None) -> None:
            if phase is Phase.KEPT:
                self.kept = done
                return
            if phase is Phase.RESTART:
                print_error("the part of an earlier download did not match the artifact: everything is fetched again")
            progress(phase, done, total)

        return listen


async def _download(connection: Connection, digest: Digest, args: argparse.Namespace, notices: _Notices) -> None:
    from casproxy.cli.progress import progress_bars

    async with connection.open(args.retries) as client:
        with progress_bars() as bars, bars.bar(str(digest)) as progress:
            if args.out == STDOUT:
                await client.download(digest, _stdout(), timeout=args.timeout or math.inf, progress=progress)
                return
            path = await _download_file(client, digest, args, notices.beside(progress))
    if args.output == "json":
        print_json({"digest": str(digest), "size": path.stat().st_size, "file": str(path)})
    else:
        print_line(printable(str(path)))


async def _download_file(client: Client, digest: Digest, args: argparse.Namespace, progress: Progress) -> Path:
    return await client.download_file(
        digest,
        Path(args.out),
        force=args.force,
        resume=True,
        timeout=args.timeout or math.inf,
        progress=progress,
    )


def _stdout() -> Sink:
    import io

    from casproxy.client.worker_file import WorkerFile

    return WorkerFile(lambda: io.FileIO(1, "w", closefd=False)).write
