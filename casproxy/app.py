"""COMPOSITION ROOT: the only module that knows every room. Builds everything, owns the nurseries, start-up and drain.

::

    start-up                                        drain (SIGTERM, SIGINT)
    1  ports bound (nobody is answered yet)         1  not ready any more: /statusz?readiness=1 says 503
    2  keys read and watched, secret source checked 2  gRPC: stops accepting, GOAWAY, calls in flight go on
    3  secret cache: a nursery of its own           3  server.drain_grace is over: the rest ends with UNAVAILABLE
    4  storage, services, interceptors              4  HTTP and metrics stop (they told the truth until here; transfers
                                                       in flight have what is left of the grace)
    5  HTTP and metrics answer                      5  the nurseries of secret cache and keys end
    6  gRPC accepts; ready                          6  ports closed, the process exits 0

A second signal cancels everything at once. What goes wrong before 6 is a ``ConfigError`` or ``OSError`` that ends the
process with one line; it never starts half. Refuses to know command lines and files of configuration.
"""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

import structlog
import trio

from casproxy import __version__
from casproxy.auth.interceptor import auth_interceptor
from casproxy.auth.keys import KeySource
from casproxy.auth.resolve import open_keys
from casproxy.auth.verifier import Verifier, VerifierSettings
from casproxy.certificates import CertificateFiles, ServedCertificate, open_certificate
from casproxy.config import Config
from casproxy.config.grpc_limits import GrpcLimits
from casproxy.config.memory import memory_budget
from casproxy.config.model import Auth, TlsConfig
from casproxy.config.model import Server as ServerSection
from casproxy.errors import ConfigError
from casproxy.observation import Observation, open_observation
from casproxy.observe.metrics import Metrics
from casproxy.pipeline.api import Limits
from casproxy.ports import Doors
from casproxy.rpc.api import Method
from casproxy.rpc.patience import ConnectionTimeouts
from casproxy.rpc.server import Server, ServerSettings
from casproxy.secrets.cache import open_cache
from casproxy.secrets.resolve import cache_settings, open_checked_source
from casproxy.services import registry
from casproxy.services.errors import error_interceptor
from casproxy.services.readiness import Readiness
from casproxy.signals import serve_until_signalled
from casproxy.storage.api import BackendResolver
from casproxy.storage.oci.staging import Staging
from casproxy.storage.oci.stores import OciSettings
from casproxy.storage.stack import open_stack
from casproxy.trust import TrustStore, open_trust
from casproxy.web import port
from casproxy.web.asgi import AsgiApp
from casproxy.web.pace import PaceLimits
from casproxy.web.server import HttpSettings, serve_listener
from casproxy.wire.budget import Budget
from casproxy.wire.guard import AbuseLimits
from casproxy.wire.protocol import WireSettings

log = structlog.get_logger("casproxy.app")

_LAST_ANSWERS_SECONDS = 3.0


