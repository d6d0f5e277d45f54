"""Owns the distribution API for one repository: each method one request, with what its answers mean.

Nothing is retried here; ``Access.retries`` does, for whoever knows that a step may be taken twice. A session's newest
``Location`` is the only way to it: registries sign their state into it.

Source: OCI distribution-spec 1.1, "Pushing blobs", "Pulling blobs", "Pushing manifests".
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from casproxy.digest import Digest
from casproxy.errors import ArtifactNotFound, BackendBroken, BackendRefused, LookupRefused
from casproxy.outbound.address import Url
from casproxy.outbound.connection import Response
from casproxy.outbound.grace import outlast
from casproxy.outbound.message import Body, Buffer
from casproxy.storage.oci.access import Access, Answer, Call
from casproxy.storage.oci.errors import DENIED, WAY_REFUSED, Busy, RawAnswer
from casproxy.storage.stored_form import MANIFEST_TYPE, MAX_DOCUMENT_BYTES, TAG, Document

_OCTETS: Final = ("Content-Type", "application/octet-stream")
_ACCEPT: Final = ("Accept", f"{MANIFEST_TYPE}, application/vnd.docker.distribution.manifest.v2+json;q=0.5")
_FINISH_BYTES_PER_SECOND: Final = 20 * 1024 * 1024
"""What a registry may take to move a finished upload into place: some copy it."""
_PATIENCE: Final = 60.0
_GRACE_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 6 * 3600.0


@dataclass(slots=True, eq=False)
class Session:
    """An upload the registry keeps open. ``min_chunk``: the least bytes of a chunk but the last."""

    location: Url
    min_chunk: int = 0


class Repository:
    """The repository ``name`` at the registry behind ``access``."""

    def __init__(self, access: Access, name: str) -> None:
        self.access = access
        self.name = name
        self._pull = f"repository:{name}:pull"
        self._push = f"repository:{name}:pull,push"
        self._delete = f"repository:{name}:delete"  # docker-registry wants it even for an upload in progress

    async def manifest(self, digest: Digest) -> bytes:
        """The manifest of the artifact ``digest``. ``ArtifactNotFound``; ``LookupRefused`` for refused credentials."""
        doing = "looking for an artifact"
        answer = await self.access.fetch(
            Call(
                "GET",
                f"/v2/{self.name}/manifests/{TAG}",
                self._pull,
                doing,
                {200, 404, *DENIED},
                headers=(_ACCEPT,),
                max_answer=MAX_DOCUMENT_BYTES,
            )
        )
        if answer.status == 404:
            raise ArtifactNotFound(digest)
        if answer.status in DENIED:
            text = f"{self.access.registry}: {doing}: the registry refused the credentials"
            raise LookupRefused(text) from RawAnswer(answer.status, answer.body)
        self._check_digest(answer, Digest.of(answer.body), doing)
        return answer.body

    @asynccontextmanager
    async def blob(self, digest: Digest, offset: int, end: int, size: int) -> AsyncIterator[Response]:
        """The bytes of a blob of ``size`` from ``offset`` to ``end``; status 200: all of it, for it ignores ranges."""
        ranged = (("Range", f"bytes={offset}-{end - 1}"),) if end - offset < size else ()
        call = Call(
            "GET",
            f"/v2/{self.name}/blobs/{digest}",
            self._pull,
            "reading an artifact",
            {200, 206} if ranged else {200},
            headers=(("Accept", "*/*"), *ranged),
        )
        async with self.access.stream(call) as response:
            yield response

    async def start(self) -> Session:
        """Open an upload session."""
        answer = await self.access.fetch(
            Call("POST", f"/v2/{self.name}/blobs/uploads/", self._push, "starting an upload", {202})
        )
        least = answer.headers.get("oci-chunk-min-length", "")
        return Session(answer.location(), int(least) if least.isdecimal() and len(least) < 12 else 0)

    async def patch(self, session: Session, body: Buffer | Body, at: int | None = None) -> None:
        """Send bytes into a session: all that comes, or a chunk that begins ``at``. ``WayRefused``."""
        headers = [_OCTETS]
        if at is not None:
            size = len(body) if isinstance(body, bytes | bytearray | memoryview) else body.size
            if size is None:
                raise ValueError("a chunk has a size")
            headers.append(("Content-Range", f"{at}-{at + size - 1}"))
        answer = await self._in_order(
            Call(
                "PATCH",
                session.location,
                self._push,
                "uploading",
                {202, 201, 204},
                refusals=WAY_REFUSED,
                headers=tuple(headers),
                body=body,
                answer_timeout=_PATIENCE,
            )
        )
        if "location" in answer.headers:
            session.location = answer.location()

    async def finish(self, session: Session, digest: Digest, size: int, body: Buffer | Body = b"") -> None:
        """End a session: its bytes, and those of ``body`` if it is sent whole, become a blob. ``WayRefused``."""
        whole = (_OCTETS,) if not isinstance(body, bytes) or body else ()
        doing = "finishing an upload"
        answer = await self._in_order(
            Call(
                "PUT",
                session.location.with_query(digest=str(digest)),
                self._push,
                doing,
                {201, 204},
                refusals=WAY_REFUSED,
                headers=whole,
                body=body,
                answer_timeout=_PATIENCE + size / _FINISH_BYTES_PER_SECOND,
            )
        )
        self._check_digest(answer, digest, doing)

    async def has_blob(self, digest: Digest, size: int) -> bool:
        """Whether a blob is there already, of this size."""
        target = f"/v2/{self.name}/blobs/{digest}"
        answer = await self.access.fetch(Call("HEAD", target, self._push, "looking for a blob", {200, 404}))
        return answer.status == 200 and answer.headers.get("content-length") == str(size)

    async def abandon(self, session: Session) -> None:
        """Delete a session; one that is gone already is fine, and so is a registry that cannot delete."""
        wanted = {200, 202, 204, 404, 405}
        await self.access.fetch(Call("DELETE", session.location, self._delete, "leaving an upload", wanted))

    async def put_manifest(self, manifest: Document) -> None:
        """Make the artifact visible."""
        doing = "storing the manifest"
        answer = await self.access.fetch(
            Call(
                "PUT",
                f"/v2/{self.name}/manifests/{TAG}",
                self._push,
                doing,
                {201},
                headers=(("Content-Type", MANIFEST_TYPE),),
                body=manifest.data,
            )
        )
        self._check_digest(answer, manifest.digest, doing)

    async def _in_order(self, call: Call) -> Answer:
        """``fetch``; cancelled when all is sent already, it waits a moment for the end.

        A registry that is still at work on a session does not delete it, and afterwards has it for ever.
        """
        if not isinstance(call.body, bytes):
            return await self.access.fetch(call)
        answer: Answer | None = None

        async def fetch() -> None:
            nonlocal answer
            answer = await self.access.fetch(call)

        await outlast(_GRACE_SECONDS, _LONGEST_SECONDS, fetch)
        if answer is None:
            raise Busy(f"{self.access.registry}: {call.doing}: the registry did not answer in time")
        return answer

    def _check_digest(self, answer: Answer, digest: Digest, doing: str) -> None:
        """A registry that names another digest than ours has kept, or sent, other bytes."""
        named = answer.headers.get("docker-content-digest", "")
        if named.startswith("sha256:") and named != str(digest):
            raise BackendBroken(f"{self.access.registry}: {doing}: the registry names other bytes than it was given")


def refused_everywhere(access: Access, doing: str) -> BackendRefused:
    """No way of sending a layer is left."""
    return BackendRefused(f"{access.registry}: {doing}: the registry takes layers in none of the known ways")
