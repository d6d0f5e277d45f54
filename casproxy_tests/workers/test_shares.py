"""What one of several workers is allowed."""

from __future__ import annotations

import msgspec
import pytest

from casproxy.config import Config
from casproxy.config.model import Server
from casproxy.workers.shares import share_of


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_the_shares_of_all_are_the_whole_and_hardly_more(workers: int) -> None:
    whole = Config(server=Server(memory_budget=100_000_003))
    share = share_of(whole, workers)
    assert share.server.memory_budget is not None
    assert 100_000_003 - workers < share.server.memory_budget * workers <= 100_000_003
    for divided, total in (
        (share.server.grpc.limits.max_connections, whole.server.grpc.limits.max_connections),
        (share.server.http.limits.max_connections, whole.server.http.limits.max_connections),
        (share.server.http.limits.max_transfers, whole.server.http.limits.max_transfers),
        (share.staging.quota, whole.staging.quota),
    ):
        assert total <= divided * workers < total + workers


def test_a_budget_that_is_not_set_is_worked_out_once_for_all() -> None:
    one, two = share_of(Config(), 1), share_of(Config(), 2)
    assert one.server.memory_budget is not None
    assert two.server.memory_budget == one.server.memory_budget // 2


def test_what_one_peer_may_do_is_not_divided() -> None:
    whole, share = msgspec.to_builtins(Config().server.grpc.limits), share_of(Config(), 4).server.grpc.limits
    divided = msgspec.to_builtins(share)
    assert {key for key in whole if whole[key] != divided[key]} == {"max_connections"}
