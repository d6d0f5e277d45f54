"""What every secret source must do, whatever stands behind it. A new source joins by adding its store to ``STORES``.

Each store is real, or a stand-in behind the vendor's real client; ``casproxy_tests/secrets/stores.py`` lists them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog.testing
import trio

from casproxy.errors import ConfigError, SecretDenied, SecretError, SecretMalformed, SecretNotFound, SecretUnavailable
from casproxy.secrets.api import Secret, SecretSource
from casproxy.secrets.cache import CacheSettings, open_cache
from casproxy_tests.cancellation import Run, cancel_everywhere
from casproxy_tests.secrets.reports import everything
from casproxy_tests.secrets.rigs import RemoteRig, VaultRig
from casproxy_tests.secrets.stores import STORES, OpenRig, Rig

PASSWORD = "canary-correct-horse"
ID = "team/a.b_c-1"
RECOVERY_SECONDS = 20


@pytest.fixture(scope="session", params=list(STORES))
def store(request: pytest.FixtureRequest) -> Iterator[OpenRig]:
    with STORES[request.param]() as opened:
        yield opened


@pytest.fixture
def rig(store: OpenRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with store(tmp_path, monkeypatch) as made:
        made.put(made.id(ID), {"Repository": "r", "Password": PASSWORD})
        yield made


@pytest.fixture
def remote(rig: Rig) -> RemoteRig:
    if not isinstance(rig, RemoteRig):
        pytest.skip("a file is not reached over a network")
    return rig


@asynccontextmanager
async def opened(rig: Rig, cached: bool) -> AsyncIterator[SecretSource]:
    """The source as it is, or behind a cache that keeps nothing: the contract is the same."""
    async with rig.open() as source:
        if not cached:
            yield source
            return
        async with open_cache(source, CacheSettings(ttl=0, not_found_ttl=0)) as cache:
            yield cache


@pytest.fixture(params=[False, True], ids=["bare", "cached"])
async def source(request: pytest.FixtureRequest, rig: Rig, nursery: trio.Nursery) -> AsyncIterator[SecretSource]:
    async with opened(rig, request.param) as made:
        yield made


async def test_read(rig: Rig, source: SecretSource) -> None:
    secret = await source.read(rig.id(ID))
    assert secret.text("repository") == "r" and secret.text("PASSWORD") == PASSWORD


async def test_check_passes(source: SecretSource) -> None:
    await source.check()


async def test_missing(rig: Rig, source: SecretSource) -> None:
    for secret_id in ("missing", "team", f"{ID}/x", "t" * 300):
        with pytest.raises(SecretNotFound):
            await source.read(rig.id(secret_id))


@pytest.mark.parametrize(
    "value", [f'["{PASSWORD}"]', f'"{PASSWORD}"', "1", "true", "null", f'{{"Password": "{PASSWORD}"', "", "\udcff"]
)
async def test_a_value_that_is_no_object(rig: Rig, source: SecretSource, value: str) -> None:
    if isinstance(rig, VaultRig):
        pytest.skip("Vault takes nothing but objects; test_vault.py lets a broken one answer")
    if value in ("", "\udcff") and not _takes(rig, value):
        pytest.skip("this store takes no such text")
    rig.put_text(rig.id("odd"), value)
    with pytest.raises(SecretMalformed, match=rf"^secret {rig.id('odd')} is not a JSON (or YAML )?object$"):
        await source.read(rig.id("odd"))


def _takes(rig: Rig, value: str) -> bool:
    """An empty text is none at AWS, and texts are UTF-8 by protocol but for files and Google."""
    return type(rig).__name__ in {"": ("MapRig", "DirectoryRig", "GcpRig", "AzureRig")}.get(
        value, ("DirectoryRig", "GcpRig")
    )


async def test_denied(rig: Rig, source: SecretSource, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.deny(monkeypatch)
    with pytest.raises(SecretDenied):
        await source.read(rig.id(ID))


async def test_down_and_back(rig: Rig, source: SecretSource) -> None:
    await source.read(rig.id(ID))
    rig.go_down()
    for secret_id in (ID, "missing"):
        with pytest.raises(SecretUnavailable):
            await source.read(rig.id(secret_id))
    with pytest.raises(ConfigError, match="credentials_service"):
        await source.check()
    rig.come_back()
    assert (await _recovered(source, rig.id(ID))).text("password") == PASSWORD


async def test_internal_errors_are_an_outage(remote: RemoteRig, source: SecretSource) -> None:
    await source.read(remote.id(ID))
    with remote.broken():
        for secret_id in (ID, "missing"):
            with pytest.raises(SecretUnavailable):
                await source.read(remote.id(secret_id))
        with pytest.raises(ConfigError, match="credentials_service"):
            await source.check()
    assert (await _recovered(source, remote.id(ID))).text("password") == PASSWORD


async def test_silence_is_an_outage(remote: RemoteRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's own timeouts end the thread: without a deadline of ours, too."""
    remote.timeout = 0.5
    async with remote.open() as source:
        with remote.hang(monkeypatch), pytest.raises(SecretUnavailable):
            await source.read(remote.id(ID))
        assert (await _recovered(source, remote.id(ID))).text("password") == PASSWORD


