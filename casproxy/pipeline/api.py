"""Owns the pipeline's doors: where bytes come from, where they go, and its settings. Refuses to know gRPC and stores.

Sources and sinks are small on purpose: the gRPC services, the HTTP door and the tests implement them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from casproxy.digest import Digest
from casproxy.storage.api import Piece


class UploadSource(Protocol):
    """The sender's side of an upload. One consumer."""

    async def receive(self) -> list[Piece]:
        """Wait for artifact bytes: at least one part, or ``[]`` once the sender has finished.

        An empty part is a keepalive: it carries nothing, but its sender is alive.
        Cancellation loses nothing: what was not returned is returned by the next call. Errors:
        ``InvalidRequest`` (the sender broke a rule), ``PeerGone``.
        """

    def receive_nowait(self) -> list[Piece] | None:
        """What has already arrived, as ``receive`` would give it; None when nothing is there yet."""

    def hand_on(self, size: int) -> None:
        """``size`` bytes given by ``receive`` have been taken by the store: their credit may go back."""

    def starved(self) -> bool:
        """True when the sender can send nothing more until bytes are handed on: a piece must not wait to be full."""


class DownloadSink(Protocol):
    """The receiver's side of a download. One producer."""

    async def send(self, piece: Piece) -> None:
        """Send 1 byte to 1 MiB; returns when flow control let it go. Errors: ``PeerGone``, ``PeerTooSlow``."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one transfer may use. Sizes in bytes, times in seconds."""

    piece_size: int = 256 * 1024
    """A piece is handed on when it holds this much; never more than 1 MiB (hashing is inline: performance.md)."""
    queued_pieces: int = 2
    """Depth of each of the two channels."""
    idle_timeout: float = 60.0
    """A peer that holds credit and makes less than ``min_rate`` of progress for this long is ended."""
    min_rate: float = 1.0
    """Bytes per second, over ``idle_timeout``."""
    linger: float = 0.005
    """How long a part-filled piece waits for more before it is handed on (the sender pauses)."""
    lookup_timeout: float = 30.0
    """The longest one look-up in the store (exists? how long?) may take."""
    abort_timeout: float = 5.0
    """The longest the release of a failed upload may hold up its answer."""
    resume_attempts: int = 3
    """How often one download may reopen a broken connection to the store, from the byte it had reached."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an upload must turn out to be. ``size``: bytes, None = not declared. ``max_bytes``: 0 = no cap."""

    digest: Digest
    size: int | None = None
    max_bytes: int = 0
