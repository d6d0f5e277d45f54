"""Owns the flags every client command shares, and where address and token come from. Refuses to know the calls.

Order of belief: a flag, then the environment, then ``./.casproxy/dev.json``. The tokens of dev.json go to the address
of dev.json and nowhere else: with ``--addr`` the file is not even read.
"""

from __future__ import annotations

import argparse
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from casproxy.cli.parser import UsageError, add_output_flag
from casproxy.cli.tls_flags import add_tls_flags, find_tls

if TYPE_CHECKING:
    from casproxy.auth.claims import Role
    from casproxy.client import Client

TOKEN_VARIABLE = "CASPROXY_TOKEN"  # noqa: S105  # the name of a variable
_MAX_TOKEN_SIZE = 64 * 1024  # bytes of a token file; servers refuse tokens over 8 KiB


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a command connects to. ``token`` may be empty; ``tls`` None means HTTP/2 without TLS. Redacts its token."""

    addr: str
    token: str
    tls: ssl.SSLContext | None
    from_dev_file: bool = False

    def __repr__(self) -> str:
        return f"<Connection: {self.addr}>"

    @asynccontextmanager
    async def open(self, retries: int = 0) -> AsyncIterator[Client]:
        """A client for the length of the block, whose calls are made again ``retries`` times while nobody answers.

        A server of dev.json that is not there is a ``ConfigError``.
        """
        from casproxy.client import Retry, open_client
        from casproxy.errors import ConfigError
        from casproxy.rpc.errors import RpcError

        try:
            async with open_client(
                self.addr, self.token, insecure=self.tls is None, tls=self.tls, retry=Retry(retries)
            ) as client:
                yield client
        except RpcError as error:
            if self.from_dev_file and error.__cause__ is not None:  # not the server's word: the dial failed
                raise ConfigError(f"{error.message}: is 'casproxy dev' still running here?") from error
            raise


def add_connection_flags(
    parser: argparse.ArgumentParser, *, default_timeout: str, token: bool = True, retries: bool = False
) -> None:
    """Add the flags that ``find_connection``, ``Connection.open`` and ``print_json`` users read."""
    parser.add_argument(
        "--addr", metavar="HOST:PORT", help="the server's gRPC address; default: the one in ./.casproxy/dev.json"
    )
    if token:
        tokens = parser.add_mutually_exclusive_group()
        tokens.add_argument(
            "--token", metavar="TOKEN", help=f"the token; other users can see it, prefer {TOKEN_VARIABLE}"
        )
        tokens.add_argument("--token-file", metavar="FILE", type=Path, help="a file that holds the token")
    add_tls_flags(parser)
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        help=f"longest time one call may take; default: {default_timeout}",
    )
    if retries:
        parser.add_argument(
            "--retries",
            metavar="N",
            type=_retries,
            default=5,
            help="try so often again, after 0.4 s, 0.8 s, 1.6 s … (about), when the server is unavailable; what got "
            "further counts anew (default: %(default)s)",
        )
    add_output_flag(parser)


def find_connection(
    args: argparse.Namespace, role: Role | None = None, environ: Mapping[str, str] = os.environ
) -> Connection:
    """Where to connect and with what token; ``role`` says which token of dev.json fits, None: no token is needed.

    Raises ``UsageError`` when no address or token is to be had, ``ConfigError`` for a dev.json not to be trusted,
    and for PEM files that cannot be used, ``OSError`` for a token file that cannot be read.
    """
    token = _given_token(args, environ) if role is not None else ""
    if args.addr is None:
        return _from_dev_file(args, role, token)
    if role is not None and not token:
        raise UsageError(f"no token: give --token, --token-file or {TOKEN_VARIABLE}")
    return Connection(args.addr, token, _tls(args, environ))


def _from_dev_file(args: argparse.Namespace, role: Role | None, token: str) -> Connection:
    from casproxy.auth.claims import Role
    from casproxy.cli.dev_file import DEV_FILE, read_dev_file

    found = read_dev_file()
    if found is None:
        raise UsageError(
            f"no server: give --addr HOST:PORT, or run this where 'casproxy dev' runs (no {DEV_FILE} here)"
        )
    if role is not None and not token:
        token = found.uploader_token if role is Role.UPLOADER else found.downloader_token
    asked = args.ca is not None or args.cert is not None or args.key is not None
    return Connection(found.grpc, token, _tls(args, {}) if asked else None, from_dev_file=True)


def _given_token(args: argparse.Namespace, environ: Mapping[str, str]) -> str:
    if args.token is not None:
        return _checked(args.token, "--token")
    if args.token_file is not None:
        with open(args.token_file, encoding="utf-8", errors="replace") as file:
            return _checked(file.read(_MAX_TOKEN_SIZE), str(args.token_file))
    return environ.get(TOKEN_VARIABLE, "").strip()


def _checked(text: str, origin: str) -> str:
    if token := text.strip():
        return token
    raise UsageError(f"{origin} holds no token")


def _tls(args: argparse.Namespace, environ: Mapping[str, str]) -> ssl.SSLContext | None:
    files = find_tls(args, environ)
    return None if files is None else files.context()


def _retries(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, for example 5, or 0 for none")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e8:  # gRPC writes a timeout with at most eight digits
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, for example 30 or 0.5")
    return seconds
