"""Registries as they are: each artifact goes in and comes out, with the streaming PATCH and without it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from casproxy.digest import Digest
from casproxy.errors import BackendRefused
from casproxy.storage.api import NewResource
from casproxy_tests.conformance.traffic import MIB, content, get
from casproxy_tests.fakes.oci import OciProcess, open_process
from casproxy_tests.fakes.registry import PROFILES, Profile, serve_registry, without_streaming

SIZES = (0, 1, 4096, 5 * MIB + 3)


async def _put(process: OciProcess, host: str, data: bytes, *, declared: bool) -> None:
    digest = Digest.of(data)
    backend = process.backend(host)
    async with backend.ingest(NewResource(digest, "a.bin", len(data) if declared else None)) as ingest:
        for start in range(0, len(data), 256 * 1024):
            await ingest.write(data[start : start + 256 * 1024])
        await ingest.commit(digest, len(data))
    assert await get(backend, digest) == data


@pytest.mark.parametrize("declared", [True, False], ids=["size known", "size unknown"])
@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "no streaming"])
@pytest.mark.parametrize("name", PROFILES)
async def test_goes_in_and_comes_out(name: str, streaming: bool, declared: bool, tmp_path: Path) -> None:
    profile = PROFILES[name] if streaming else without_streaming(PROFILES[name])
    if not streaming and not profile.monolithic_put:
        pytest.skip("whoever wants PATCH takes it streaming")
    if profile.max_monolithic_put is not None:
        profile = replace(profile, max_monolithic_put=4 * MIB)  # quicker to exceed
    async with serve_registry(profile=profile) as registry, open_process(staging_dir=tmp_path) as process:
        for turn in range(2):  # what was learned the first time helps the second
            for size in SIZES:
                await _put(process, registry.host, content(size, seed=turn), declared=declared)
        assert not registry.store.sessions
        assert not os.listdir(tmp_path), "staged bodies have no name"


async def test_no_streaming_and_no_staging_says_what_to_do() -> None:
    profile = without_streaming(Profile())
    async with serve_registry(profile=profile) as registry, open_process() as process:
        with pytest.raises(BackendRefused, match=r"staging\.dir"):
            await _put(process, registry.host, content(3 * MIB), declared=True)
        await _put(process, registry.host, content(1000), declared=True)
        assert not registry.store.sessions


async def test_a_full_staging_directory_fails_nothing_else(tmp_path: Path) -> None:
    """The quota ends the body that goes over it; a streaming registry never needs it."""
    async with serve_registry() as registry, open_process(staging_dir=tmp_path, staging_quota=MIB) as process:
        await _put(process, registry.host, content(5 * MIB), declared=True)
        assert not registry.store.sessions


async def test_an_empty_layer_that_is_refused_is_explained() -> None:
    async with serve_registry(profile=Profile(refuses_empty_layer=True)) as registry, open_process() as process:
        with pytest.raises(BackendRefused):
            await _put(process, registry.host, b"", declared=True)
        assert not registry.store.sessions and not registry.store.visible()


async def test_rate_limits_are_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.02
    async with serve_registry(profile=PROFILES["Docker Hub"]) as registry, open_process() as process:
        await _put(process, registry.host, content(4096), declared=True)
        assert registry.asked[0].status == 429
