"""Owns the server that a self-contained run measures: the real application, with a store of the bench's own beside.

``python -m casproxy.bench.server DIRECTORY`` prints one JSON line when it is ready and serves until SIGTERM. Keys,
secrets and artifacts are in DIRECTORY. Tokens, interceptors, metrics and limits are those of ``casproxy serve``; only
the resolver of stores is wrapped: ``MEMORY`` leads to ``store.BenchStore``, ``OCI`` to the registry of ``--oci-repo``.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from casproxy.app import App
from casproxy.auth.claims import Claims, Role
from casproxy.auth.mint import generate_keypair, mint
from casproxy.bench.control import serve_questions
from casproxy.bench.histogram import Histogram
from casproxy.bench.store import BenchStore
from casproxy.config import Config
from casproxy.config.model import (
    Auth,
    CredentialsService,
    FileSource,
    Fs,
    GrpcServer,
    HttpServer,
    MetricsServer,
    Server,
    Storage,
    TlsConfig,
)
from casproxy.files import write_private
from casproxy.observe import log
from casproxy.ports import Ports, open_ports
from casproxy.secrets.api import Secret
from casproxy.services import registry
from casproxy.signals import serve_until_signalled
from casproxy.storage.api import Backend, BackendResolver, Tenant
from casproxy.storage.oci.backend import OciBackend
from casproxy.storage.oci.stores import OciSettings, open_oci
from casproxy.workers.supervisor import Supervisor

MEMORY, FS, OCI = "MEMORY", "FS", "OCI"
_ORG_ID = "00000000-0000-4000-8000-000000000001"
_SECRET_ID = "bench"  # noqa: S105  # an id, not a secret
_TOKEN_SECONDS = 24 * 3600
_LAG_PERIOD = 0.005


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="The server that casproxy bench measures.", allow_abbrev=False)
    parser.add_argument("directory", type=Path, help="for keys, secrets and artifacts; private")
    parser.add_argument("--oci-repo", default="", metavar="HOST:PORT/PREFIX", help="a registry on the loopback, http")
    parser.add_argument("--certificate", type=Path, help="PEM; with --private-key, serve TLS")
    parser.add_argument("--private-key", type=Path, help="PEM")
    parser.add_argument("--workers", type=int, default=1, help="processes; several have no --oci-repo and no control")
    parser.add_argument("--log-level", default="info", help="as observability.log.level")
    args = parser.parse_args()
    private_pem, public_pem = generate_keypair()
    write_private(args.directory / "public.pem", public_pem)
    write_private(args.directory / "secrets.yaml", _secrets(args.oci_repo))
    log.configure(args.log_level, "json")
    config = _config(args)
    tokens = {role: {kind: _token(private_pem, role, kind) for kind in (MEMORY, FS, OCI)} for role in Role}
    with open_ports(config) as ports:
        if args.workers == 1:
            trio.run(_serve, config, ports, args.oci_repo, tokens)
        else:
            trio.run(_supervise, config, ports, args.workers, tokens)


def _secrets(oci_repo: str) -> bytes:
    fields = {"Path": "artifacts", "Repo": oci_repo, "Username": "bench", "Password": "bench"}
    return json.dumps({_SECRET_ID: fields}).encode()


def _token(private_pem: bytes, role: Role, kind: str) -> str:
    now = time.time()
    return mint(private_pem, Claims(role, _SECRET_ID, kind, _ORG_ID, expires_at=now + _TOKEN_SECONDS), now=now)


def _config(args: argparse.Namespace) -> Config:
    place: Path = args.directory
    free = "127.0.0.1:0"
    tls = None if args.certificate is None else TlsConfig(certificate=args.certificate, private_key=args.private_key)
    return Config(
        server=Server(
            grpc=GrpcServer(addr=free, tls_config=tls),
            http=HttpServer(addr=free),
            http_metrics=MetricsServer(addr=free),
            drain_grace=1.0,
        ),
        auth=Auth(public_key_path=place / "public.pem"),
        credentials_service=CredentialsService(file=FileSource(path=place / "secrets.yaml")),
        storage=Storage(fs=Fs(root=place / "store")),
    )


async def _serve(config: Config, ports: Ports, oci_repo: str, tokens: Mapping[Role, Mapping[str, str]]) -> None:
    async with _stores(oci_repo) as stores:
        app = _BenchApp(config, stores)
        meter = _Meter(stores)
        questions = await trio.open_tcp_listeners(0, host="127.0.0.1")
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(meter.run)
                nursery.start_soon(serve_questions, questions, meter.answer)
                await nursery.start(app.serve, ports)
                _announce(ports, tokens, control=f"127.0.0.1:{questions[0].socket.getsockname()[1]}")
                await anext(signals)
                app.drain()
                nursery.cancel_scope.deadline = trio.current_time() + config.server.drain_grace + 1


async def _supervise(config: Config, ports: Ports, workers: int, tokens: Mapping[Role, Mapping[str, str]]) -> None:
    """The same with several workers; an artifact that is kept is in the memory of one of them."""
    supervisor = Supervisor(config, workers, command=(sys.executable, "-P", "-m", "casproxy.bench.worker"))

    async def announce() -> None:
        await supervisor.all_serve()
        _announce(ports, tokens)

    await serve_until_signalled(supervisor, ports, config.server.drain_grace, announce)


def _announce(ports: Ports, tokens: Mapping[Role, Mapping[str, str]], **more: str) -> None:
    facts = {"uploader": tokens[Role.UPLOADER], "downloader": tokens[Role.DOWNLOADER], **ports.addresses(), **more}
    print(json.dumps(facts), flush=True)


def make_app(config: Config) -> App:
    """The application that is measured, without a registry."""
    return _BenchApp(config, _Stores(None))


class _Stores:
    """The stores that this program has beside those of the application. ``store`` answers for MEMORY."""

    def __init__(self, oci: OciBackend | None) -> None:
        self.store = BenchStore()
        self._oci = oci

    def find(self, tenant: Tenant) -> Backend | None:
        """The store of a tenant, None when the application knows it."""
        return self.store if tenant.backend_type == MEMORY else self._oci if tenant.backend_type == OCI else None


@asynccontextmanager
async def _stores(oci_repo: str) -> AsyncIterator[_Stores]:
    async with AsyncExitStack() as opened:
        oci = None
        if oci_repo:
            host = oci_repo.partition("/")[0]
            settings = OciSettings(allow=("127.0.0.0/8",), insecure_registries=(host,))
            secret = Secret({"Repo": oci_repo, "Username": "bench", "Password": "bench"})
            oci = (await opened.enter_async_context(open_oci(settings))).backend(secret)
        yield _Stores(oci)


class _Resolver:
    """A ``BackendResolver`` that knows the bench's own stores and asks ``inner`` for all others."""

    def __init__(self, inner: BackendResolver, stores: _Stores) -> None:
        self._inner = inner
        self._stores = stores

    async def resolve(self, tenant: Tenant) -> Backend:
        """See ``BackendResolver.resolve``. No checkpoint, like the real one with its secret in the cache."""
        found = self._stores.find(tenant)
        return await self._inner.resolve(tenant) if found is None else found

    def backend_types(self) -> list[str]:
        """See ``BackendResolver.backend_types``."""
        return sorted({*self._inner.backend_types(), MEMORY})


class _BenchApp(App):
    def __init__(self, config: Config, stores: _Stores) -> None:
        super().__init__(config)
        self._stores = stores

    def _dependencies(self, backends: BackendResolver) -> registry.Dependencies:
        return super()._dependencies(_Resolver(backends, self._stores))


class _Meter:
    """Answers the questions of ``control``: how late the event loop runs its timers, when ingests were released."""

    def __init__(self, stores: _Stores) -> None:
        self._store = stores.store
        self._lag = Histogram()

    async def run(self) -> None:
        while True:
            due = trio.current_time() + _LAG_PERIOD
            await trio.sleep_until(due)
            self._lag.record(trio.current_time() - due)

    def answer(self, question: str) -> object:
        if question == "reset":
            self._lag = Histogram()
            self._store.released.clear()
            return {}
        tasks = trio.lowlevel.current_statistics().tasks_living
        return {
            "lag_ms": self._lag.summary(),
            "released": self._store.released,
            "open_ingests": self._store.open_ingests,
            "tasks": tasks,
        }


if __name__ == "__main__":
    main()
