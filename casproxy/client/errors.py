"""Owns the errors only a client can have. Refuses to know exit codes (``cli/errors.py``).

What the server says arrives as ``rpc.errors.RpcError``; a download that fails its check is ``ArtifactCorrupt``.
"""

from __future__ import annotations

from pathlib import Path

from casproxy.errors import CasproxyError


class SourceChanged(CasproxyError):
    """A file is not the bytes that were hashed a moment ago; nothing was stored."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} changed while it was uploaded; nothing was stored: upload it again when it is at rest"
        )
        self.name = name


class TargetExists(CasproxyError):
    """A download would overwrite a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already: give --force to overwrite it, or another name with -o")
        self.path = path


class TargetUnusable(CasproxyError):
    """A download cannot be put under this name at all; the text says why."""


class UnexpectedAnswer(CasproxyError):
    """The server's answer breaks the contract of the service; is it the right server?"""
