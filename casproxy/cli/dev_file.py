"""Owns ``.casproxy/dev.json``: its shape, and whether it may be believed. Refuses to know who serves there.

``casproxy dev`` writes it, the client commands read it, so that both work without flags in one directory. A
directory can be prepared by somebody else (a shared /tmp, an unpacked archive), who would then receive
our artifacts or hand us theirs: the file counts only when it is ours, private, and points at this machine.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from casproxy.client.address import Address
from casproxy.errors import ConfigError, InvalidRequest
from casproxy.files import read_private

DEV_FILE = Path(".casproxy/dev.json")
_MAX_SIZE = 64 * 1024  # bytes; two tokens and ten short strings need 2 KiB
_RENEW = "run 'casproxy dev' again to renew it, or give --addr and --token"


class DevFile(msgspec.Struct, frozen=True):
    """What ``casproxy dev`` tells the commands beside it. Addresses are ``HOST:PORT``, keys are paths."""

    grpc: str
    http: str
    metrics: str
    backend: str
    secret_id: str
    org_id: str
    uploader_token: str
    downloader_token: str
    public_key: str
    private_key: str

    def __repr__(self) -> str:
        return f"<DevFile: {self.grpc}>"  # it holds tokens

    def encode(self) -> bytes:
        """The file's content: indented JSON with a final newline."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def read_dev_file(path: Path = DEV_FILE) -> DevFile | None:
    """The trusted content of ``path``; None when there is no such file.

    Raises ``ConfigError`` when the file is somebody else's, open to others, not a plain file, broken, or
    points away from the loopback.
    """
    if not os.path.lexists(path):
        return None
    try:
        content = read_private(path, max_size=_MAX_SIZE)
    except ConfigError as error:
        raise ConfigError(f"{error}; or give --addr and --token") from error
    return _decode(path, content)


def _decode(path: Path, content: bytes) -> DevFile:
    try:
        file = msgspec.json.decode(content, type=DevFile)
        loopback = Address.parse(file.grpc).is_loopback()
    except (msgspec.MsgspecError, InvalidRequest) as error:
        raise ConfigError(f"{path} is broken ({error}): {_RENEW}") from error
    if not loopback:
        raise ConfigError(f"{path} points away from this machine ({file.grpc}) and is not trusted: {_RENEW}")
    return file
