"""Owns what the suite needs beyond the contract: a look at everything that a store keeps, and ways to damage it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from casproxy.digest import Digest
from casproxy.storage.api import Backend


@dataclass(frozen=True, slots=True)
class Store:
    """One place, empty at the start."""

    backend: Backend
    twin: Backend
    """The same place opened a second time, as another process does."""
    snapshot: Callable[[], Mapping[str, str]]
    """Everything that is kept there, uploads in progress included: name -> fingerprint."""
    settle: Callable[[], Awaitable[None]]
    """Wait for what a cancelled call may rightly leave running for a moment."""
    flip: Callable[[Digest], None]
    """Change one stored byte of an artifact, not its size."""
    stride: int = 1
    """Cancel at every n-th await only: for what is slow and has a faster twin in the list."""
    cut: Callable[[Digest], None] | None = None
    """Take away the second half of a stored artifact; None when the store cannot lose bytes."""


OpenStore: TypeAlias = Callable[[Path], AbstractAsyncContextManager[Store]]
