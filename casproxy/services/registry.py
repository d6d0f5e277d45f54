"""Owns the list of what is served and who may call it: one place to look, one place to add a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from casproxy.auth.claims import Role
from casproxy.pipeline.api import Limits
from casproxy.rpc.api import Handler, Method, MethodInfo, MethodKind
from casproxy.services.byte_stream import ByteStream
from casproxy.services.resource import ResourceService
from casproxy.services.status import StatusService
from casproxy.storage.api import BackendResolver

WRITE = MethodInfo("google.bytestream.ByteStream", "Write", MethodKind.CLIENT_STREAM)
READ = MethodInfo("google.bytestream.ByteStream", "Read", MethodKind.SERVER_STREAM)
QUERY_WRITE_STATUS = MethodInfo("google.bytestream.ByteStream", "QueryWriteStatus", MethodKind.UNARY)
DESCRIBE = MethodInfo("cas.v1.ResourceService", "Describe", MethodKind.UNARY)
INFOZ = MethodInfo("cas.v1.StatusService", "Infoz", MethodKind.UNARY)
STATUSZ = MethodInfo("cas.v1.StatusService", "Statusz", MethodKind.UNARY)

_EITHER = frozenset(Role)
ROLES: Mapping[str, frozenset[Role]] = {
    WRITE.path: frozenset({Role.UPLOADER}),
    READ.path: frozenset({Role.DOWNLOADER}),
    QUERY_WRITE_STATUS.path: _EITHER,
    DESCRIBE.path: _EITHER,
}
"""Which roles may call a method; the auth interceptor closes what is neither here nor public."""

PUBLIC_SERVICES = frozenset(
    {
        "cas.v1.StatusService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
)
"""Services that need no token."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the services are built from. ``ready``: whether this process should get traffic now."""

    backends: BackendResolver
    limits: Limits
    version: str
    chart_version: str
    ready: Callable[[], bool]
    verify_resume: bool = True


def methods(deps: Dependencies) -> list[Method]:
    """Everything this process serves."""
    byte_stream = ByteStream(deps.backends, deps.limits, verify_resume=deps.verify_resume)
    resource = ResourceService(deps.backends, deps.limits)
    status = StatusService(deps.backends, version=deps.version, chart_version=deps.chart_version, ready=deps.ready)
    handlers: dict[MethodInfo, Handler] = {
        WRITE: byte_stream.write,
        READ: byte_stream.read,
        QUERY_WRITE_STATUS: byte_stream.query_write_status,
        DESCRIBE: resource.describe,
        INFOZ: status.infoz,
        STATUSZ: status.statusz,
    }
    return [Method(info, handler) for info, handler in handlers.items()]
