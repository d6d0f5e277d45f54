"""Fixtures of the conformance suites."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from casproxy_tests.conformance.backends import BACKENDS
from casproxy_tests.conformance.store import OpenStore, Store


@pytest.fixture(params=list(BACKENDS.values()), ids=list(BACKENDS))
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    """How to open an empty store of each kind."""
    opener: OpenStore = request.param
    return opener


@pytest.fixture
async def store(open_store: OpenStore, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store of each kind."""
    async with open_store(tmp_path / "store") as opened:
        yield opened
