"""Owns one download from a registry. Refuses to judge the bytes: the pipeline hashes them."""

from __future__ import annotations

import trio

from casproxy.errors import BackendBroken, BackendUnavailable
from casproxy.outbound.connection import Response
from casproxy.storage.api import MAX_PIECE_BYTES, Piece, Resource
from casproxy.storage.oci.access import Access

_READING = "reading an artifact"


class OciReader:
    """A ``Reader`` from ``offset`` to ``end`` of ``resource``. ``response``: None when there is nothing to read."""

    def __init__(self, access: Access, resource: Resource, response: Response | None, offset: int, end: int) -> None:
        self._access = access
        self._resource = resource
        self._response = response
        self._left = end - offset
        self._skip = 0
        if response is not None:
            self._skip = self._bytes_before(response, offset)
            self._check_size(response, end - offset)

    @property
    def resource(self) -> Resource:
        """See ``Reader.resource``."""
        return self._resource

    async def receive(self, most: int = MAX_PIECE_BYTES) -> Piece:
        """See ``Reader.receive``."""
        if self._response is None or not self._left:
            await trio.lowlevel.checkpoint()
            return b""
        while True:
            with self._access.told(_READING):
                data: Piece = await self._response.receive(most)
            if not data:
                raise BackendUnavailable(f"{self._access.registry}: {_READING}: it ends {self._left} bytes early")
            if self._skip < len(data):
                break
            self._skip -= len(data)
        if self._skip or len(data) > self._left:
            data = memoryview(data)[self._skip : self._skip + self._left]
            self._skip = 0
        self._left -= len(data)
        return data

    def _bytes_before(self, response: Response, offset: int) -> int:
        """What a registry that ignores ranges sends before ``offset``; a range that begins elsewhere is refused."""
        if response.status == 200:
            return offset
        unit, _, span = response.headers.get("content-range", "").partition(" ")
        if unit != "bytes" or span.partition("-")[0] != str(offset):
            raise BackendBroken(f"{self._access.registry}: {_READING}: the registry sent another range")
        return 0

    def _check_size(self, response: Response, asked: int) -> None:
        expected = asked if response.status == 206 else self._resource.size
        if response.size is not None and response.size != expected:
            raise BackendBroken(f"{self._access.registry}: {_READING}: it has another size than its manifest says")
