"""Owns ``casproxy upload``: files in, digests out. Refuses to know how an upload works (``client``)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from casproxy.cli.connection import add_connection_flags, find_connection
from casproxy.cli.file_list import STDIN, File, list_files
from casproxy.cli.parser import UsageError
from casproxy.cli.text import print_json, print_line, printable

if TYPE_CHECKING:
    from casproxy.cli.connection import Connection
    from casproxy.cli.progress import Bars
    from casproxy.client import Client, UploadData, Uploaded

_MOST_JOBS = 64


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "upload",
        help="store files and print their digests",
        description="Store files and print 'sha256:DIGEST  NAME' for each, in order. A file is hashed first, then "
        "sent; stdin and pipes are spooled to an unlinked file in the temporary directory (TMPDIR), because the digest "
        "must be known before the first byte is sent. What the server has already is not sent again. Of several files, "
        "one that fails is told on stderr and does not stop the others; the exit code is that of the first that "
        "failed. A file found in a directory, or by a pattern, is stored under its own name and printed with its path.",
    )
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="a file to store; a directory, with all that is below it; a quoted pattern such as 'logs/**/*.gz'; "
        "- is stdin",
    )
    parser.add_argument(
        "-f", "--file", metavar="FILE", dest="more", action="append", default=[], help="the same, as an option"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="the name to store; default: the file's, or the digest for stdin"
    )
    parser.add_argument(
        "-j",
        "--jobs",
        metavar="N",
        type=_jobs,
        default=4,
        help=f"files under way at once, 1 to {_MOST_JOBS} (default: %(default)s)",
    )
    parser.add_argument("--hidden", action="store_true", help="take hidden files of directories and patterns as well")
    add_connection_flags(parser, default_timeout="none", retries=True)
    parser.set_defaults(run=_run)


def _jobs(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MOST_JOBS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MOST_JOBS}")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    files = _files(args.more + args.files, args)
    from casproxy.auth.claims import Role
    from casproxy.cli.session import run

    connection = find_connection(args, Role.UPLOADER)
    screen = _Screen(args.output)
    run(lambda: _upload_all(connection, files, screen, args))
    return screen.code


def _files(arguments: list[str], args: argparse.Namespace) -> list[File]:
    if not arguments:
        raise UsageError("no file to upload: give FILE, or - for stdin; see 'casproxy upload --help'")
    if args.name is not None and len(arguments) > 1:
        raise UsageError("--name goes with one file only")
    if arguments.count(STDIN) > 1:
        raise UsageError("stdin (-) can be uploaded only once")
    files = list_files(arguments, hidden=args.hidden)
    if args.name is not None and (len(files) > 1 or files[0].found):
        raise UsageError("--name goes with one file only")
    return files


async def _upload_all(connection: Connection, files: list[File], screen: _Screen, args: argparse.Namespace) -> None:
    from casproxy.cli.batch import upload_all
    from casproxy.cli.progress import progress_bars

    async with connection.open(args.retries) as client:
        with progress_bars() as bars:

            def tell(file: File, outcome: Uploaded | Exception) -> None:
                with bars.aside():
                    screen.tell(file, outcome)

            await upload_all(files, lambda file: _upload(client, file, bars, args), tell, jobs=args.jobs)


async def _upload(client: Client, file: File, bars: Bars, args: argparse.Namespace) -> Uploaded:
    import math

    with bars.bar(file.label) as progress:
        data: UploadData = _stdin() if file.is_stdin else await _checked(file)
        return await client.upload(data, name=args.name, timeout=args.timeout or math.inf, progress=progress)


async def _checked(file: File) -> Path:
    """A pipe that is named is read; one that lies in a directory would be waited for until somebody writes to it."""
    import errno

    from casproxy.client.worker_file import in_worker

    path = Path(file.path)
    if file.found and not await in_worker(path.is_file):
        raise OSError(errno.EINVAL, "neither a file nor a link to one", file.path)
    return path


def _stdin() -> UploadData:
    import io

    from casproxy.client.worker_file import WorkerFile

    return WorkerFile(lambda: io.FileIO(0, closefd=False))


class _Screen:
    """Prints how each file went. ``code``: the exit code of the first that failed, 0 when none did."""

    def __init__(self, output: str) -> None:
        self._output = output
        self.code = 0

    def tell(self, file: File, outcome: Uploaded | Exception) -> None:
        if isinstance(outcome, Exception):
            self._tell_error(file, outcome)
        elif self._output == "json":
            print_json(
                {
                    "digest": str(outcome.digest),
                    "size": outcome.size,
                    "file_name": outcome.file_name,
                    "deduplicated": outcome.deduplicated,
                    "file": file.path,
                }
            )
        else:
            print_line(f"{outcome.digest}  {printable(file.path if file.found else outcome.file_name)}")

    def _tell_error(self, file: File, error: Exception) -> None:
        from casproxy.cli.errors import explain, primary, print_error

        code, text = explain(primary(error))
        print_error(text if text.startswith(file.path) else f"{file.label}: {text}")
        self.code = self.code or code
