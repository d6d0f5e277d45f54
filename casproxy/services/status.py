"""Owns ``cas.v1.StatusService``: Infoz and Statusz, open to everybody. Refuses to know what readiness depends on.

What works badly without keeping traffic away is told in the trailers of Statusz, under ``TROUBLE``: its message has no
field for it.
"""

from __future__ import annotations

from collections.abc import Callable

from casproxy._proto.cas.v1 import status_pb2 as pb
from casproxy.rpc.api import ServerCall
from casproxy.rpc.errors import RpcError
from casproxy.services.messages import receive_one
from casproxy.storage.api import BackendResolver
from casproxy.wire.status import StatusCode

TROUBLE = "casproxy-trouble"


class StatusService:
    """The handlers. ``ready`` tells whether this process should get traffic now, ``trouble`` what works badly."""

    def __init__(
        self,
        backends: BackendResolver,
        *,
        version: str,
        chart_version: str,
        ready: Callable[[], bool],
        trouble: Callable[[], str] = str,
    ) -> None:
        self._backends = backends
        self._version = version
        self._chart_version = chart_version
        self._ready = ready
        self._trouble = trouble

    async def infoz(self, call: ServerCall) -> None:
        """What runs here."""
        await receive_one(call, pb.InfozRequest)
        answer = pb.InfozResponse(
            version=self._version, backends=sorted(self._backends.backend_types()), chart_version=self._chart_version
        )
        await call.send_message(answer.SerializeToString())

    async def statusz(self, call: ServerCall) -> None:
        """Alive, and with ``readiness`` also ready; else UNAVAILABLE."""
        request = await receive_one(call, pb.StatuszRequest)
        if trouble := self._trouble():
            call.add_trailing_metadata(TROUBLE, trouble)
        if request.readiness and not self._ready():
            raise RpcError(StatusCode.UNAVAILABLE, "not ready")
        await call.send_message(pb.StatuszResponse().SerializeToString())
