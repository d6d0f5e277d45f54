"""Whatever a source writes, raises or shows is searched for what it read and for what it logs in with."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from casproxy.errors import SecretError
from casproxy.observe import log
from casproxy.observe.metrics import Metrics
from casproxy.secrets.cache import CacheSettings, open_cache
from casproxy_tests.fakes.azure_key_vault import ACCESS_TOKEN, CLIENT_SECRET
from casproxy_tests.leaks import LEAK
from casproxy_tests.secrets.reports import everything
from casproxy_tests.secrets.rigs import AwsRig, AzureRig, VaultRig
from casproxy_tests.secrets.stores import STORES, OpenRig, Rig

PASSWORD = "canary-correct-horse"


@pytest.fixture(scope="module", params=list(STORES))
def store(request: pytest.FixtureRequest) -> Iterator[OpenRig]:
    with STORES[request.param]() as opened:
        yield opened


@pytest.fixture
def rig(store: OpenRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with store(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    """The log at its most talkative, as ``casproxy serve`` sets it up."""
    root, out = logging.getLogger(), io.StringIO()
    before = root.level, list(root.handlers)
    log.configure("debug", "json", out)
    yield out
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.level, root.handlers = before


def credentials(rig: Rig) -> list[str]:
    """What this rig's source logs in with."""
    if isinstance(rig, VaultRig):
        return [rig.token]
    if isinstance(rig, AwsRig):
        return [rig.user.secret_key]
    return [CLIENT_SECRET, ACCESS_TOKEN] if isinstance(rig, AzureRig) else []


async def test_nothing_shows_a_secret(
    rig: Rig, log_lines: io.StringIO, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.put(rig.id("a"), {"Password": PASSWORD})
    if not isinstance(rig, VaultRig):
        rig.put_text(rig.id("broken"), f'{{"Password": "{PASSWORD}')
    shown: list[str] = []

    async def attempt(source: Any, secret_id: str) -> None:
        try:
            shown.append(repr(await source.read(rig.id(secret_id))))
        except SecretError as error:
            shown.append(everything(error))

    metrics = Metrics()
    async with rig.open() as source, open_cache(source, CacheSettings(ttl=0, not_found_ttl=0)) as cache:
        metrics.watch_counts("casproxy_secret_cache", "What the cache did.", "result", cache.stats.by_result)
        shown += [repr(source), repr(vars(cache)), repr(cache.stats)]
        for secret_id in ("a", "broken", "missing"):
            await attempt(cache, secret_id)
        rig.go_down()
        await attempt(cache, "a")
        rig.come_back()
        rig.deny(monkeypatch)
        await attempt(cache, "a")
        shown += [repr(vars(cache)), metrics.exposition("")[0].decode()]
    written = [log_lines.getvalue(), *capfd.readouterr()]
    assert "secret_unavailable" in log_lines.getvalue()
    for text in [*shown, *written]:
        assert not LEAK.search(text), LEAK.search(text)
        assert not any(credential in text for credential in credentials(rig))
