"""Owns ``casproxy token``: signs a token from flags, for tests and for operators who hold the private key.

Refuses to know keys and their algorithms: ``auth/mint.py`` does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from casproxy.cli.parser import UsageError, add_output_flag

if TYPE_CHECKING:
    from casproxy.auth.claims import Claims

_MAX_KEY_SIZE = 64 * 1024


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``casproxy token``."""
    parser = commands.add_parser(
        "token",
        help="sign a token with a private key",
        description="Print a signed token. The algorithm follows from the key: P-521 signs ES512.",
        allow_abbrev=False,
    )
    parser.add_argument("--role", required=True, choices=("uploader", "downloader"), help="what the bearer may do")
    parser.add_argument("--backend", required=True, metavar="TYPE", help="type of the store, such as OCI or FS")
    parser.add_argument("--secret-id", required=True, metavar="ID", help="where the store's credentials are kept")
    parser.add_argument("--org-id", required=True, metavar="ID", help="the organization the bearer works for")
    parser.add_argument(
        "--max-bytes", type=_size, default=0, metavar="SIZE", help="largest upload, such as 100MiB (default: no limit)"
    )
    parser.add_argument(
        "--expires",
        type=_duration,
        default=600.0,
        metavar="TIME",
        help="valid for this long; 0: for ever (default: 10m)",
    )
    parser.add_argument(
        "--not-before",
        type=_duration,
        default=0.0,
        metavar="TIME",
        help="valid only after this long (default: at once)",
    )
    parser.add_argument("--audience", metavar="AUD", help="whom it is for (default: artifact-cas.chainloop)")
    parser.add_argument("--issuer", metavar="ISS", help="who says so (default: casproxy)")
    parser.add_argument(
        "--source-internal", action="store_true", help="the bearer is the control plane itself: no audit events"
    )
    parser.add_argument("--kid", metavar="KID", help="name of the key, for a server that knows keys by name")
    parser.add_argument(
        "--algorithm",
        choices=("ES512", "ES384", "ES256", "EdDSA", "RS256", "PS256"),
        help="how to sign; only an RSA key has a choice (default: what fits the key)",
    )
    parser.add_argument(
        "--private-key", required=True, type=Path, metavar="KEY", help="PEM file of the signing key, mode 0600"
    )
    parser.add_argument("--show", action="store_true", help="print the claims on standard error as well")
    add_output_flag(parser)
    parser.set_defaults(run=_run)


def _size(text: str) -> int:
    from casproxy.units import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"want {error}") from error


def _duration(text: str) -> float:
    from casproxy.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"want {error}") from error


def _run(args: argparse.Namespace) -> int:
    import json
    import sys
    import time

    from casproxy.auth.mint import ISSUER, mint, payload_of
    from casproxy.auth.verify import AUDIENCE
    from casproxy.cli.text import print_json
    from casproxy.files import read_private

    now = time.time()
    claims = _claims(args, now)
    audience = AUDIENCE if args.audience is None else _text("--audience", args.audience)
    issuer = ISSUER if args.issuer is None else _text("--issuer", args.issuer)
    token = mint(
        read_private(args.private_key, max_size=_MAX_KEY_SIZE),
        claims,
        now=now,
        audience=audience,
        issuer=issuer,
        kid=None if args.kid is None else _text("--kid", args.kid),
        algorithm=args.algorithm,
    )
    payload = payload_of(claims, now=now, audience=audience, issuer=issuer)
    if args.show:
        print(json.dumps(payload, indent=2), file=sys.stderr)
    if args.output == "json":
        print_json({"token": token, "claims": payload})
    else:
        print(token)
    return 0


def _claims(args: argparse.Namespace, now: float) -> Claims:
    from casproxy.auth.claims import Claims, Role

    if args.expires and args.not_before >= args.expires:
        raise UsageError("--not-before is not before --expires: the token would never be valid")
    return Claims(
        role=Role(args.role),
        secret_id=_secret_id(args.secret_id),
        backend=_text("--backend", args.backend),
        org_id=_text("--org-id", args.org_id),
        max_bytes=args.max_bytes,
        source_internal=args.source_internal,
        expires_at=now + args.expires if args.expires else None,
        not_before=now + args.not_before if args.not_before else None,
    )


def _secret_id(text: str) -> str:
    from casproxy.errors import SecretNotFound
    from casproxy.secrets.api import check_secret_id

    try:
        check_secret_id(text)
    except SecretNotFound as error:
        raise UsageError(f"--secret-id: {error}") from error
    return text


def _text(flag: str, text: str) -> str:
    if not text or not text.isprintable():
        raise UsageError(f"{flag} is empty or holds characters that cannot be printed")
    return text
