"""Keys change under a real server that is busy: no call fails that should not, and none passes that should not."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import pytest
import structlog
import trio

from casproxy._proto.cas.v1 import resource_pb2
from casproxy.config import Config
from casproxy.config.model import Auth, Jwks
from casproxy.dev.place import BACKEND, SECRET_ID
from casproxy.digest import Digest
from casproxy.observe import log
from casproxy.rpc.channel import Channel, open_channel
from casproxy.rpc.errors import RpcError
from casproxy.wire.metadata import Metadata
from casproxy.wire.status import StatusCode
from casproxy_tests.app.serving import Serving, config_of, place_at, serving
from casproxy_tests.auth import forge
from casproxy_tests.auth.endpoint import Endpoint, document, named, open_endpoint
from casproxy_tests.auth.mount import Mount
from casproxy_tests.cas import PLAIN

DESCRIBE = "/cas.v1.ResourceService/Describe"
NOWHERE = resource_pb2.ResourceServiceDescribeRequest(digest=str(Digest.of(b"nowhere"))).SerializeToString()
PAUSE = 0.005  # seconds between the calls of one caller: a busy server, not a busy machine
MAX_STALE = 3.0


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    out = io.StringIO()
    log.configure("debug", "json", out)
    yield out
    structlog.reset_defaults()


@dataclass
class Caller:
    """Calls without end and compares: ``good`` None while its keys are being changed."""

    name: str
    token: Callable[[], str]
    good: bool | None
    calls: int = 0
    tokens: set[str] = field(default_factory=set, repr=False)
    _last: bool | None = None
    _called: trio.Event = field(default_factory=trio.Event)

    async def run(self, channel: Channel) -> None:
        while True:
            token, expected = self.token(), self.good
            self.tokens.add(token)
            self._last = await is_let_in(channel, token)
            if expected is self.good is not None:
                assert self._last is expected, f"{self.name} after {self.calls} calls"
            self.calls += 1
            self._called.set()
            self._called = trio.Event()
            await trio.sleep(PAUSE)

    async def has_called(self, times: int) -> None:
        """Wait until it has."""
        while self.calls < times:
            await self._called.wait()

    async def becomes(self, good: bool) -> None:
        """Wait until calls end like this; from then on, each must."""
        while self._last is not good:
            await self._called.wait()
        self.good = good


async def is_let_in(channel: Channel, token: str) -> bool:
    with pytest.raises(RpcError) as caught:  # nothing is stored
        await channel.unary(DESCRIBE, NOWHERE, metadata=Metadata([("authorization", f"Bearer {token}")]))
    if caught.value.code is StatusCode.UNAUTHENTICATED:
        assert caught.value.message == "unknown signing key"
        return False
    assert caught.value.code is StatusCode.NOT_FOUND, caught.value
    return True


def signed(kind: str, algorithm: str, kid: str | None = None) -> str:
    claims = {**forge.GOOD, "secret-id": SECRET_ID, "backend": BACKEND, "exp": int(time.time()) + 600}
    return forge.token(claims, kind=kind, algorithm=algorithm, kid=kid)


def fixed(kind: str, algorithm: str, kid: str | None = None) -> Callable[[], str]:
    token = signed(kind, algorithm, kid)
    return lambda: token


@dataclass
class World:
    server: Serving
    endpoint: Endpoint
    mount: Mount
    callers: dict[str, Caller]

    async def change(self, change: Callable[[], None], **becomes: bool) -> None:
        """Change keys; wait until that shows in these callers' calls, while all others must go on as before."""
        for name in becomes:
            self.callers[name].good = None
        change()
        with trio.fail_after(60):
            for name, good in becomes.items():
                await self.callers[name].becomes(good)

    async def key_age(self, setting: str, at_least: float) -> None:
        """Wait until the metric says that the keys of ``setting`` are this old."""
        async with httpx.AsyncClient(verify=PLAIN, trust_env=False) as client:
            while True:
                text = (await client.get(f"http://{self.server.metrics}/metrics")).text
                assert not any(token in text for caller in self.callers.values() for token in caller.tokens)
                (line,) = [line for line in text.splitlines() if f'age_seconds{{setting="{setting}"}}' in line]
                if float(line.split()[-1]) >= at_least:
                    return
                await trio.sleep(PAUSE)