async def run(config: Config, ports: Doors, *, when_ready: Callable[[], Awaitable[None]] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain; returns when nothing is left. Main thread only.

    ``when_ready`` runs once calls are accepted, and is cancelled by a drain. Errors: ``ConfigError``, ``OSError`` at
    start-up, and whatever ``when_ready`` raises; they may come in an ``ExceptionGroup``.
    """
    await serve_until_signalled(App(config), ports, config.server.drain_grace, when_ready)


class App:
    """One server, from configuration to the end of its drain. Serves once.

    ``stores`` may put stores of its own beside those of the configuration, as ``casproxy bench`` does.
    """

    def __init__(
        self, config: Config, *, stores: Callable[[BackendResolver], BackendResolver] = lambda own: own
    ) -> None:
        self.config = config
        self._stores = stores
        self.readiness = Readiness()
        self._drain = trio.Event()
        self._drain_began = -math.inf
        staging = config.staging
        self._budget = Budget(memory_budget(config.server.memory_budget))
        self._staging = Staging(staging.dir, staging.quota)

    @property
    def draining(self) -> bool:
        """The drain drawn above has begun."""
        return self.readiness.draining

    def drain(self) -> None:
        """Begin the drain drawn above; ``serve`` returns at its end. Idempotent."""
        if not self._drain.is_set():
            self._drain_began = trio.current_time()
        self.readiness.drain()
        self._drain.set()

    async def serve(self, doors: Doors, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Start up, serve, drain. Started when calls are accepted. Cancelled: everything ends at once."""
        with open_trust(self.config.outbound.ca_file) as trust:
            await self._serve(doors, trust, task_status)

    async def _serve(self, doors: Doors, trust: TrustStore, task_status: trio.TaskStatus[None]) -> None:
        config, addresses = self.config, doors.addresses()
        _check_staging(config.staging.dir)
        async with (
            _open_certificate("server.grpc.tls_config", config.server.grpc.tls_config, "h2") as grpc_certificate,
            _open_certificate(
                "server.http.tls_config", config.server.http.tls_config, "h2", "http/1.1"
            ) as http_certificate,
            open_observation(config, self.readiness, trust) as observation,
            open_keys(config.auth, trust.context("http/1.1")) as keys,
            open_checked_source(config.credentials_service, trust) as source,
            observation.source(source) as watched,
            open_cache(watched, cache_settings(config.credentials_service)) as secrets,
            open_stack(
                fs_root=config.storage.fs.root,
                read_secret=secrets.read,
                drop_secret=secrets.drop,
                oci=oci_settings(config, doors.numbers(), trust),
                staging=self._staging,
            ) as stack,
            trio.open_nursery() as http,
        ):
            backends, metrics = self._stores(observation.backends(stack)), observation.metrics
            methods = registry.methods(self._dependencies(backends))
            observation.serve((method.info for method in methods), stack, secrets, keys.ages)
            observation.certificates(filter(None, (grpc_certificate, http_certificate)))
            verifier = _verifier(keys, config.auth)
            stop_http = trio.Event()
            app = self._http_app(backends, observation, verifier)
            await http.start(
                serve_listener, app, doors.open_http(), stop_http, self._http_settings(metrics, http_certificate)
            )
            await http.start(doors.serve_metrics, metrics, stop_http)
            async with trio.open_nursery() as grpc:
                server = self._server(methods, observation, verifier, grpc_certificate)
                observation.server(server)
                await grpc.start(server.serve, [doors.open_grpc()])
                self.readiness.started()
                log.info("serving", version=__version__, **addresses)
                task_status.started()
                await self._drain.wait()
                server.start_draining()
            stop_http.set()
        log.info("drained")

    def _dependencies(self, backends: BackendResolver) -> registry.Dependencies:
        return registry.Dependencies(
            backends=backends,
            limits=self._limits(),
            accounts=self._budget,
            version=__version__,
            chart_version=_chart_version(),
            readiness=self.readiness,
            verify_resume=self.config.transfer.verify_resume,
        )

    def _http_app(self, backends: BackendResolver, observation: Observation, verifier: Verifier) -> AsgiApp:
        http, transfer = self.config.server.http, self.config.transfer
        return port.http_app(
            port.Dependencies(
                verifier=verifier,
                backends=backends,
                limits=self._limits(),
                accounts=self._budget,
                staging=self._staging,
                registry=observation.metrics.registry,
                version=__version__,
                chart_version=_chart_version(),
                not_ready=lambda: self.readiness.reason,
                draining=lambda: self.readiness.draining,
                on_limit=observation.metrics.limit_reached,
                watchers=observation.watchers(),
            ),
            port.PortSettings(
                timeout=http.timeout,
                allow_origins=http.cors.allow_origins,
                uploads=http.uploads,
                ui=http.ui,
                verify_resume=transfer.verify_resume,
                max_transfers=http.limits.max_transfers,
                max_header_bytes=http.limits.max_header_size,
            ),
        )

    def _http_settings(self, metrics: Metrics, certificate: ServedCertificate | None) -> HttpSettings:
        limits, transfer = self.config.server.http.limits, self.config.transfer
        return HttpSettings(
            pace=PaceLimits(transfer.idle_timeout, float(transfer.min_rate)),
            max_connections=limits.max_connections,
            max_header_bytes=limits.max_header_size,
            grace=self._grace_left,
            tls=None if certificate is None else certificate.context,
            on_limit=metrics.limit_reached,
        )

    def _grace_left(self) -> float:
        """Seconds that HTTP transfers still have when the gRPC side has ended; probes need a moment in any case."""
        return max(_LAST_ANSWERS_SECONDS, self._drain_began + self.config.server.drain_grace - trio.current_time())

    def _limits(self) -> Limits:
        transfer = self.config.transfer
        return Limits(
            piece_size=transfer.piece_size, idle_timeout=transfer.idle_timeout, min_rate=float(transfer.min_rate)
        )

    def _server(
        self,
        methods: Sequence[Method],
        observation: Observation,
        verifier: Verifier,
        certificate: ServedCertificate | None,
    ) -> Server:
        return Server(
            methods,
            interceptors=[
                *observation.interceptors(),
                error_interceptor(),
                auth_interceptor(verifier, registry.ROLES, registry.PUBLIC_SERVICES),
            ],
            tls=None if certificate is None else certificate.context,
            on_limit=observation.metrics.limit_reached,
            settings=server_settings(self.config.server),
            budget=self._budget,
        )


def server_settings(server: ServerSection) -> ServerSettings:
    """The gRPC server's settings, from ``server`` of the configuration."""
    limits = server.grpc.limits
    return ServerSettings(
        drain_grace=server.drain_grace,
        unary_timeout=server.grpc.timeout or math.inf,
        handshake_timeout=limits.timeouts.handshake,
        request_timeout=limits.timeouts.request,
        max_connections=limits.max_connections,
        max_connection_age=limits.max_connection_age,
        max_message_size=limits.max_message_size,
        memory_budget=memory_budget(server.memory_budget),
        wire=_wire_settings(limits),
        timeouts=ConnectionTimeouts(
            greeting=limits.timeouts.greeting,
            headers=limits.timeouts.headers,
            idle=limits.timeouts.idle,
            keepalive=limits.timeouts.keepalive,
            keepalive_answer=limits.timeouts.keepalive_answer,
            write=limits.timeouts.write,
        ),
    )


def _wire_settings(limits: GrpcLimits) -> WireSettings:
    return WireSettings(
        initial_window=limits.windows.initial,
        largest_window=limits.windows.largest,
        connection_window=limits.windows.connection,
        max_concurrent_streams=limits.max_concurrent_streams,
        max_header_list=limits.max_header_list_size,
        max_header_block=limits.max_header_block,
        max_continuations=limits.max_continuations,
        abuse=AbuseLimits(
            reset_burst=limits.reset_burst,
            reset_rate=limits.reset_rate,
            glitch_burst=limits.glitch_burst,
            glitch_rate=limits.glitch_rate,
            replies_pause=limits.replies_pause,
            replies_close=limits.replies_close,
            ping_interval=limits.ping_interval,
            ping_strikes=limits.ping_strikes,
        ),
    )


def oci_settings(config: Config, own_ports: tuple[int, ...], trust: TrustStore) -> OciSettings:
    """The OCI backend's settings. ``own_ports``: where this process listens."""
    return OciSettings(
        allow=config.outbound.allow,
        own_ports=own_ports,
        insecure_registries=config.oci.insecure_registries,
        tls=trust.context("http/1.1"),
    )


def _verifier(keys: KeySource, auth: Auth) -> Verifier:
    return Verifier(keys, VerifierSettings(require_exp=auth.require_exp, issuer=auth.issuer))


def _open_certificate(
    setting: str, tls: TlsConfig | None, *alpn: str
) -> AbstractAsyncContextManager[ServedCertificate | None]:
    """What a port shows, kept current; None for cleartext."""
    if tls is None:
        return nullcontext()
    return open_certificate(CertificateFiles(setting, tls.certificate, tls.private_key, tls.client_ca_file, alpn))


def _check_staging(directory: Path | None) -> None:
    """``ConfigError`` unless bodies can be staged in ``directory``; without one, nothing is."""
    if directory is not None and not (directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)):
        raise ConfigError(
            f"staging.dir: {directory} is no directory that this process may write to; make it, or unset it"
        )


def _chart_version() -> str:
    """The Helm chart's version, which the chart puts into the environment."""
    return os.environ.get("CHART_VERSION", "")
