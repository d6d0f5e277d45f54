"""What every secret source must do, whatever stands behind it. A new source joins by adding its rig to ``RIGS``.

A rig is a real store of secrets with handles for trouble; ``casproxy_tests/secrets/file_rig.py`` shows the form.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from threading import Event
from typing import Protocol

import pytest
import structlog.testing
import trio

from casproxy.errors import ConfigError, SecretDenied, SecretError, SecretMalformed, SecretNotFound, SecretUnavailable
from casproxy.secrets.api import Secret, SecretSource
from casproxy.secrets.cache import CacheSettings, open_cache
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.secrets.file_rig import DirectoryRig, MapRig

PASSWORD = "hunter2-correct-horse"


class Rig(Protocol):
    """A store of secrets, empty at first.

    ``hang``: reads begun in the block do not end before it does; its event tells that one has begun.
    ``idle``: wait until no thread of a source made here is at work, an abandoned one included.
    """

    def source(self) -> SecretSource: ...
    def put(self, secret_id: str, value: object) -> None: ...
    def remove(self, secret_id: str) -> None: ...
    def go_down(self) -> None: ...
    def come_back(self) -> None: ...
    def deny(self, patch: pytest.MonkeyPatch) -> None: ...
    def hang(self, patch: pytest.MonkeyPatch) -> AbstractContextManager[Event]: ...
    async def idle(self) -> None: ...


RIGS: dict[str, Callable[[Path], Rig]] = {"map": MapRig, "directory": DirectoryRig}


@pytest.fixture(params=sorted(RIGS))
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    made = RIGS[request.param](tmp_path)
    made.put("team/a.b_c-1", {"Repository": "r", "Password": PASSWORD})
    return made


@asynccontextmanager
async def opened(rig: Rig, cached: bool) -> AsyncIterator[SecretSource]:
    """The source as it is, or behind a cache that keeps nothing: the contract is the same."""
    if not cached:
        yield rig.source()
        return
    async with open_cache(rig.source(), CacheSettings(ttl=0, not_found_ttl=0)) as cache:
        yield cache


@pytest.fixture(params=[False, True], ids=["bare", "cached"])
async def source(request: pytest.FixtureRequest, rig: Rig, nursery: trio.Nursery) -> AsyncIterator[SecretSource]:
    async with opened(rig, request.param) as made:
        yield made


async def test_read(source: SecretSource) -> None:
    secret = await source.read("team/a.b_c-1")
    assert secret.text("repository") == "r" and secret.text("PASSWORD") == PASSWORD


async def test_check_passes(source: SecretSource) -> None:
    await source.check()


async def test_missing(source: SecretSource) -> None:
    for secret_id in ("missing", "team", "team/a.b_c-1/x", "t" * 300):
        with pytest.raises(SecretNotFound):
            await source.read(secret_id)


@pytest.mark.parametrize("value", [[PASSWORD], PASSWORD, 1, True, None], ids=lambda value: type(value).__name__)
async def test_a_value_that_is_no_object(rig: Rig, source: SecretSource, value: object) -> None:
    rig.put("odd", value)
    with pytest.raises(SecretMalformed, match=r"^secret odd is not a JSON or YAML object$"):
        await source.read("odd")


async def test_denied(rig: Rig, source: SecretSource, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.deny(monkeypatch)
    with pytest.raises(SecretDenied):
        await source.read("team/a.b_c-1")


async def test_down_and_back(rig: Rig, source: SecretSource) -> None:
    await source.read("team/a.b_c-1")
    rig.go_down()
    for secret_id in ("team/a.b_c-1", "missing"):
        with pytest.raises(SecretUnavailable):
            await source.read(secret_id)
    with pytest.raises(ConfigError, match="credentials_service"):
        await source.check()
    rig.come_back()
    assert (await source.read("team/a.b_c-1")).text("password") == PASSWORD


async def test_changes_are_seen(rig: Rig, source: SecretSource) -> None:
    first = await source.read("team/a.b_c-1")
    rig.put("team/a.b_c-1", {"Password": "rotated"})
    second = await source.read("team/a.b_c-1")
    assert second.text("password") == "rotated" and first.fingerprint != second.fingerprint
    rig.remove("team/a.b_c-1")
    with pytest.raises(SecretNotFound):
        await source.read("team/a.b_c-1")


async def test_many_at_once(rig: Rig, source: SecretSource) -> None:
    names = [f"tenant-{number}" for number in range(40)]
    for name in names:
        rig.put(name, {"Password": name})
    seen: dict[str, str] = {}

    async def read(name: str) -> None:
        seen[name] = (await source.read(name)).text("password")

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(read, name)
    assert seen == {name: name for name in names}


async def test_cancelled_while_a_thread_blocks(rig: Rig, source: SecretSource, monkeypatch: pytest.MonkeyPatch) -> None:
    with rig.hang(monkeypatch) as begun:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source.read, "team/a.b_c-1")
            await trio.to_thread.run_sync(begun.wait, 30)
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught  # the block has not ended: the thread is still at work
    assert (await source.read("team/a.b_c-1")).text("password") == PASSWORD


@pytest.mark.parametrize("cached", [False, True])
async def test_cancelled_anywhere(rig: Rig, cached: bool) -> None:
    async def scenario() -> Secret:
        async with opened(rig, cached) as fresh:
            return await fresh.read("team/a.b_c-1")

    async def check(run: Run[Secret]) -> None:
        await trio.lowlevel.checkpoint()
        assert run.cancelled or (run.value is not None and run.value.text("password") == PASSWORD)

    assert await cancel_everywhere(scenario, check, settle=rig.idle) >= 1


async def test_values_are_never_shown(rig: Rig, source: SecretSource) -> None:
    rig.put("list", [PASSWORD])
    rig.put("text", PASSWORD)
    shown = [repr(source), repr(await source.read("team/a.b_c-1"))]
    with structlog.testing.capture_logs() as lines:
        shown += [await _failure_of(source, secret_id) for secret_id in ("list", "text", "missing")]
        rig.go_down()
        shown += [await _failure_of(source, "list")]
    assert not any(PASSWORD in text for text in [*shown, repr(lines)])


async def _failure_of(source: SecretSource, secret_id: str) -> str:
    with pytest.raises(SecretError) as caught:
        await source.read(secret_id)
    return repr(caught.value) + "".join(traceback.format_exception(caught.value))
