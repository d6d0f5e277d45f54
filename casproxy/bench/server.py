"""Owns the server that a self-contained run measures: the real application, with a store of the bench's own beside.

``python -m casproxy.bench.server DIRECTORY`` prints one JSON line when it is ready and serves until SIGTERM. Keys,
secrets and artifacts are in DIRECTORY. Tokens, interceptors, metrics, limits and stores are those of
``casproxy serve``; beside them ``MEMORY`` leads to ``store.BenchStore``. There are two tenants, with a secret each.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

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
    Oci,
    Outbound,
    Server,
    Storage,
    TlsConfig,
)
from casproxy.files import write_private
from casproxy.garbage import settle
from casproxy.observe import log
from casproxy.ports import Ports, open_ports
from casproxy.signals import serve_until_signalled
from casproxy.storage.api import Backend, BackendResolver, Tenant
from casproxy.units import parse_size
from casproxy.workers.supervisor import Supervisor

MEMORY, FS, OCI = "MEMORY", "FS", "OCI"
_ORG_ID = "00000000-0000-4000-8000-000000000001"
_TENANTS = ("bench", "neighbour")
"""Secret ids."""
_TOKEN_SECONDS = 24 * 3600
_LAG_PERIOD = 0.005

Tokens: TypeAlias = Mapping[str, Mapping[Role, Mapping[str, str]]]
"""Tenant -> role -> backend type -> token."""


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="The server that casproxy bench measures.", allow_abbrev=False)
    parser.add_argument("directory", type=Path, help="for keys, secrets and artifacts; private")
    parser.add_argument("--oci-repo", default="", metavar="HOST:PORT/PREFIX", help="a registry on the loopback, http")
    parser.add_argument("--certificate", type=Path, help="PEM; with --private-key, serve TLS")
    parser.add_argument("--private-key", type=Path, help="PEM")
    parser.add_argument("--workers", type=int, default=1, help="processes; several have no control")
    parser.add_argument("--memory-budget", type=parse_size, metavar="SIZE", help="as server.memory_budget")
    parser.add_argument("--log-level", default="info", help="as observability.log.level")
    args = parser.parse_args()
    private_pem, public_pem = generate_keypair()
    write_private(args.directory / "public.pem", public_pem)
    write_private(args.directory / "secrets.yaml", _secrets(args.oci_repo))
    log.configure(args.log_level, "json")
    config = _config(args)
    tokens = {
        tenant: {role: {kind: _token(private_pem, tenant, role, kind) for kind in (MEMORY, FS, OCI)} for role in Role}
        for tenant in _TENANTS
    }
    with open_ports(config) as ports:
        if args.workers == 1:
            trio.run(_serve, config, ports, tokens)
        else:
            trio.run(_supervise, config, ports, args.workers, tokens)


def _secrets(oci_repo: str) -> bytes:
    fields = {"Repo": oci_repo, "Username": "bench", "Password": "bench"}
    return json.dumps({tenant: {"Path": tenant, **fields} for tenant in _TENANTS}).encode()


def _token(private_pem: bytes, tenant: str, role: Role, kind: str) -> str:
    now = time.time()
    return mint(private_pem, Claims(role, tenant, kind, _ORG_ID, expires_at=now + _TOKEN_SECONDS), now=now)


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
            memory_budget=args.memory_budget,
        ),
        auth=Auth(public_key_path=place / "public.pem"),
        credentials_service=CredentialsService(file=FileSource(path=place / "secrets.yaml")),
        storage=Storage(fs=Fs(root=place / "store")),
        outbound=Outbound(allow=("127.0.0.0/8",)),
        oci=Oci(insecure_registries=(args.oci_repo.partition("/")[0],) if args.oci_repo else ()),
    )


async def _serve(config: Config, ports: Ports, tokens: Tokens) -> None:
    store = BenchStore()
    app, meter = App(config, stores=partial(_Resolver, store)), _Meter(store)
    questions = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(meter.run)
            nursery.start_soon(serve_questions, questions, meter.answer)
            await nursery.start(app.serve, ports)
            settle()
            _announce(ports, tokens, control=f"127.0.0.1:{questions[0].socket.getsockname()[1]}")
            await anext(signals)
            app.drain()
            nursery.cancel_scope.deadline = trio.current_time() + config.server.drain_grace + 1


async def _supervise(config: Config, ports: Ports, workers: int, tokens: Tokens) -> None:
    """The same with several workers; an artifact that is kept is in the memory of one of them."""
    supervisor = Supervisor(config, workers, command=(sys.executable, "-P", "-m", "casproxy.bench.worker"))

    async def announce() -> None:
        await supervisor.all_serve()
        _announce(ports, tokens)

    await serve_until_signalled(supervisor, ports, config.server.drain_grace, announce)


def _announce(ports: Ports, tokens: Tokens, **more: str) -> None:
    print(json.dumps({"tokens": tokens, **ports.addresses(), **more}), flush=True)


def make_app(config: Config) -> App:
    """The application that is measured."""
    return App(config, stores=partial(_Resolver, BenchStore()))


class _Resolver:
    """A ``BackendResolver`` that knows the bench's own store and asks ``inner`` for all others."""

    def __init__(self, store: BenchStore, inner: BackendResolver) -> None:
        self._store = store
        self._inner = inner

    async def resolve(self, tenant: Tenant) -> Backend:
        """See ``BackendResolver.resolve``. No checkpoint, like the real one with its secret in the cache."""
        return self._store if tenant.backend_type == MEMORY else await self._inner.resolve(tenant)

    def backend_types(self) -> list[str]:
        """See ``BackendResolver.backend_types``."""
        return sorted({*self._inner.backend_types(), MEMORY})


class _Meter:
    """Answers the questions of ``control``: how late the event loop runs its timers, when ingests were released."""

    def __init__(self, store: BenchStore) -> None:
        self._store = store
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
