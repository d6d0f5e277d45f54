"""The bench's own server, started once for the tests of this room: what they leave in it does not matter to others."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from casproxy.bench.local import LocalServer, running_server


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    async with running_server() as running:
        yield running
