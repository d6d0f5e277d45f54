"""A tenant profits from nothing that another tenant, or the process, has: not a token, connection, cookie or upload.

Two tenants name the same repository at the same registry; one of them has a wrong password.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from casproxy.digest import Digest
from casproxy.wire.status import StatusCode
from casproxy_tests.conformance.traffic import MIB, content
from casproxy_tests.fakes.oci import OciProcess, open_process, secret
from casproxy_tests.fakes.registry import Account, Auth, Basic, Bearer, FakeRegistry, Profile, serve_registry
from casproxy_tests.fakes.registry.http import Exchange, serve_http
from casproxy_tests.faults.service import Caller, serve_backends
from casproxy_tests.real.certificates import client_context, server_context

DATA = content(2 * MIB + 5, seed=9)
DIGEST = Digest.of(DATA)
ACCOUNTS = {"alice": Account("alices-password"), "bob": Account("bobs-password", "bobs/")}
OK, REFUSED = StatusCode.OK, StatusCode.FAILED_PRECONDITION
MakeAuth = Callable[[Mapping[str, Account]], Auth]


@asynccontextmanager
async def shared(auth: Auth, profile: Profile | None = None) -> AsyncIterator[tuple[FakeRegistry, Caller]]:
    """One registry and one process, for all of ``tenants``."""
    async with (
        serve_registry(auth=auth, profile=profile) as registry,
        open_process() as process,
        tenants(registry, process) as caller,
    ):
        yield registry, caller


@asynccontextmanager
async def tenants(registry: FakeRegistry, process: OciProcess) -> AsyncIterator[Caller]:
    """``alice`` is who she says; ``mallory`` names her repository with a wrong password, ``bob`` with his own name."""
    process.secrets["alice"] = secret(registry.host, "alice", "alices-password")
    process.secrets["mallory"] = secret(registry.host, "alice", "guessed")
    process.secrets["bob"] = secret(registry.host, "bob", "bobs-password")
    async with serve_backends(process) as caller:
        yield caller


@pytest.mark.parametrize("auth", [Basic, Bearer])
@pytest.mark.parametrize("stranger", ["mallory", "bob"])
async def test_a_stranger_gets_nothing_after_the_owner(auth: MakeAuth, stranger: str) -> None:
    async with shared(auth(ACCOUNTS)) as (registry, caller):
        owner, other = caller.as_tenant("alice"), caller.as_tenant(stranger)
        assert (await owner.upload(DATA)).code is OK
        assert (await owner.download(DIGEST)).data == DATA
        before = registry.store.visible()
        for _ in range(2):
            got = await other.download(DIGEST)
            assert (got.code, got.data) == (REFUSED, b"")
            assert (await other.describe(DIGEST)).code is REFUSED
            assert (await other.upload(DATA)).code is REFUSED
            assert (await other.upload(content(1000, seed=1))).code is REFUSED
            assert (await owner.download(DIGEST)).data == DATA
        assert registry.store.visible() == before


@pytest.mark.parametrize("auth", [Basic, Bearer])
async def test_a_stranger_in_front_spoils_nothing_for_the_owner(auth: MakeAuth) -> None:
    async with shared(auth(ACCOUNTS)) as (_, caller):
        assert (await caller.as_tenant("mallory").upload(DATA)).code is REFUSED
        assert (await caller.as_tenant("alice").upload(DATA)).code is OK
        assert (await caller.as_tenant("mallory").download(DIGEST)).code is REFUSED


async def test_connections_are_not_shared() -> None:
    async with shared(Bearer(ACCOUNTS)) as (registry, caller):
        used: dict[str, set[int]] = {}
        for tenant in ("alice", "mallory", "bob"):
            for _ in range(3):
                registry.asked.clear()
                await caller.as_tenant(tenant).download(DIGEST)
                used.setdefault(tenant, set()).update(asked.connection for asked in registry.asked)
        assert used["alice"].isdisjoint(used["mallory"] | used["bob"])
        assert used["mallory"].isdisjoint(used["bob"])
        assert all(len(connections) <= 2 for connections in used.values()), "kept connections are used again"


async def test_cookies_are_forgotten() -> None:
    async with shared(Basic(ACCOUNTS), Profile(cookies=True)) as (registry, caller):
        for tenant, code in (("alice", OK), ("mallory", REFUSED), ("alice", OK)):
            assert (await caller.as_tenant(tenant).upload(DATA)).code is code
        assert not any("cookie" in asked.headers for asked in registry.asked)


async def test_nobody_joins_an_upload_of_another_tenant() -> None:
    """One flight per artifact, but only among the same credentials: nobody waits for a stranger's success."""
    async with shared(Bearer(ACCOUNTS)) as (_, caller):
        codes: dict[str, set[StatusCode]] = {"alice": set(), "mallory": set(), "bob": set()}

        async def upload(tenant: str) -> None:
            codes[tenant].add((await caller.as_tenant(tenant).upload(DATA)).code)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                for tenant in codes:
                    nursery.start_soon(upload, tenant)
        assert codes == {"alice": {OK}, "mallory": {REFUSED}, "bob": {REFUSED}}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_credentials_stay_with_the_registry(host: str, scheme: str, tmp_path: Path) -> None:
    """A redirect to another origin (another port will do) is followed without them, and never from https to http."""
    tls = server_context(tmp_path)
    async with (
        serve_registry(auth=Bearer(ACCOUNTS), tls=tls) as registry,
        serve_http(registry.handle, tls=tls if scheme == "https" else None) as elsewhere,
        open_process(tls=client_context()) as process,
        tenants(registry, process) as caller,
    ):
        alice = caller.as_tenant("alice")
        assert (await alice.upload(DATA)).code is OK
        registry.redirect_to = elsewhere.url.replace("127.0.0.1", host)
        got = await alice.download(DIGEST)
        if scheme == "http":
            assert elsewhere.connections == 0
            assert host == "127.0.0.1" or (got.code is not OK and not got.data)
        else:
            assert (got.code, got.data) == (OK, DATA)
            followed = [asked for asked in registry.asked if asked.step == "elsewhere-get"]
            assert followed and all("authorization" not in asked.headers for asked in followed)


