"""Owns ``cas.v1.ResourceService``: Describe."""

from __future__ import annotations

from casproxy._proto.cas.v1 import resource_pb2 as pb
from casproxy.auth.claims import Claims
from casproxy.digest import Digest
from casproxy.errors import InvalidRequest
from casproxy.pipeline.api import Limits
from casproxy.pipeline.lookup import describe
from casproxy.rpc.api import ServerCall
from casproxy.services.messages import receive_one
from casproxy.services.tenant import tenant_of
from casproxy.storage.api import BackendResolver


class ResourceService:
    """The handler; raises what its steps raise, translated by ``services.errors``."""

    def __init__(self, backends: BackendResolver, limits: Limits) -> None:
        self._backends = backends
        self._limits = limits

    async def describe(self, call: ServerCall) -> None:
        """A stored artifact's metadata. Named by its digest only: ``sha256:{hex}`` or ``{hex}``."""
        request = await receive_one(call, pb.ResourceServiceDescribeRequest)
        if not request.digest:
            raise InvalidRequest("digest must be set")
        digest = Digest.parse(request.digest)
        call.attach(digest)
        backend = await self._backends.resolve(tenant_of(call.attached(Claims)))
        stored = await describe(backend, digest, self._limits, by=call.deadline)
        result = pb.CASResource(file_name=stored.file_name, digest=stored.digest.hex, size=stored.size)
        await call.send_message(pb.ResourceServiceDescribeResponse(result=result).SerializeToString())
