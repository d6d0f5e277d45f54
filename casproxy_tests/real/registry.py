"""Owns real registries: Debian's ``docker-registry`` in front of a directory, with each kind of access control.

Listening on a port of its own choice, ready when its port answers; its log is shown when it fails to start. A registry
can be killed and started again at the same port, its data intact.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from casproxy_tests.fakes.registry.auth import Account
from casproxy_tests.real import require_real
from casproxy_tests.real.certificates import authority, client_context, write_server_files
from casproxy_tests.real.registry_tokens import ISSUER, SERVICE, TokenServer, serve_tokens

READY_SECONDS = 20
ACCOUNTS = {"alice": Account("alices-password"), "bob": Account("bobs-password", "bob/")}
_HTPASSWD = """\
alice:$2y$04$HBfgWtMCanx/DF5sqJy9h.5jib7Lr3zR8S2iFQSJo6Peba696SGxa
bob:$2y$04$R1uXEG0JdTxpwsJjIDOBIOyQbXwLYYAvMHiB9OioRyxMOGLWGVzkS
"""
"""``ACCOUNTS`` as bcrypt of the least cost, the only hash the registry takes: made by ``htpasswd -Bbn -C 4``."""
_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")


class Access(enum.Enum):
    """How a registry knows its users."""

    ANONYMOUS = "anonymous"
    BASIC = "basic"
    BEARER_TLS = "bearer over TLS"


@dataclass(slots=True)
class RealRegistry:
    """A registry process. ``tokens`` is None unless it asks for bearer tokens."""

    directory: Path
    access: Access
    tokens: TokenServer | None = None
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.access is Access.BEARER_TLS else 'http'}://{self.host}"

    @property
    def tls(self) -> ssl.SSLContext:
        """What a client of this registry believes."""
        return client_context()

    @property
    def data(self) -> Path:
        return self.directory / "data" / "docker" / "registry" / "v2"

    async def start(self) -> None:
        """Start, at the same port if it ran before; returns when it answers."""
        program = require_real("docker-registry", "storing artifacts in a real registry")
        config = self.directory / "config.yml"
        config.write_text(json.dumps(self._config()))
        begins = len(self.log())
        self._launch([str(program), "serve", str(config)])
        with trio.move_on_after(READY_SECONDS):
            await self._ready(begins)
            return
        raise AssertionError(f"docker-registry is not ready: {self.log()[begins:][-2000:]}")

    def _launch(self, command: list[str]) -> None:
        with (self.directory / "registry.log").open("ab") as log:
            environment = {"OTEL_TRACES_EXPORTER": "none", "HOME": str(self.directory)}
            with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []  # a killed test leaves none
            self.process = subprocess.Popen([*with_us, *command], stdout=log, stderr=subprocess.STDOUT, env=environment)

    async def _ready(self, begins: int) -> None:
        while (found := _LISTENING.search(self.log()[begins:])) is None:
            assert self.process is not None and self.process.poll() is None, self.log()[-2000:]
            await trio.sleep(0.005)
        self.port = int(found[1])
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", self.port)
            except OSError:
                await trio.sleep(0.005)
            else:
                await stream.aclose()
                return

    def kill(self) -> None:
        """SIGKILL; connections are reset, uploads in progress stay as they are on the disk."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def log(self) -> str:
        path = self.directory / "registry.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def blob_path(self, digest: str) -> Path:
        hex_digits = digest.removeprefix("sha256:")
        return self.data / "blobs" / "sha256" / hex_digits[:2] / hex_digits / "data"

    def sessions(self) -> list[str]:
        """Upload sessions in progress; of a deleted one a husk of hash states stays, which is none."""
        started = self.data.glob("repositories/**/_uploads/*/startedat")
        return sorted(str(path.parent.relative_to(self.data)) for path in started)

    def visible(self) -> dict[str, str]:
        """Name -> fingerprint of all that a tag leads to, and of sessions in progress."""
        found = dict.fromkeys(self.sessions(), "session")
        for link in self.data.glob("repositories/**/_manifests/tags/*/current/link"):
            manifest = self.blob_path(link.read_text())
            repository = str(link.relative_to(self.data))
            found[repository] = _fingerprint(manifest)
            described = json.loads(manifest.read_bytes())
            for part in (described["config"], *described["layers"]):
                found[f"{repository}/{part['digest']}"] = _fingerprint(self.blob_path(part["digest"]))
        return found

    def _config(self) -> dict[str, object]:
        http: dict[str, object] = {"addr": self.host, "secret": "s" * 32}
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.directory / "data"), "maxthreads": 100},
                "delete": {"enabled": True},
                "redirect": {"disable": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": http,
        }
        if self.access is Access.BASIC:
            path = self.directory / "htpasswd"
            path.write_text(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "basic-realm", "path": str(path)}}
        if self.access is Access.BEARER_TLS:
            assert self.tokens is not None
            bundle = self.directory / "tokens.pem"
            bundle.write_bytes(authority().certificate_pem)
            token = {"realm": self.tokens.url, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(bundle)}
            config["auth"] = {"token": token}
            certificate, key = write_server_files(self.directory)
            http["tls"] = {"certificate": str(certificate), "key": str(key)}
        return config


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@asynccontextmanager
async def running_registry(
    directory: Path, access: Access = Access.ANONYMOUS, *, token_lifetime: float = 300
) -> AsyncIterator[RealRegistry]:
    """A registry for the block, empty at the start; ``directory`` is made, and of it the log is kept."""
    await trio.Path(directory).mkdir(parents=True)
    registry = RealRegistry(directory, access)
    try:
        if access is not Access.BEARER_TLS:
            await registry.start()
            yield registry
            return
        async with serve_tokens(ACCOUNTS, lifetime=token_lifetime) as registry.tokens:
            await registry.start()
            yield registry
    finally:
        registry.kill()
        shutil.rmtree(directory / "data", ignore_errors=True)
