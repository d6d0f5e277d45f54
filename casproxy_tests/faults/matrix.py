"""Owns making one row of ``cases`` happen, and everything that has to hold afterwards. Under a virtual clock.

The whole service takes part: a caller on gRPC, the pipeline, the OCI backend over real sockets, and a registry that
fails on command. Tokens are bearer tokens, so that they can expire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from casproxy.digest import Digest
from casproxy.wire.status import StatusCode
from casproxy_tests.fakes.oci import OciProcess, open_process, secret
from casproxy_tests.fakes.registry import Account, Bearer, FakeRegistry, Profile, serve_registry
from casproxy_tests.faults.cases import DATA, DIGEST, Case, script
from casproxy_tests.faults.service import Caller, Got, serve_backends

PATIENCE_SECONDS = 3600.0
_ACCOUNTS = {"alice": Account("alices-password")}


@dataclass(frozen=True, slots=True)
class World:
    registry: FakeRegistry
    process: OciProcess
    caller: Caller


@asynccontextmanager
async def open_world(profile: Profile | None = None) -> AsyncIterator[World]:
    """A registry, a process in front of it and a caller; the tenant is ``alice``."""
    async with (
        serve_registry(auth=Bearer(_ACCOUNTS), profile=profile or Profile(signs_offset=False)) as registry,
        open_process() as process,
        serve_backends(process) as caller,
    ):
        process.secrets["tenant"] = secret(registry.host, "alice", "alices-password")
        yield World(registry, process, caller)


async def run(case: Case) -> None:
    """Make the row happen; ``AssertionError`` when it ends otherwise than it says."""
    async with open_world() as world:
        assert (await world.caller.describe(Digest.of(b"warm"))).code is StatusCode.NOT_FOUND
        if case.operation == "download":
            assert (await world.caller.upload(DATA, "first.bin")).code is StatusCode.OK
        before = dict(world.registry.store.visible())
        fault = script(case, world.registry)
        world.registry.script(fault)
        got, seconds = await _called(world, case)
        assert fault.hits, "the fault did not happen: the row says nothing"
        assert got.code is case.code, f"{got.code.name}: {got.message}"
        assert seconds <= case.within, f"took {seconds:.0f} s"
        await _check_nothing_left(world, case, got, before)
        await _check_recovery(world, case)


async def _called(world: World, case: Case) -> tuple[Got, float]:
    began = trio.current_time()
    with trio.fail_after(PATIENCE_SECONDS):
        if case.operation == "upload":
            got = await world.caller.upload(DATA, "first.bin")
        else:
            got = await world.caller.download(DIGEST)
    return got, trio.current_time() - began


async def _check_nothing_left(world: World, case: Case, got: Got, before: dict[str, str]) -> None:
    assert world.process.lent == 0, "a connection to the registry is still in use"
    await world.registry.server.settle()
    sessions = len(world.registry.store.sessions)
    assert sessions == (1 if case.orphan else 0), f"{sessions} sessions are open"
    world.registry.store.sessions.clear()
    if case.operation == "download":
        assert (got.data == DATA) if got.code is StatusCode.OK else len(got.data) < len(DATA)
        assert world.registry.store.visible() == before
    elif got.code is not StatusCode.OK:
        assert world.registry.store.visible() == before, "something is visible that was not committed"
    else:
        assert world.registry.store.visible().keys() - before.keys()


async def _check_recovery(world: World, case: Case) -> None:
    """The registry is well again, and so is everything else; what it wants to be left alone for has passed."""
    world.registry.faults.clear()
    await trio.sleep(2 * 86400)
    assert (await world.caller.upload(DATA, "second.bin")).code is StatusCode.OK
    again = await world.caller.download(DIGEST)
    if case.fault == "201 for other bytes":
        assert again.code is StatusCode.DATA_LOSS and again.data != DATA and len(again.data) < len(DATA)
    else:
        assert again == Got(StatusCode.OK, DATA)
    assert world.process.lent == 0
