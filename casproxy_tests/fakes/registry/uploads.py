"""Upload sessions of the fake registry: POST, PATCH, PUT, DELETE, and every way in which registries refuse them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from casproxy_tests.fakes.registry.http import Exchange
from casproxy_tests.fakes.registry.store import Session, sha256

if TYPE_CHECKING:
    from casproxy_tests.fakes.registry.app import FakeRegistry

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Uploads:
    """Handles one request to ``/blobs/uploads/``."""

    def __init__(self, registry: FakeRegistry) -> None:
        self._registry = registry
        self._profile = registry.profile
        self._store = registry.store

    async def handle(self, exchange: Exchange, step: str, repository: str, name: str) -> None:
        if step == "post":
            await self._accepted(exchange, self._store.begin(repository))
            return
        session = self._store.sessions.get(name)
        if session is None or session.repository != repository:
            await self._registry.error(exchange, 404, "BLOB_UPLOAD_UNKNOWN")
        elif self._is_stale(exchange, session):
            await self._registry.error(exchange, 404, "BLOB_UPLOAD_INVALID", "not the newest Location")
        elif step == "delete":
            del self._store.sessions[name]
            await self._registry.answer(exchange, 204)
        elif step == "status":
            await self._registry.answer(exchange, 204, self._progress(session, name))
        elif step == "patch":
            await self._patch(exchange, session, name)
        else:
            await self._put(exchange, session, name)

    def _is_stale(self, exchange: Exchange, session: Session) -> bool:
        """Only the newest Location is good, and none once bytes have come of which the client was told nothing."""
        return self._profile.signs_offset and exchange.request.query.get("_state") != session.signature

    async def _patch(self, exchange: Exchange, session: Session, name: str) -> None:
        headers, profile = exchange.request.headers, self._profile
        length = int(headers["content-length"]) if "content-length" in headers else None
        refused = 0
        if "content-range" not in headers:
            refused = 0 if profile.streaming_patch else 416
        else:
            start, end = (int(part) for part in headers["content-range"].split("-"))
            too_long = profile.max_ranged_patch is not None and end - start + 1 > profile.max_ranged_patch
            if start != len(session.data) or too_long or not profile.ranged_patch:
                refused = 416 if profile.ranged_patch else 405
            elif length != end - start + 1:
                refused = 400
        if profile.patch_needs_length and length is None:
            refused = 411
        if refused:
            await self._registry.error(exchange, refused, "BLOB_UPLOAD_INVALID", f"refused by {profile.name}")
            return
        while data := await exchange.receive():
            session.data += data
        session.first_range = session.first_range or self._range(session)
        session.state += 1
        await self._accepted(exchange, name)

    async def _put(self, exchange: Exchange, session: Session, name: str) -> None:
        profile, digest = self._profile, exchange.request.query.get("digest", "")
        length = int(exchange.request.headers.get("content-length", 0))
        if not profile.monolithic_put and length:
            await self._registry.error(exchange, 405, "UNSUPPORTED", f"refused by {profile.name}")
            return
        if profile.max_monolithic_put is not None and length > profile.max_monolithic_put:
            await exchange.respond(413, {"content-type": "text/html"}, b"<h1>413 Request Entity Too Large</h1>")
            return
        while data := await exchange.receive():
            session.data += data
        lying = digest in self._registry.lies
        if not _DIGEST.fullmatch(digest) or (sha256(session.data) != digest and not lying):
            del self._store.sessions[name]
            await self._registry.error(exchange, 400, "DIGEST_INVALID")
            return
        if profile.refuses_empty_layer and not session.data:
            await self._registry.error(exchange, 400, "BLOB_UPLOAD_INVALID", "empty")
            return
        if lying:
            self._registry.lies.remove(digest)
            session.data[0] ^= 0xFF
        self._store.repository(session.repository).blobs[digest] = bytes(session.data)
        del self._store.sessions[name]
        location = f"/v2/{session.repository}/blobs/{digest}"
        await self._registry.answer(exchange, 201, {"location": location, "docker-content-digest": digest})

    async def _accepted(self, exchange: Exchange, name: str) -> None:
        await self._registry.answer(exchange, 202, self._progress(self._store.sessions[name], name))

    def _progress(self, session: Session, name: str) -> dict[str, str]:
        base = self._registry.upload_base or (self._registry.server.url if self._profile.absolute_location else "")
        headers = {
            "location": f"{base}/v2/{session.repository}/blobs/uploads/{name}?_state={session.signature}",
            "docker-upload-uuid": name,
            "range": session.first_range
            if self._profile.sticky_range and session.first_range
            else self._range(session),
        }
        return headers | ({"oci-chunk-min-length": str(self._profile.min_chunk)} if self._profile.min_chunk else {})

    @staticmethod
    def _range(session: Session) -> str:
        return f"0-{max(0, len(session.data) - 1)}"
