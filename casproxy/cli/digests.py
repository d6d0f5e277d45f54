"""Owns how a digest is read from the command line. Refuses to know what is done with it."""

from __future__ import annotations

from casproxy.cli.parser import UsageError
from casproxy.digest import Digest


def digest_argument(text: str | None) -> Digest:
    """The digest a user typed; ``UsageError`` when there is none, ``InvalidDigest`` when it is not one."""
    if text is None:
        raise UsageError("no digest: give sha256: and 64 hex digits, as 'casproxy upload' prints it")
    return Digest.parse(text)