class _Canary:
    """A listener of our own that nobody may be led to."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def handle(self, exchange: Exchange) -> None:
        self.asked.append(exchange.request.target)
        await exchange.respond(200, {"content-type": "application/json"}, b'{"token": "stolen"}')


FORBIDDEN = ["http://169.254.169.254", "http://[::ffff:169.254.169.254]", "http://2852039166", "http://0.0.0.0:{port}"]


@pytest.mark.parametrize("place", ["http://127.0.0.1:{port}", "http://[::ffff:127.0.0.1]:{port}", *FORBIDDEN])
@pytest.mark.parametrize("lure", ["realm", "redirect", "location"])
async def test_nobody_leads_us_inside(lure: str, place: str) -> None:
    """A registry that names a forbidden address as realm, redirect or upload location."""
    canary, auth = _Canary(), Bearer(ACCOUNTS)
    async with serve_http(canary.handle) as inside, serve_registry(auth=auth) as registry:
        target = place.format(port=inside.port)
        async with open_process(own_ports=(inside.port,)) as process, tenants(registry, process) as caller:
            alice = caller.as_tenant("alice")
            if lure == "realm":
                auth.realm = f"{target}/token"
                got = await alice.describe(DIGEST)
            elif lure == "redirect":
                assert (await alice.upload(DATA)).code is OK
                registry.redirect_to = target
                got = await alice.download(DIGEST)
            else:
                registry.upload_base = target
                got = await alice.upload(DATA)
            assert got.code in (REFUSED, StatusCode.INTERNAL) and not got.data
            assert not canary.asked and inside.connections == 0
            assert process.lent == 0


@pytest.mark.parametrize("place", ["169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "0.0.0.0:5000"])
async def test_a_secret_cannot_name_a_forbidden_place(place: str) -> None:
    async with open_process() as process, serve_backends(process) as caller:
        process.secrets["tenant"] = secret(place, "alice", "alices-password")
        for got in (await caller.upload(DATA), await caller.download(DIGEST), await caller.describe(DIGEST)):
            assert got.code is REFUSED
            assert "169.254" not in got.message or place in got.message