async def _recovered(source: SecretSource, secret_id: str) -> Secret:
    """A client may take a moment to notice that the server is back."""
    with trio.fail_after(RECOVERY_SECONDS):
        while True:
            try:
                return await source.read(secret_id)
            except SecretUnavailable:
                await trio.sleep(0.05)


async def test_changes_are_seen(rig: Rig, source: SecretSource) -> None:
    first = await source.read(rig.id(ID))
    rig.put(rig.id(ID), {"Password": "rotated"})
    second = await source.read(rig.id(ID))
    assert second.text("password") == "rotated" and first.fingerprint != second.fingerprint
    rig.remove(rig.id(ID))
    with pytest.raises(SecretNotFound):
        await source.read(rig.id(ID))


async def test_many_at_once(rig: Rig, source: SecretSource) -> None:
    names = [rig.id(f"tenant-{number}") for number in range(40)]
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
            nursery.start_soon(source.read, rig.id(ID))
            await trio.to_thread.run_sync(begun.wait, 30)
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught  # the block has not ended: the thread is still at work
    assert (await _recovered(source, rig.id(ID))).text("password") == PASSWORD


@pytest.mark.parametrize("cached", [False, True])
async def test_cancelled_anywhere(rig: Rig, cached: bool) -> None:
    async def scenario() -> Secret:
        async with opened(rig, cached) as fresh:
            return await fresh.read(rig.id(ID))

    async def check(run: Run[Secret]) -> None:
        await trio.lowlevel.checkpoint()
        assert run.cancelled or (run.value is not None and run.value.text("password") == PASSWORD)

    assert await cancel_everywhere(scenario, check, settle=rig.idle) >= 1


async def test_values_are_never_shown(rig: Rig, source: SecretSource) -> None:
    texts = {"list": f'["{PASSWORD}"]', "text": f'"{PASSWORD}"', "broken": f'{{"Password": "{PASSWORD}"'}
    if not isinstance(rig, VaultRig):
        for name, text in texts.items():
            rig.put_text(rig.id(name), text)
    shown = [repr(source), repr(await source.read(rig.id(ID)))]
    with structlog.testing.capture_logs() as lines:
        shown += [await _failure_of(source, rig.id(name)) for name in (*texts, "missing")]
        rig.go_down()
        shown += [await _failure_of(source, rig.id("list"))]
    assert not any(PASSWORD in text for text in [*shown, repr(lines)])


async def _failure_of(source: SecretSource, secret_id: str) -> str:
    """Everything an error report could show: the whole chain, with the variables of each frame of ours."""
    with pytest.raises(SecretError) as caught:
        await source.read(secret_id)
    return repr(caught.value) + everything(caught.value)
