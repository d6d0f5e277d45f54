"""Owns the first trip: a small artifact goes through the server's own port and back. Refuses to know the server."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from casproxy.client.client import open_client
from casproxy.dev.place import HELLO, Place
from casproxy.digest import Digest
from casproxy.errors import ArtifactCorrupt

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Trial:
    """How the trip went. ``size`` in bytes; ``seconds`` for the way there and back, connecting included."""

    digest: Digest
    size: int
    seconds: float

    def sentence(self) -> str:
        """The same for people."""
        return f"{self.size} bytes went up over gRPC and came back, verified, in {self.seconds * 1000:.1f} ms."


async def make_trip(address: str, place: Place) -> Trial:
    """Upload ``hello.txt`` with the uploader's token, download it with the downloader's, compare.

    Raises what the client raises: a server that cannot do this much should not say that it is ready.
    """
    digest = Digest.of(HELLO)
    received = bytearray()

    async def keep(piece: memoryview) -> None:
        received.extend(piece)

    started = perf_counter()
    async with open_client(address, place.uploader_token, insecure=True) as client:
        await client.upload(HELLO, name=place.hello.name, digest=digest, timeout=TIMEOUT_SECONDS)
    async with open_client(address, place.downloader_token, insecure=True) as client:
        await client.download(digest, keep, timeout=TIMEOUT_SECONDS)
    seconds = perf_counter() - started
    if received != HELLO:
        raise ArtifactCorrupt(got=Digest.of(bytes(received)).hex, want=digest.hex)
    return Trial(digest, len(HELLO), seconds)
