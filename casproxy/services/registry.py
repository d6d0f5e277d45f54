"""Owns the list of what is served and who may call it: one place to look, one place to add a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from casproxy._proto.cas.v1 import resource_pb2, status_pb2
from casproxy._proto.google.bytestream import bytestream_pb2
from casproxy._proto.grpc.health.v1 import health_pb2
from casproxy._proto.grpc.reflection.v1 import reflection_pb2
from casproxy._proto.grpc.reflection.v1alpha import reflection_pb2 as old_reflection_pb2
from casproxy.auth.claims import Role
from casproxy.pipeline.api import Limits
from casproxy.pipeline.holding import Accounts
from casproxy.rpc.api import Handler, Method, MethodInfo, MethodKind
from casproxy.services.byte_stream import ByteStream
from casproxy.services.health import HealthService
from casproxy.services.readiness import Readiness
from casproxy.services.reflection import ReflectionService
from casproxy.services.resource import ResourceService
from casproxy.services.status import StatusService
from casproxy.storage.api import BackendResolver

WRITE = MethodInfo("google.bytestream.ByteStream", "Write", MethodKind.CLIENT_STREAM)
READ = MethodInfo("google.bytestream.ByteStream", "Read", MethodKind.SERVER_STREAM)
QUERY_WRITE_STATUS = MethodInfo("google.bytestream.ByteStream", "QueryWriteStatus", MethodKind.UNARY)
DESCRIBE = MethodInfo("cas.v1.ResourceService", "Describe", MethodKind.UNARY)
INFOZ = MethodInfo("cas.v1.StatusService", "Infoz", MethodKind.UNARY)
STATUSZ = MethodInfo("cas.v1.StatusService", "Statusz", MethodKind.UNARY)
HEALTH = "grpc.health.v1.Health"
HEALTH_CHECK = MethodInfo(HEALTH, "Check", MethodKind.UNARY)
HEALTH_LIST = MethodInfo(HEALTH, "List", MethodKind.UNARY)
HEALTH_WATCH = MethodInfo(HEALTH, "Watch", MethodKind.SERVER_STREAM)
REFLECTION = MethodInfo("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo", MethodKind.BIDI_STREAM)
OLD_REFLECTION = MethodInfo("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", MethodKind.BIDI_STREAM)

_MODULES = (bytestream_pb2, resource_pb2, status_pb2, health_pb2, reflection_pb2, old_reflection_pb2)
_EITHER = frozenset(Role)
ROLES: Mapping[str, frozenset[Role]] = {
    WRITE.path: frozenset({Role.UPLOADER}),
    READ.path: frozenset({Role.DOWNLOADER}),
    QUERY_WRITE_STATUS.path: _EITHER,
    DESCRIBE.path: _EITHER,
}
"""Which roles may call a method; the auth interceptor closes what is neither here nor public."""

PUBLIC_SERVICES = frozenset({INFOZ.service, HEALTH, REFLECTION.service, OLD_REFLECTION.service})
"""Services that need no token."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the services are built from."""

    backends: BackendResolver
    limits: Limits
    accounts: Accounts
    version: str
    chart_version: str
    readiness: Readiness
    verify_resume: bool = True


def methods(deps: Dependencies) -> list[Method]:
    """Everything this process serves."""
    byte_stream = ByteStream(deps.backends, deps.limits, deps.accounts, verify_resume=deps.verify_resume)
    resource = ResourceService(deps.backends, deps.limits)
    status = StatusService(
        deps.backends,
        version=deps.version,
        chart_version=deps.chart_version,
        ready=lambda: deps.readiness.ready,
        trouble=lambda: deps.readiness.trouble,
    )
    services = [service for module in _MODULES for service in module.DESCRIPTOR.services_by_name.values()]
    health = HealthService([service.full_name for service in services], deps.readiness)
    reflection = ReflectionService(services)
    handlers: dict[MethodInfo, Handler] = {
        WRITE: byte_stream.write,
        READ: byte_stream.read,
        QUERY_WRITE_STATUS: byte_stream.query_write_status,
        DESCRIBE: resource.describe,
        INFOZ: status.infoz,
        STATUSZ: status.statusz,
        HEALTH_CHECK: health.check,
        HEALTH_LIST: health.list,
        HEALTH_WATCH: health.watch,
        REFLECTION: reflection.info,
        OLD_REFLECTION: reflection.info,
    }
    return [Method(info, handler) for info, handler in handlers.items()]
