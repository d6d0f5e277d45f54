"""The fake registry is a registry: the smoke suite, the same that docker-registry passes, and its scripted faults."""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from casproxy_tests.fakes.registry import (
    Account,
    Answer,
    Auth,
    Basic,
    Bearer,
    FakeRegistry,
    Fault,
    Hangup,
    Phase,
    Profile,
    serve_registry,
    smoke,
)
from casproxy_tests.fakes.registry.http import serve_http
from casproxy_tests.fakes.registry.store import sha256
from casproxy_tests.real.certificates import client_context, server_context
from casproxy_tests.real.registry import Access, running_registry

CREDENTIALS = ("alice", "alices-password")
ACCOUNTS = {"alice": Account("alices-password")}
DATA = b"0123456789" * 50_000


class _Token(httpx.Auth):
    """The token dance in its simplest form: ask when refused, keep what was given."""

    requires_response_body = True

    def __init__(self) -> None:
        self._held = "none"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["authorization"] = f"Bearer {self._held}"
        answer = yield request
        if answer.status_code == 401:
            fields = dict(re.findall(r'(\w+)="([^"]*)"', answer.headers["www-authenticate"]))
            realm = httpx.URL(fields["realm"]).copy_merge_params(
                {name: fields[name] for name in ("service", "scope") if name in fields}
            )
            answer = yield next(httpx.BasicAuth(*CREDENTIALS).auth_flow(httpx.Request("GET", realm)))
            self._held = answer.json()["token"]
            request.headers["authorization"] = f"Bearer {self._held}"
            yield request


class _Pieces(httpx.AsyncByteStream):
    """A body in pieces. Not bytes: httpx leaves the generator that it makes of them to the garbage collector."""

    def __init__(self, *pieces: bytes) -> None:
        self._left = list(pieces)

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop(0)


async def patch(client: httpx.AsyncClient, location: str, *pieces: bytes) -> httpx.Response:
    headers = {"transfer-encoding": "chunked"}
    request = client.build_request("PATCH", location, headers=headers)
    request.stream = _Pieces(*pieces)
    return await client.send(request)


@asynccontextmanager
async def client_of(url: str, auth: httpx.Auth | None = None) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=url, verify=client_context(), trust_env=False, auth=auth, timeout=20
    ) as client:
        yield client


