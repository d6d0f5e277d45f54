"""A registry after the distribution specification 1.1, in memory, with scripted faults. Nothing of it is ours.

::

    async with serve_registry(auth=Basic({"me": Account("pw")}), profile=PROFILES["ACR"]) as registry:
        registry.script(Fault("patch", Hangup.RESET, Phase.BODY, after_bytes=700_000))
        ...                                    # registry.host is what a secret's Repo begins with
        assert registry.steps == ["post", "patch", "delete"]
        assert not registry.store.sessions

It takes what the reference registry takes and passes the same smoke suite; a profile makes it as peculiar as others.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from casproxy_tests.fakes.registry.auth import Anonymous, Auth, Bearer
from casproxy_tests.fakes.registry.faults import Fault
from casproxy_tests.fakes.registry.http import Body, Exchange, HttpServer, serve_http
from casproxy_tests.fakes.registry.profiles import Profile
from casproxy_tests.fakes.registry.store import Manifest, Store
from casproxy_tests.fakes.registry.uploads import Uploads

_PREFIX = r"/v2/(?P<repository>[a-z0-9._/-]+)"
_ROUTES = [
    (re.compile(pattern), {**dict(zip(methods[::2], methods[1::2], strict=True))})
    for pattern, *methods in (
        (r"/v2/", "GET", "ping"),
        (r"/token", "GET", "token"),
        (rf"{_PREFIX}/blobs/uploads/", "POST", "post"),
        (
            rf"{_PREFIX}/blobs/uploads/(?P<session>[^/]+)",
            "PATCH",
            "patch",
            "PUT",
            "put",
            "DELETE",
            "delete",
            "GET",
            "status",
        ),
        (rf"{_PREFIX}/blobs/(?P<digest>sha256:[0-9a-f]{{64}})", "GET", "blob-get", "HEAD", "blob-head"),
        (
            rf"{_PREFIX}/manifests/(?P<reference>[^/]+)",
            "GET",
            "manifest-get",
            "HEAD",
            "manifest-head",
            "PUT",
            "manifest-put",
        ),
        (rf"{_PREFIX}/tags/list", "GET", "tags"),
        (r"/elsewhere/(?P<repository>.+)/(?P<digest>sha256:[0-9a-f]{64})", "GET", "elsewhere-get"),
    )
]
STEPS = frozenset(step for _, methods in _ROUTES for step in methods.values())
_ACTIONS = {**dict.fromkeys(("post", "patch", "put", "status", "manifest-put"), "pull,push"), "delete": "delete"}
"""What a step must be allowed; others: ``pull``."""
_OPEN = frozenset({"token", "elsewhere-get"})


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came, and what it was answered (None: nothing)."""

    step: str
    method: str
    target: str
    headers: Mapping[str, str]
    connection: int
    status: int | None


