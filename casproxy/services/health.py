"""Owns ``grpc.health.v1.Health``: what load balancers ask. Refuses to know why a process is not ready.

Source: the gRPC health checking protocol (grpc/grpc-proto, health.proto).
"""

from __future__ import annotations

from collections.abc import Collection

from casproxy._proto.grpc.health.v1 import health_pb2 as pb
from casproxy.rpc.api import ServerCall
from casproxy.rpc.errors import RpcError
from casproxy.services.messages import receive_one
from casproxy.services.readiness import Readiness
from casproxy.wire.status import StatusCode

Status = pb.HealthCheckResponse.ServingStatus


class HealthService:
    """The handlers. Every service of this process is as ready as the process; ``""`` stands for the whole."""

    def __init__(self, services: Collection[str], readiness: Readiness) -> None:
        self._services = frozenset(services) | {""}
        self._readiness = readiness

    async def check(self, call: ServerCall) -> None:
        """The status now; NOT_FOUND for a name that is not served."""
        request = await receive_one(call, pb.HealthCheckRequest)
        if request.service not in self._services:
            raise RpcError(StatusCode.NOT_FOUND, "unknown service")
        await call.send_message(self._status(request.service).SerializeToString())

    async def list(self, call: ServerCall) -> None:
        """The status of every service."""
        await receive_one(call, pb.HealthListRequest)
        answer = pb.HealthListResponse(statuses={name: self._status(name) for name in self._services})
        await call.send_message(answer.SerializeToString())

    async def watch(self, call: ServerCall) -> None:
        """The status now and after each change; ends with UNAVAILABLE when this process drains.

        A client that watches would keep a drain from ending, so it is told to watch elsewhere.
        """
        request = await receive_one(call, pb.HealthCheckRequest)
        sent = None
        while True:
            status = self._status(request.service)
            if status != sent:
                await call.send_message(status.SerializeToString())
                sent = status
            if self._readiness.draining:
                raise RpcError(StatusCode.UNAVAILABLE, "the server is shutting down")
            await self._readiness.changed()

    def _status(self, service: str) -> pb.HealthCheckResponse:
        if service not in self._services:
            return pb.HealthCheckResponse(status=Status.SERVICE_UNKNOWN)
        return pb.HealthCheckResponse(status=Status.SERVING if self._readiness.ready else Status.NOT_SERVING)