@asynccontextmanager
async def served(
    auth: Auth | None = None, tls: ssl.SSLContext | None = None, client_auth: httpx.Auth | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a fake registry."""
    async with serve_registry(auth=auth, tls=tls) as registry, client_of(registry.server.url, client_auth) as client:
        yield client


@pytest.mark.parametrize("name", smoke.CHECKS)
@pytest.mark.parametrize("kind", ["anonymous", "basic", "bearer over TLS", "real"])
async def test_smoke(name: str, kind: str, tmp_path: Path) -> None:
    check = smoke.CHECKS[name]
    if kind == "real":
        async with running_registry(tmp_path / "registry") as real, client_of(real.url) as client:
            await check(client, "some/repository")
    elif kind == "basic":
        async with served(auth=Basic(ACCOUNTS), client_auth=httpx.BasicAuth(*CREDENTIALS)) as client:
            await check(client, "some/repository")
    elif kind == "bearer over TLS":
        async with served(auth=Bearer(ACCOUNTS), tls=server_context(tmp_path), client_auth=_Token()) as client:
            await check(client, "some/repository")
    else:
        async with served() as client:
            await check(client, "some/repository")


@pytest.mark.parametrize("access", list(Access), ids=lambda access: access.name.lower())
async def test_real_registries_let_in_whom_they_should(access: Access, tmp_path: Path) -> None:
    auth = {Access.ANONYMOUS: None, Access.BASIC: httpx.BasicAuth(*CREDENTIALS), Access.BEARER_TLS: _Token()}[access]
    async with running_registry(tmp_path / "registry", access) as real:
        async with client_of(real.url, auth) as client:
            await smoke.check_manifest(client, "some/repository")
            assert len(real.visible()) == 3 and not real.sessions()
        async with client_of(real.url) as stranger:
            wanted = {"accept": smoke.MANIFEST_TYPE}
            refused = (await stranger.get("/v2/some/repository/manifests/latest", headers=wanted)).status_code
        assert refused == (200 if access is Access.ANONYMOUS else 401)


async def test_real_registry_survives_its_death(tmp_path: Path) -> None:
    async with running_registry(tmp_path / "registry") as real, client_of(real.url) as client:
        digest = await smoke.push_blob(client, "some/repository", DATA)
        await smoke.begin(client, "some/repository")
        port = real.port
        real.kill()
        with pytest.raises(httpx.TransportError):
            await client.get("/v2/")
        await real.start()
        assert (await client.get(f"/v2/some/repository/blobs/{digest}")).content == DATA
        assert real.port == port and len(real.sessions()) == 1


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with serve_registry() as served:
        yield served


@pytest.mark.parametrize("phase", [Phase.HEAD, Phase.BODY, Phase.ANSWER])
@pytest.mark.parametrize("hangup", [Hangup.RESET, Hangup.CLOSE])
async def test_hanging_up(registry: FakeRegistry, hangup: Hangup, phase: Phase) -> None:
    registry.script(Fault("patch", hangup, phase, after_bytes=250_000 if phase is Phase.BODY else 0))
    async with client_of(registry.server.url) as client:
        location = await smoke.begin(client, "r")
        with pytest.raises(httpx.TransportError):
            await patch(client, location, DATA)
        await registry.server.settle()
        (session,) = registry.store.sessions.values()
        assert len(session.data) == {Phase.HEAD: 0, Phase.BODY: 250_000, Phase.ANSWER: len(DATA)}[phase]
    await registry.server.settle_closed()
    assert [(asked.step, asked.status) for asked in registry.asked] == [("post", 202), ("patch", None)]


@pytest.mark.parametrize("phase", [Phase.HEAD, Phase.BODY, Phase.ANSWER])
async def test_black_hole(registry: FakeRegistry, phase: Phase, autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    registry.script(Fault("patch", Hangup.BLACK_HOLE, phase, after_bytes=250_000 if phase is Phase.BODY else 0))
    async with client_of(registry.server.url) as client:
        location = await smoke.begin(client, "r")
        with pytest.raises(httpx.TimeoutException):
            await patch(client, location, DATA, DATA, DATA * 40)
    await registry.server.settle_closed()


async def test_an_answer_in_the_middle_of_a_body(registry: FakeRegistry) -> None:
    registry.script(Fault("patch", Answer(429, {"retry-after": "7"}), Phase.BODY, after_bytes=300_000))
    async with client_of(registry.server.url) as client:
        answer = await client.patch(await smoke.begin(client, "r"), content=DATA)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
        assert (await client.get("/v2/")).status_code == 200


async def test_spoilt_answers(registry: FakeRegistry) -> None:
    async with client_of(registry.server.url) as client:
        digest = await smoke.push_blob(client, "r", DATA)
        registry.script(Fault("blob-get", flip=123_456))
        got = (await client.get(f"/v2/r/blobs/{digest}")).content
        assert [index for index in range(len(DATA)) if got[index] != DATA[index]] == [123_456]
        registry.script(Fault("blob-get", Hangup.CLOSE, Phase.ANSWER_BODY, after_bytes=200_000))
        with pytest.raises(httpx.RemoteProtocolError, match="received 200000 bytes"):
            await client.get(f"/v2/r/blobs/{digest}")
        registry.script(Fault("blob-get", headers={"content-encoding": "gzip", "docker-content-digest": ""}))
        async with client.stream("GET", f"/v2/r/blobs/{digest}") as answer:
            assert answer.headers["content-encoding"] == "gzip" and "docker-content-digest" not in answer.headers
        registry.lies.add(sha256(b"honest"))
        assert await smoke.push_blob(client, "r", b"honest") in registry.store.repositories["r"].blobs
        assert (await client.get(f"/v2/r/blobs/{sha256(b'honest')}")).content != b"honest"


async def test_how_often(registry: FakeRegistry) -> None:
    once, always = Fault("ping", Answer(500), skip=1), Fault("tags", Answer(503), times=math.inf)
    registry.script(once, always)
    async with client_of(registry.server.url) as client:
        assert [(await client.get("/v2/")).status_code for _ in range(4)] == [200, 500, 200, 200]
        assert {(await client.get("/v2/r/tags/list")).status_code for _ in range(4)} == {503}
    assert (once.hits, always.hits) == (1, 4)


async def test_tokens_grow_old(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    auth = Bearer(ACCOUNTS, lifetime=5)
    async with serve_registry(auth=auth) as registry, client_of(registry.server.url) as client:
        query = {"service": "fake-registry", "scope": "repository:r:pull,push"}
        token = (await client.get("/token", params=query, auth=CREDENTIALS)).json()
        assert token["expires_in"] == 5
        held = {"authorization": f"Bearer {token['token']}"}
        assert (await client.post("/v2/r/blobs/uploads/", headers=held)).status_code == 202
        other = await client.post("/v2/other/blobs/uploads/", headers=held)
        assert other.status_code == 401 and "insufficient_scope" in other.headers["www-authenticate"]
        await trio.sleep(6)
        late = await client.post("/v2/r/blobs/uploads/", headers=held)
        assert late.status_code == 401 and "invalid_token" in late.headers["www-authenticate"]
        assert (await client.get("/token", params=query, auth=("alice", "wrong"))).status_code == 401


async def test_redirects_to_another_origin(registry: FakeRegistry) -> None:
    async with serve_http(registry.handle) as elsewhere, client_of(registry.server.url) as client:
        digest = await smoke.push_blob(client, "r", DATA)
        registry.redirect_to = elsewhere.url
        answer = await client.get(f"/v2/r/blobs/{digest}", headers={"range": "bytes=5-9"})
        assert answer.status_code == 307
        followed = await client.get(answer.headers["location"], headers={"range": "bytes=5-9"})
        assert (followed.status_code, followed.content) == (206, b"56789")


async def test_cookies_that_come_back_break_it() -> None:
    async with serve_registry(profile=Profile(cookies=True)) as registry, client_of(registry.server.url) as client:
        assert (await client.get("/v2/")).status_code == 200
        assert (await client.get("/v2/")).status_code == 403