@dataclass(slots=True)
class FakeRegistry:
    """``server`` is set while it serves."""

    auth: Auth = field(default_factory=Anonymous)
    profile: Profile = field(default_factory=Profile)
    store: Store = field(default_factory=Store)
    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    redirect_to: str = ""
    """Origin (``scheme://host:port``) that blob GETs are sent to; it may be another server with the same handler."""
    upload_base: str = ""
    """What upload locations begin with instead of this registry's own URL."""
    lies: set[str] = field(default_factory=set)
    """Digests of blobs that are kept with a byte changed, though 201 is answered."""
    _server: HttpServer | None = None
    _limited: int = 0

    @property
    def server(self) -> HttpServer:
        assert self._server is not None
        return self._server

    @property
    def host(self) -> str:
        return self.server.host

    @property
    def steps(self) -> list[str]:
        """The names of the requests so far, in order of their end; the token endpoint's too."""
        return [asked.step for asked in self.asked]

    def script(self, *faults: Fault) -> None:
        assert all(fault.step in STEPS or not fault.step for fault in faults), "no such step"
        self.faults.extend(faults)

    def flip(self, digest: str) -> None:
        """Change one byte of a blob wherever it is kept."""
        for repository in self.store.repositories.values():
            if digest in repository.blobs:
                data = repository.blobs[digest]
                repository.blobs[digest] = bytes([data[0] ^ 0xFF]) + data[1:]

    def cut(self, digest: str) -> None:
        """Take away the second half of a blob; answers on their way break off."""
        for repository in self.store.repositories.values():
            if digest in repository.blobs:
                repository.blobs[digest] = repository.blobs[digest][: len(repository.blobs[digest]) // 2]
        self.server.reset_busy()

    async def handle(self, exchange: Exchange) -> None:
        """Every request."""
        request = exchange.request
        step, found = "unknown", {}
        for pattern, methods in _ROUTES:
            match = pattern.fullmatch(request.path)
            if match and request.method in methods:
                step, found = methods[request.method], match.groupdict()
        try:
            await exchange.meet([fault for fault in self.faults if fault.claims(step, request.target)])
            if await self._admit(exchange, step, found.get("repository", "")):
                await self._dispatch(exchange, step, found)
        finally:
            self.asked.append(
                Asked(step, request.method, request.target, request.headers, request.connection, exchange.status)
            )

    async def _admit(self, exchange: Exchange, step: str, repository: str) -> bool:
        """Profile and auth; False when the answer was given here."""
        if self._limited < self.profile.rate_limited:
            self._limited += 1
            await exchange.respond(429, {}, b"\n")
            return False
        if self.profile.cookies and "cookie" in exchange.request.headers:
            await self.error(exchange, 403, "FORBIDDEN", "CSRF token invalid")
            return False
        if step in _OPEN:
            return True
        refusal = self.auth.refusal(exchange.request, repository, _ACTIONS.get(step, "pull"))
        if refusal is None:
            return True
        headers = {"www-authenticate": refusal.challenge} if refusal.challenge else {}
        await self.error(
            exchange, refusal.status, "UNAUTHORIZED" if refusal.status == 401 else "DENIED", headers=headers
        )
        return False

    async def _dispatch(self, exchange: Exchange, step: str, found: Mapping[str, str]) -> None:
        repository = found.get("repository", "")
        if step == "ping":
            await self.answer(exchange, 200, {}, b"{}")
        elif step == "token" and isinstance(self.auth, Bearer):
            await self.auth.serve_token(exchange)
        elif step in ("post", "patch", "put", "delete", "status"):
            await Uploads(self).handle(exchange, step, repository, found.get("session", ""))
        elif step in ("blob-get", "blob-head", "elsewhere-get"):
            await self._blob(exchange, step, repository, found["digest"])
        elif step in ("manifest-get", "manifest-head"):
            await self._manifest(exchange, repository, found["reference"])
        elif step == "manifest-put":
            await self._put_manifest(exchange, repository, found["reference"])
        elif step == "tags" and repository in self.store.repositories:
            kept = self.store.repositories[repository].manifests
            tags = [reference for reference in kept if not reference.startswith("sha256:")]
            await self.answer(exchange, 200, {}, json.dumps({"name": repository, "tags": tags}).encode())
        else:
            await self.error(exchange, 404, "NAME_UNKNOWN")

    async def _blob(self, exchange: Exchange, step: str, repository: str, digest: str) -> None:
        data = self.store.blob(repository, digest)
        if data is None:
            await self.error(exchange, 404, "BLOB_UNKNOWN")
        elif self.redirect_to and step == "blob-get":
            location = f"{self.redirect_to}/elsewhere/{repository}/{digest}?X-Signature=a%2Bb"
            await self.answer(exchange, 307, {"location": location})
        else:
            headers = {"docker-content-digest": digest, "content-type": "application/octet-stream"}
            await self._ranged(exchange, headers, data)

    async def _ranged(self, exchange: Exchange, headers: dict[str, str], data: bytes) -> None:
        """RFC 9110, section 14: one range; others are ignored."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", exchange.request.headers.get("range", ""))
        if match is None or exchange.request.method == "HEAD":
            await self.answer(
                exchange, 200, {**headers, "content-length": str(len(data)), "accept-ranges": "bytes"}, data
            )
            return
        start, end = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
        if start > end:
            await self.answer(exchange, 416, {"content-range": f"bytes */{len(data)}"})
            return
        headers["content-range"] = f"bytes {start}-{end}/{len(data)}"
        await self.answer(exchange, 206, headers, memoryview(data)[start : end + 1])

    async def _manifest(self, exchange: Exchange, repository: str, reference: str) -> None:
        manifest = self.store.manifest(repository, reference)
        if manifest is None or manifest.media_type not in exchange.request.headers.get("accept", ""):
            unknown = 404 if repository in self.store.repositories else self.profile.unknown_repository
            await self.error(exchange, unknown, "MANIFEST_UNKNOWN" if unknown == 404 else "DENIED")
            return
        headers = {"docker-content-digest": manifest.digest, "content-type": manifest.media_type}
        await self.answer(exchange, 200, {**headers, "content-length": str(len(manifest.data))}, manifest.data)

    async def _put_manifest(self, exchange: Exchange, repository: str, reference: str) -> None:
        request = exchange.request
        if self.profile.manifest_needs_length and "content-length" not in request.headers:
            await self.error(exchange, 400, "SIZE_INVALID")
            return
        manifest = Manifest(request.headers.get("content-type", ""), await exchange.read())
        try:
            config, missing = (
                json.loads(manifest.data)["config"],
                [digest for digest in manifest.references() if self.store.blob(repository, digest) is None],
            )
        except (ValueError, KeyError, TypeError):
            await self.error(exchange, 400, "MANIFEST_INVALID")
            return
        types = self.profile.config_types
        if missing or (types and config["mediaType"] not in types):
            await self.error(exchange, 400, "MANIFEST_BLOB_UNKNOWN" if missing else "MANIFEST_INVALID")
            return
        kept = self.store.repository(repository).manifests
        kept[reference] = kept[manifest.digest] = manifest
        location = f"/v2/{repository}/manifests/{manifest.digest}"
        await self.answer(exchange, 201, {"location": location, "docker-content-digest": manifest.digest})

    async def answer(
        self, exchange: Exchange, status: int, headers: Mapping[str, str] | None = None, body: Body = b""
    ) -> None:
        """Answer with what every answer of this registry carries."""
        common = {"docker-distribution-api-version": "registry/2.0"}
        if self.profile.cookies:
            common["set-cookie"] = "sid=of-one-tenant; Path=/; HttpOnly"
        await exchange.respond(status, {**common, **(headers or {})}, body)

    async def error(
        self, exchange: Exchange, status: int, code: str, message: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """An error document of the distribution specification."""
        body = json.dumps({"errors": [{"code": code, "message": message or code.lower()}]}).encode()
        await self.answer(exchange, status, {"content-type": "application/json", **(headers or {})}, body)


@asynccontextmanager
async def serve_registry(
    *, auth: Auth | None = None, profile: Profile | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[FakeRegistry]:
    """A registry on loopback for the block, empty at the start."""
    registry = FakeRegistry(auth or Anonymous(), profile or Profile())
    async with serve_http(registry.handle, tls=tls) as server:
        registry._server = server
        if isinstance(registry.auth, Bearer) and not registry.auth.realm:
            registry.auth.realm = f"{server.url}/token"
        yield registry
