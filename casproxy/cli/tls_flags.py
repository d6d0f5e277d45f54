"""Owns the flags that say how a client is secured, the same for every command that calls a server.

A certificate and its key come from flags or, both of them, from the environment; ``--insecure`` turns all of it off.
Refuses to know what they do (``client.tls``).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from casproxy.cli.parser import UsageError

if TYPE_CHECKING:
    from casproxy.client.tls import TlsFiles

CERT_VARIABLE: Final = "CASPROXY_CERT"
KEY_VARIABLE: Final = "CASPROXY_KEY"


def add_tls_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that ``find_tls`` reads."""
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--insecure", action="store_true", help="HTTP/2 without TLS (h2c)")
    trust.add_argument("--ca", metavar="FILE", type=Path, help="PEM file of the CAs to trust instead of the system's")
    parser.add_argument(
        "--cert",
        metavar="FILE",
        type=Path,
        help=f"PEM file of this client's certificate, for a server that asks for one; default: {CERT_VARIABLE}",
    )
    parser.add_argument(
        "--key",
        metavar="FILE",
        type=Path,
        help=f"PEM file of its key, without a passphrase; default: the file of --cert, for {CERT_VARIABLE} "
        f"{KEY_VARIABLE}",
    )


def find_tls(args: argparse.Namespace, environ: Mapping[str, str]) -> TlsFiles | None:
    """What was asked for, None for no TLS. ``UsageError`` for what does not go together."""
    from casproxy.client.tls import TlsFiles

    given = args.cert is not None or args.key is not None
    if args.insecure:
        if given:
            raise UsageError("--cert and --key need TLS: leave --insecure out")
        return None
    cert, key = (
        (args.cert, args.key) if given else tuple(_path(environ, name) for name in (CERT_VARIABLE, KEY_VARIABLE))
    )
    if cert is None and key is not None:
        names = ("--key", "--cert") if given else (KEY_VARIABLE, CERT_VARIABLE)
        raise UsageError("{} is of no use alone: give {} too".format(*names))
    return TlsFiles(args.ca, cert, key)


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None
