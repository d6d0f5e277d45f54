"""Owns the directory ``casproxy dev`` works in: keys, tokens, secrets, the store. Refuses to know what serves from it.

::

    .casproxy/                 0700, ours; refused when it is a link or somebody else's
      lock                     held while a ``casproxy dev`` runs here
      private.pem public.pem   P-521; made once, kept
      secrets.yaml             one secret, ``dev``: where in the store its artifacts go; made once, kept
      uploader.token           renewed at each start, good for 30 days
      downloader.token
      hello.txt                the artifact of the first trip
      store/                   the FS backend
      dev.json                 where the server listens; there while it does

What is kept survives a restart; everything is private (0600).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from casproxy.auth.claims import Claims, Role
from casproxy.auth.mint import generate_keypair, mint
from casproxy.config.model import (
    Auth,
    Config,
    CredentialsService,
    FileSource,
    Fs,
    GrpcServer,
    HttpServer,
    MetricsServer,
    Outbound,
    Server,
    Staging,
    Storage,
)
from casproxy.errors import ConfigError
from casproxy.files import check_private, make_private_dir, read_private, write_private
from casproxy.outbound.guard import LOOPBACK, RFC1918

BACKEND = "FS"
SECRET_ID = "dev"  # noqa: S105  # an id, not a secret
ORG_ID = "00000000-0000-4000-8000-000000000001"  # must be a UUID: audit events carry it
TOKEN_LIFETIME_SECONDS = 30 * 24 * 3600
HELLO = b"hello from casproxy dev\n"

_SECRETS = b"dev:\n  Path: artifacts\n"
_MAX_KEY_SIZE = 64 * 1024


@dataclass(frozen=True, slots=True, repr=False)
class Place:
    """A prepared directory; it has no ``repr`` because it holds tokens."""

    root: Path
    uploader_token: str
    downloader_token: str

    @property
    def public_key(self) -> Path:
        """PEM file of the key that verifies the tokens."""
        return self.root / "public.pem"

    @property
    def private_key(self) -> Path:
        """PEM file of the key that signs them."""
        return self.root / "private.pem"

    @property
    def hello(self) -> Path:
        """A small file to try an upload with."""
        return self.root / "hello.txt"

    @property
    def dev_file(self) -> Path:
        """Where the client commands look for the server."""
        return self.root / "dev.json"

    def token_file(self, role: Role) -> Path:
        """The token of one role, for ``--token-file``."""
        return self.root / f"{role.value}.token"

    def config(self, *, grpc: str, http: str, metrics: str) -> Config:
        """The configuration that serves from here on these addresses."""
        return Config(
            server=Server(
                grpc=GrpcServer(addr=grpc),
                http=HttpServer(addr=http, uploads=True, ui=True),
                http_metrics=MetricsServer(addr=metrics),
            ),
            auth=Auth(public_key_path=self.public_key),
            credentials_service=CredentialsService(file=FileSource(path=self.root / "secrets.yaml")),
            storage=Storage(fs=Fs(root=self.root / "store")),
            staging=Staging(dir=self.root / "staging"),
            outbound=Outbound(allow=(*RFC1918, *LOOPBACK)),
        )


@contextmanager
def prepare(root: Path, *, now: float) -> Iterator[Place]:
    """Make or complete the directory and hold its lock; ``now`` in seconds since the epoch.

    Raises ``ConfigError`` when the directory or a key cannot be trusted, cannot be written, or is in use.
    """
    make_private_dir(root)
    with ExitStack() as held:
        try:
            held.enter_context(_lock(root / "lock"))
            place = _fill(root, now)
        except OSError as error:
            raise ConfigError(f"cannot write to {root}: {error.strerror}; give another directory (--dir)") from error
        yield place


def _fill(root: Path, now: float) -> Place:
    private_pem = _private_key(root / "private.pem")
    _write_if_changed(root / "public.pem", _public_key(private_pem, root / "private.pem"))
    _keep_or_write(root / "secrets.yaml", _SECRETS)
    _write_if_changed(root / "hello.txt", HELLO)
    for directory in ("store", "staging"):
        make_private_dir(root / directory)
    tokens = {role: _token(private_pem, role, now) for role in Role}
    place = Place(root, tokens[Role.UPLOADER], tokens[Role.DOWNLOADER])
    for role, token in tokens.items():
        write_private(place.token_file(role), token.encode() + b"\n")
    return place


def _token(private_pem: bytes, role: Role, now: float) -> str:
    claims = Claims(role, SECRET_ID, BACKEND, ORG_ID, expires_at=now + TOKEN_LIFETIME_SECONDS)
    return mint(private_pem, claims, now=now)


def _private_key(path: Path) -> bytes:
    if not path.exists():
        private_pem, _ = generate_keypair()
        write_private(path, private_pem)
    return read_private(path, max_size=_MAX_KEY_SIZE)


def _public_key(private_pem: bytes, path: Path) -> bytes:
    try:
        key = load_pem_private_key(private_pem, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a private key in PEM; remove it and start again to get a new one") from error
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _keep_or_write(path: Path, content: bytes) -> None:
    if path.exists():
        check_private(path)
    else:
        write_private(path, content)


def _write_if_changed(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_private(path, content)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the directory; the kernel lets go when this process ends, however it ends (flock(2))."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb"):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another casproxy dev is running in {path.parent}: use it, stop it, or give another --dir"
            ) from error
        yield
