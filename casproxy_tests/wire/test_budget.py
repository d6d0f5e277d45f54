"""Shares of the memory budget: whoever comes next finds room, and who is busy gives way to who was there less."""

from __future__ import annotations

import pytest

from casproxy.wire.budget import Account, Budget
from casproxy.wire.flow import SEVERAL, ReceiveCredit

KIB, MIB = 1024, 1024 * 1024
TOTAL = 64 * MIB


def fill(account: Account, step: int = 16 * KIB) -> int:
    """Take all it gets and hold on to it; how much it has then."""
    while account.room >= step:
        account.charge(step)
    return account.exposed


def connection(budget: Budget, payer: str | None) -> ReceiveCredit:
    credit = ReceiveCredit(budget, initial=64 * KIB, largest=4 * MIB, largest_connection=16 * MIB)
    assert credit.open_stream(1)
    if payer is not None:
        credit.charge_to(payer)
    return credit


class Sender:
    """A peer that uses all the credit of one connection; its bytes are taken a moment later."""

    def __init__(self, budget: Budget, payer: str) -> None:
        self.credit = connection(budget, payer)
        self.stream, self.whole = 64 * KIB, self.credit.available
        self.moved = 0

    def send(self) -> None:
        size = min(self.stream, self.whole)
        self.credit.received(1, size)
        self.stream, self.whole = self.stream - size, self.whole - size
        self.moved += size
        self.whole += self.credit.connection_credit()

    def take(self) -> None:
        self.stream += self.credit.hand_on(1, self.credit.held)
        self.whole += self.credit.connection_credit()


def test_each_that_holds_on_to_all_it_gets_leaves_half_of_what_was_free() -> None:
    budget = Budget(TOTAL)
    accounts = [budget.account(name) for name in ("first", "second", "third", "fourth")]
    taken = [fill(account) / TOTAL for account in accounts]
    assert taken == pytest.approx([1 / 2, 1 / 4, 1 / 8, 1 / 16], abs=0.001)
    assert budget.exposed == sum(account.exposed for account in accounts)


def test_what_one_gives_back_is_shared() -> None:
    budget = Budget(TOTAL)
    first, second = budget.account("first"), budget.account("second")
    fill(first)
    fill(second)
    first.charge(-first.exposed)
    assert fill(second) == pytest.approx(TOTAL / 2, abs=TOTAL * 0.001)


@pytest.mark.parametrize("late", [1, 2])
def test_those_that_are_busy_come_to_rest_at_the_same_share(late: int) -> None:
    """One tenant has filled its share from sixteen connections before others come with as many."""
    budget = Budget(TOTAL)
    tenants = [[Sender(budget, name) for _ in range(16)] for name in ("first", "second", "third")[: 1 + late]]
    for busy in ([tenants[0]], tenants):
        for _ in range(400):
            for senders in busy:
                for sender in senders:
                    sender.send()
            for senders in busy:
                for sender in senders:
                    sender.take()
    exposed = [budget.account(name).exposed for name in ("first", "second", "third")[: 1 + late]]
    assert min(exposed) > 0.7 * max(exposed)
    assert sum(exposed) == budget.exposed <= TOTAL


def test_a_connection_that_moves_is_charged_once() -> None:
    budget = Budget(TOTAL)
    credit = connection(budget, None)
    credit.received(1, 64 * KIB - 1)
    credit.connection_credit()
    exposed = budget.exposed
    assert exposed > 0
    nobody, tenant = budget.account(), budget.account("tenant")
    assert (nobody.exposed, tenant.exposed) == (exposed, 0)
    credit.charge_to("tenant")
    credit.charge_to("tenant")
    assert (nobody.exposed, tenant.exposed, budget.exposed) == (0, exposed, exposed)
    credit.charge_to("another")
    assert (tenant.exposed, budget.account("another").exposed, budget.account(SEVERAL).exposed) == (0, 0, exposed)
    credit.charge_to("tenant")
    assert (tenant.exposed, budget.account(SEVERAL).exposed) == (0, exposed)
    credit.close_stream(1)
    assert budget.exposed == 0
    assert credit.open_stream(3)
    credit.charge_to("another")
    assert budget.account(SEVERAL).exposed == 0


def test_accounts_are_forgotten_with_their_last_user() -> None:
    budget = Budget(TOTAL)
    credits = [connection(budget, f"tenant {number}") for number in range(100)]
    assert len(budget._accounts) == 101 - 1  # nobody's account is in nobody's hands
    del credits
    assert len(budget._accounts) == 0


def test_output_that_waits_counts_and_leaves_a_floor() -> None:
    budget = Budget(1 * MIB)
    credit = connection(budget, "tenant")
    most = credit.may_queue
    credit.queued(512 * KIB)
    assert budget.exposed == 512 * KIB
    assert 64 * KIB - 1 == credit.may_queue < most
    credit.queued(-512 * KIB)
    assert (budget.exposed, credit.may_queue) == (0, most)


def test_what_is_read_ahead_leaves_room_for_what_begins() -> None:
    budget = Budget(TOTAL)
    tenant = budget.account("tenant")
    while tenant.room_ahead >= 16 * KIB:
        tenant.charge(16 * KIB)
    assert tenant.exposed == pytest.approx(TOTAL / 8, rel=0.01)
    assert tenant.room > TOTAL / 4
    assert connection(budget, "tenant").open_stream(3)