@asynccontextmanager
async def busy_world(config: Config, mount: Mount, endpoint: Endpoint) -> AsyncIterator[World]:
    bad_names = (f"bad-{number}" for number in itertools.count())
    callers = [
        Caller("old file", fixed("P-521", "ES512"), good=True),
        Caller("new file", fixed("P-384", "ES384"), good=False),
        Caller("new file, fresh tokens", lambda: signed("P-384", "ES384"), good=False),
        Caller("a", fixed("P-256", "ES256", "a"), good=True),
        Caller("b", fixed("Ed25519", "EdDSA", "b"), good=False),
        Caller("b, fresh tokens", lambda: signed("Ed25519", "EdDSA", "b"), good=False),
        Caller("stranger", lambda: signed("other P-521", "ES512", next(bad_names)), good=False),
        Caller("impostor", fixed("other P-521", "ES512", "a"), good=False),
    ]
    async with serving(config) as server:
        host, _, port = server.grpc.rpartition(":")
        async with open_channel(host, int(port)) as channel, trio.open_nursery() as nursery:
            for caller in callers:
                nursery.start_soon(caller.run, channel)
            yield World(server, endpoint, mount, {caller.name: caller for caller in callers})
            nursery.cancel_scope.cancel()


async def test_rotation_under_load(tmp_path: Path, log_lines: io.StringIO) -> None:
    keys, old, new = tmp_path / "keys", forge.public_pem("P-521"), forge.public_pem("P-384")
    keys.mkdir()
    mount = Mount(keys, old=old)
    a, b = named("a", "P-256"), named("b", "Ed25519")
    async with open_endpoint(a) as endpoint:
        with place_at(tmp_path) as place:
            jwks = Jwks(url=endpoint.url, refresh=1.0, refetch_interval=1.0, max_stale=MAX_STALE)
            config = msgspec.structs.replace(config_of(place), auth=Auth(public_key_path=keys, jwks=jwks))
            started = trio.current_time()
            async with busy_world(config, mount, endpoint) as world:
                await rotate_files(world, old, new)
                await rotate_documents(world, document(a, b), document(b))
                await world.callers["stranger"].has_called(100)
        elapsed = trio.current_time() - started
    assert len(endpoint.requests) <= 2 * (elapsed + 2)  # one a second for the refresh, one a second for the strangers
    written = log_lines.getvalue()
    assert not [token for caller in world.callers.values() for token in caller.tokens if token in written]


async def rotate_files(world: World, old: bytes, new: bytes) -> None:
    """A new file beside the old one, the old one gone, the new one broken and mended."""
    both = {"new file": True, "new file, fresh tokens": True}
    await world.change(lambda: world.mount.swap(old=old, new=new), **both)
    await world.change(lambda: world.mount.swap(new=new), **{"old file": False})
    world.mount.swap(new=b"half a file")
    await world.key_age("auth.public_key_path", at_least=2.0)
    await world.change(lambda: world.mount.swap(new=new, old=old), **{"old file": True})


async def rotate_documents(world: World, both: bytes, new: bytes) -> None:
    """A new key beside the old one, an outage, the old key gone, an outage that lasts too long, and its end."""
    endpoint = world.endpoint

    def publish(body: bytes) -> None:
        endpoint.body, endpoint.down = body, False

    def fall_over() -> None:
        endpoint.down = True

    async def recover(body: bytes, **becomes: bool) -> None:
        await world.change(lambda: publish(body), **becomes)

    names = ("b", "b, fresh tokens")
    await recover(both, **dict.fromkeys(names, True))
    fall_over()
    await world.key_age("auth.jwks.url", at_least=1.5)
    await recover(new, a=False)
    await world.change(fall_over, **dict.fromkeys(names, False))
    await recover(new, **dict.fromkeys(names, True))
