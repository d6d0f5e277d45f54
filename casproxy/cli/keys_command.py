"""Owns ``casproxy keys generate|jwks``: key pairs that sign tokens, and the JWK Set that lets others check them.

A private key is never overwritten and never shown. Refuses to know key formats: ``auth/mint.py``, ``auth/jwks.py`` do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from casproxy.cli.parser import add_output_flag


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``casproxy keys`` with its two commands."""
    parser = commands.add_parser(
        "keys", help="make key pairs and JWK Sets", description="Make key pairs and JWK Sets.", allow_abbrev=False
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_generate(actions)
    _add_jwks(actions)


def _add_generate(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "generate",
        help="make a key pair",
        description="Make a key pair: DIR/private.pem (0600) signs tokens, DIR/public.pem checks them.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--algorithm",
        choices=("ES512", "ES384", "ES256", "EdDSA", "RS256", "PS256"),
        default="ES512",
        help="what the key signs with (default: %(default)s)",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="where the two files go; made when it is not there"
    )
    add_output_flag(parser)
    parser.set_defaults(run=_generate)


def _add_jwks(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "jwks",
        help="print public keys as a JWK Set",
        description="Print public keys as a JWK Set, each named by its thumbprint (RFC 7638).",
        allow_abbrev=False,
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="PUB.pem", help="PEM file with public keys or certificates"
    )
    parser.set_defaults(run=_jwks)


def _generate(args: argparse.Namespace) -> int:
    from casproxy.auth.jwks import thumbprint
    from casproxy.auth.keys import parse_pem
    from casproxy.auth.mint import generate_keypair
    from casproxy.cli.text import print_json
    from casproxy.errors import ConfigError
    from casproxy.files import write_private

    private_file, public_file = args.out / "private.pem", args.out / "public.pem"
    for file in (private_file, public_file):
        if file.exists() or file.is_symlink():
            raise ConfigError(f"{file} exists already; name another directory with --out")
    args.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    private, public = generate_keypair(args.algorithm)
    write_private(private_file, private)
    public_file.write_bytes(public)
    (key,) = parse_pem(public, origin=str(public_file))
    kid = thumbprint(key.key)
    if args.output == "json":
        print_json({"private_key": str(private_file), "public_key": str(public_file), "kid": kid})
    else:
        print(f"private key  {private_file}\npublic key   {public_file}\nkid          {kid}")
    return 0


def _jwks(args: argparse.Namespace) -> int:
    import json

    from casproxy.auth.jwks import jwks_of
    from casproxy.auth.keys import read_key_file

    keys = [key for file in args.files for key in read_key_file(file)]
    print(json.dumps(jwks_of(keys), indent=2))
    return 0
