"""Owns looking an artifact up within a deadline. Refuses to know why it is looked up."""

from __future__ import annotations

import math

import trio

from casproxy.digest import Digest
from casproxy.errors import ArtifactNotFound, BackendUnavailable, LookupRefused
from casproxy.pipeline.api import Limits
from casproxy.storage.api import Backend, Resource


async def describe(backend: Backend, digest: Digest, limits: Limits, *, by: float = math.inf) -> Resource:
    """The stored artifact's metadata, within ``lookup_timeout``; ``ArtifactNotFound``, other ``StorageError``.

    ``by``: when the caller is cancelled in any case, on Trio's clock. Where that comes first there is no need for a
    scope. (Asking Trio for it takes as long as a scope: it looks at all nurseries around.)
    """
    deadline = trio.current_time() + limits.lookup_timeout
    if by <= deadline:
        return await backend.describe(digest)
    with trio.CancelScope(deadline=deadline):
        return await backend.describe(digest)
    raise BackendUnavailable(f"the store did not answer within {limits.lookup_timeout:g} s")


async def find(backend: Backend, digest: Digest, limits: Limits, *, by: float = math.inf) -> Resource | None:
    """Like ``describe``, but None when nothing is stored under ``digest``, or the store will not say.

    Then an upload finds out, and only its refusal is one: registries refuse to look where nothing was ever stored.
    """
    try:
        return await describe(backend, digest, limits, by=by)
    except (ArtifactNotFound, LookupRefused):
        return None
