"""One server for the tests that only talk to it; tests that stop or break one start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from casproxy_tests.e2e.peer import Peer, connected
from casproxy_tests.e2e.processes import Dev, running_dev


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with running_dev(tmp_path_factory.mktemp("dev")) as running:
        yield running


@pytest.fixture(scope="module")
def peer(dev: Dev) -> Iterator[Peer]:
    with connected(dev.facts) as connection:
        yield connection
