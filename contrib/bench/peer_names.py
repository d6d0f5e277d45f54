"""What both peers do with an artifact: hash it, forget it or keep it, as its name says. Nothing of any framework."""

from __future__ import annotations

import hashlib

from casproxy.bench.scenarios import KEPT
from casproxy.services.resource_name import parse


class Upload:
    """One upload on its way. ``size``: bytes so far."""

    def __init__(self, shelf: Shelf, name: str) -> None:
        parsed = parse(name)
        self._shelf = shelf
        self._hex = parsed.digest.hex
        self._kept: list[bytes] | None = [] if parsed.title.startswith(KEPT) else None
        self._sha256 = hashlib.sha256()
        self.size = 0

    def add(self, data: bytes) -> None:
        """Some bytes."""
        self._sha256.update(data)
        self.size += len(data)
        if self._kept is not None and data:
            self._kept.append(data)

    def finish(self) -> bool:
        """Whether it was what its name says; if so it is known from here on."""
        if self._sha256.hexdigest() != self._hex:
            return False
        self._shelf.put(self._hex, self.size, self._kept)
        return True


class Shelf:
    """Sizes by digest, and the pieces of what is kept."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._pieces: dict[str, list[bytes]] = {}

    def upload(self, name: str) -> Upload:
        """Begin an upload under a resource name."""
        return Upload(self, name)

    def put(self, digest: str, size: int, pieces: list[bytes] | None) -> None:
        """Take note of a complete artifact."""
        self._sizes[digest] = size
        if pieces is not None:
            self._pieces[digest] = pieces

    def pieces(self, digest: str) -> list[bytes] | None:
        """What was kept under a digest."""
        return self._pieces.get(digest)

    def size(self, digest: str) -> int | None:
        """The size of what came under a digest."""
        return self._sizes.get(digest)
