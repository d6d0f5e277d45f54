"""How often a registry is asked: 6 times for a new small artifact, once for a known one, twice for a download."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import trio

from casproxy._proto.google.bytestream import bytestream_pb2 as pb
from casproxy.digest import Digest
from casproxy.gob import encode_resource_name
from casproxy.rpc.errors import RpcError
from casproxy.services import registry
from casproxy.storage.oci.kept import Kept
from casproxy.wire.metadata import Metadata
from casproxy.wire.status import StatusCode
from casproxy_tests.conformance.traffic import MIB, content
from casproxy_tests.fakes.registry import Answer, Fault, Hangup, Phase
from casproxy_tests.faults.matrix import World, open_world
from casproxy_tests.faults.service import Got

OK = StatusCode.OK
NEW_SMALL = ["manifest-get", "post", "post", "put", "put", "manifest-put"]
NEW_LARGE = ["manifest-get", "post", "patch", "post", "put", "put", "manifest-put"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A registry that has been met: what it is and how it authorises is known, nothing more."""
    async with open_world() as opened:
        assert (await opened.caller.describe(Digest.of(b"never"))).code is StatusCode.NOT_FOUND
        opened.registry.asked.clear()
        yield opened


def asked(world: World) -> Counter[str]:
    """What was asked since the last look, by step; tokens aside: one per scope and lifetime."""
    steps = Counter(step for step in world.registry.steps if step != "token")
    world.registry.asked.clear()
    return steps


@pytest.mark.parametrize(("size", "want"), [(4096, NEW_SMALL), (0, NEW_SMALL), (3 * MIB, NEW_LARGE)])
async def test_new_known_download(world: World, size: int, want: list[str]) -> None:
    data = content(size)
    assert (await world.caller.upload(data)).code is OK
    assert asked(world) == Counter(want)
    assert (await world.caller.upload(data)).code is OK
    assert asked(world) == Counter(["manifest-get"])
    assert (await world.caller.describe(Digest.of(data))).code is OK
    assert asked(world) == Counter(["manifest-get"])
    assert (await world.caller.download(Digest.of(data))).data == data
    assert asked(world) == (Counter(["manifest-get", "blob-get"]) if size else Counter(["manifest-get"]))


async def test_a_small_artifact_that_finds_no_room_to_wait_in_streams(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand senders that stop a byte short of the end must not be a gigabyte."""
    books: list[Kept] = []

    def add(kept: Kept, size: int) -> bool:
        books.append(kept)
        kept._limit = 8192
        return real(kept, size)

    real = Kept.add
    monkeypatch.setattr(Kept, "add", add)
    for size, want in ((8192, NEW_SMALL), (8193, NEW_LARGE), (8191, NEW_SMALL)):
        data = content(size)
        assert (await world.caller.upload(data)).code is OK
        assert asked(world) == Counter(want)
        assert (await world.caller.download(Digest.of(data))).data == data
        asked(world)
    assert {kept._bytes for kept in books} == {0}


async def test_tokens_and_connections_are_shared(world: World) -> None:
    data = content(4096)
    assert (await world.caller.upload(data)).code is OK
    world.registry.asked.clear()
    for _ in range(20):
        assert (await world.caller.download(Digest.of(data))).data == data
    assert world.registry.steps.count("token") == 0
    assert len({request.connection for request in world.registry.asked}) == 1


async def test_a_burst_of_one_artifact_costs_one_upload(world: World) -> None:
    data = content(2 * MIB + 1)
    results: list[Got] = []

    async def upload() -> None:
        results.append(await world.caller.upload(data))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(upload)
    assert [result.code for result in results] == [OK] * 100
    steps = asked(world)
    assert (steps["patch"], steps["manifest-put"]) == (1, 1)
    assert not world.registry.store.sessions


async def test_an_outage_is_not_multiplied(world: World, autojump_clock: trio.testing.MockClock) -> None:
    """Retries come out of a budget: a registry that is down hears little more than it would without them."""
    autojump_clock.autojump_threshold = 0.02
    world.registry.script(Fault("manifest-get", Answer(503), times=math.inf))
    for number in range(60):
        assert (await world.caller.describe(Digest.of(b"%d" % number))).code is StatusCode.UNAVAILABLE
    assert asked(world).total() <= 60 + 15


async def test_a_slow_registry_stops_its_client(world: World, autojump_clock: trio.testing.MockClock) -> None:
    """What a registry does not take stays with the client: credit holds it back, not a buffer."""
    autojump_clock.autojump_threshold = 0.05
    world.registry.script(Fault("patch", Hangup.BLACK_HOLE, Phase.BODY, after_bytes=MIB))
    sent = 0
    who = Metadata([("x-secret-id", "OCI tenant")])
    async with world.caller.channel.call(registry.WRITE.path, metadata=who) as call:
        name = encode_resource_name("slow.bin", Digest.of(b"what it would be"))
        message = pb.WriteRequest(resource_name=name, data=content(256 * 1024)).SerializeToString()
        while await call.send_message(message):
            sent += len(message)
        with pytest.raises(RpcError) as caught:
            await call.receive_message()
    assert caught.value.code is StatusCode.UNAVAILABLE
    assert MIB < sent < 24 * MIB
    assert world.process.lent == 0
