"""Receive credit: wire.md Behaviour 12. Every byte is credited exactly once, to its stream and to its connection.

The property tests play peers that keep their own books and never send more than those allow.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from casproxy.wire.budget import Budget
from casproxy.wire.flow import FLOOR, ReceiveCredit

KIB, MIB = 1024, 1024 * 1024
INITIAL, LARGEST, CONNECTION = 64 * KIB, 4 * MIB, 16 * MIB


class Peers(RuleBasedStateMachine):
    """Some connections on one budget. ``books``: what each peer thinks it may send, 0 for its connection."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self.budget = Budget(total)
        self.connections: list[ReceiveCredit] = []
        self.books: list[dict[int, int]] = []
        self.held: list[dict[int, int]] = []
        self.ended: set[int] = set()
        self.next_id = 1
        for _ in range(3):
            self.connections.append(
                ReceiveCredit(self.budget, initial=INITIAL, largest=LARGEST, largest_connection=CONNECTION)
            )
            self.books.append({0: FLOOR})
            self.held.append({})

    def _credit_connection(self, which: int) -> None:
        credit = self.connections[which].connection_credit()
        assert credit >= 0
        self.books[which][0] += credit

    @rule(which=st.integers(0, 2))
    def open(self, which: int) -> None:
        if self.connections[which].open_stream(self.next_id):
            self.books[which][self.next_id] = INITIAL
            self.held[which][self.next_id] = 0
        self.next_id += 2

    @rule(which=st.integers(0, 2), pick=st.integers(0, 100), share=st.floats(0.01, 1))
    def send(self, which: int, pick: int, share: float) -> None:
        books, streams = self.books[which], sorted(self.held[which])
        if not streams:
            return
        stream_id = streams[pick % len(streams)]
        size = int(min(books[0], books[stream_id]) * share)
        if size <= 0:
            return
        books[0] -= size
        books[stream_id] -= size
        self.held[which][stream_id] += size
        assert self.connections[which].received(stream_id, size)
        self._credit_connection(which)

    @rule(which=st.integers(0, 2), share=st.floats(0.01, 1))
    def send_to_nobody(self, which: int, share: float) -> None:
        """To a stream that was closed while the bytes were under way."""
        size = int(self.books[which][0] * share * 0.2)
        if size > 0:
            self.books[which][0] -= size
            assert not self.connections[which].received(2**30 + 1, size)
            self._credit_connection(which)

    @rule(which=st.integers(0, 2), pick=st.integers(0, 100), share=st.floats(0.01, 1))
    def hand_on(self, which: int, pick: int, share: float) -> None:
        streams = [stream_id for stream_id, held in sorted(self.held[which].items()) if held]
        if not streams:
            return
        stream_id = streams[pick % len(streams)]
        size = max(1, int(self.held[which][stream_id] * share))
        self.held[which][stream_id] -= size
        self.books[which][stream_id] += self.connections[which].hand_on(stream_id, size)
        self._credit_connection(which)

    @rule(which=st.integers(0, 2), pick=st.integers(0, 100))
    def end(self, which: int, pick: int) -> None:
        """The peer half-closes: its credit is gone, what it sent is still held."""
        streams = sorted(self.held[which])
        if streams:
            stream_id = streams[pick % len(streams)]
            self.ended.add(stream_id)
            self.books[which][stream_id] = 0
            self.connections[which].peer_ended(stream_id)

    @rule(which=st.integers(0, 2), pick=st.integers(0, 100))
    def close(self, which: int, pick: int) -> None:
        streams = sorted(self.held[which])
        if streams:
            stream_id = streams[pick % len(streams)]
            del self.held[which][stream_id], self.books[which][stream_id]
            assert self.connections[which].close_stream(stream_id)
            assert not self.connections[which].close_stream(stream_id)
            self._credit_connection(which)

    @rule(which=st.integers(0, 2), payer=st.sampled_from(["one", "another"]))
    def charge(self, which: int, payer: str) -> None:
        """Somebody found out who pays."""
        self.connections[which].charge_to(payer)

    @precondition(lambda self: any(any(held.values()) for held in self.held))
    @rule()
    def hand_on_everything(self) -> None:
        for which, held in enumerate(self.held):
            for stream_id, size in held.items():
                held[stream_id] = 0
                self.books[which][stream_id] += self.connections[which].hand_on(stream_id, size)
            self._credit_connection(which)

    @invariant()
    def both_sides_agree(self) -> None:
        for connection, books, held in zip(self.connections, self.books, self.held, strict=True):
            assert connection.available == books[0] >= 0
            assert connection.held == sum(held.values())
            for stream_id in held:
                assert books[stream_id] >= 0
                waits = stream_id not in self.ended and (books[stream_id] <= 0 or books[0] <= 0)
                assert connection.starved(stream_id) == waits

    @invariant()
    def the_budget_bounds_what_peers_can_make_us_hold(self) -> None:
        """Held and promised together, without each connection's floor."""
        exposed = 0
        for books, held in zip(self.books, self.held, strict=True):
            streams = sum(available for stream_id, available in books.items() if stream_id)
            exposed += max(0, sum(held.values()) + min(books[0], streams) - FLOOR)
        assert self.budget.exposed == exposed
        assert exposed <= self.budget.total
        accounts = {id(connection._account): connection._account for connection in self.connections}
        assert sum(account.exposed for account in accounts.values()) == exposed

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        """A peer without credit is one whose bytes we hold: handing them on gives some back."""
        for books, held in zip(self.books, self.held, strict=True):
            for stream_id, size in held.items():
                if not size and stream_id not in self.ended:
                    assert books[stream_id] > 0
            if not any(held.values()):
                assert books[0] > 0

    def teardown(self) -> None:
        """Everything closed: nothing is held, and each connection's window is open again."""
        for which in range(3):
            for stream_id in sorted(self.held[which]):
                self.connections[which].close_stream(stream_id)
            self.held[which].clear()
            self._credit_connection(which)
            assert self.connections[which].held == 0
            assert self.books[which][0] * 2 >= min(FLOOR, self.connections[which].target)
        for connection in self.connections:
            connection.close()
        assert self.budget.exposed == 0


class PlentifulPeers(Peers):
    def __init__(self) -> None:
        super().__init__(256 * MIB)


class TightPeers(Peers):
    def __init__(self) -> None:
        super().__init__(1 * MIB)


class StarvingPeers(Peers):
    def __init__(self) -> None:
        super().__init__(0)


TestPlentiful = PlentifulPeers.TestCase
TestTight = TightPeers.TestCase
TestStarving = StarvingPeers.TestCase


def connection(total: int = 256 * MIB) -> tuple[ReceiveCredit, Budget]:
    budget = Budget(total)
    return ReceiveCredit(budget, initial=INITIAL, largest=LARGEST, largest_connection=CONNECTION), budget


def stream_through(credit: ReceiveCredit, stream_id: int, size: int) -> int:
    """A fast sender and a fast taker; returns the most the sender ever had to spend."""
    stream, whole, most = INITIAL, credit.available, 0
    while size > 0:
        step = min(stream, whole, size)
        assert step > 0, "the sender is stuck"
        most = max(most, min(stream, whole))
        credit.received(stream_id, step)
        stream, whole, size = stream - step, whole - step, size - step
        whole += credit.connection_credit()
        stream += credit.hand_on(stream_id, step)
        whole += credit.connection_credit()
    return most


@pytest.mark.parametrize(("size", "least", "most"), [(64 * KIB, 32 * KIB, 128 * KIB), (64 * MIB, 3 * MIB, LARGEST)])
def test_b12_windows_start_small_and_grow_fast_with_use(size: int, least: int, most: int) -> None:
    credit, _ = connection()
    assert credit.open_stream(1)
    assert least <= stream_through(credit, 1, size) <= most


def test_b12_a_sender_without_credit_gets_no_crumbs() -> None:
    """The five bytes before a message are handed on at once; alone they would cost a round trip."""
    credit = ReceiveCredit(Budget(64 * MIB), initial=INITIAL, largest=LARGEST, largest_connection=CONNECTION)
    assert credit.open_stream(1)
    credit.received(1, INITIAL)
    assert credit.hand_on(1, 5) == 0
    assert credit.hand_on(1, INITIAL - 5) >= INITIAL


def test_b12_windows_do_not_grow_over_their_limit() -> None:
    credit, _ = connection()
    assert credit.open_stream(1)
    stream_through(credit, 1, 256 * MIB)
    assert credit.target <= CONNECTION
    credit.received(1, 1)
    assert credit.available <= CONNECTION


def test_b12_windows_shrink_back_when_the_budget_is_tight() -> None:
    credit, budget = connection(20 * MIB)
    assert credit.open_stream(1)
    stream_through(credit, 1, 64 * MIB)
    grown = budget.exposed
    budget.exposed += budget.free  # somebody else takes all the room
    before = budget.exposed
    for _ in range(200):
        credit.received(1, 16 * KIB)
        credit.hand_on(1, 16 * KIB)
        if credit.starved(1):
            credit.connection_credit()
    assert before - budget.exposed > grown / 2


@pytest.mark.parametrize("streams", [10_000])
def test_b12_filled_windows_of_many_stalled_streams_stay_inside_the_budget(streams: int) -> None:
    budget = Budget(64 * MIB)
    connections = [
        ReceiveCredit(budget, initial=INITIAL, largest=LARGEST, largest_connection=CONNECTION) for _ in range(10)
    ]
    held = refused = 0
    for number in range(streams):
        credit = connections[number % 10]
        stream_id = 2 * number + 1
        if not credit.open_stream(stream_id):
            refused += 1
            continue
        size = min(INITIAL, credit.available)
        if size > 0:
            credit.received(stream_id, size)
            held += size
        credit.connection_credit()
    assert refused > 0
    assert held <= budget.total + 10 * FLOOR
    assert held > budget.total / 2, "the budget is there to be used"


def test_b12_an_idle_connection_exposes_nothing_however_it_has_grown() -> None:
    credit, budget = connection()
    assert credit.open_stream(1)
    stream_through(credit, 1, 64 * MIB)
    assert budget.exposed > 0
    credit.close_stream(1)
    assert budget.exposed == 0


@given(st.integers(1, INITIAL))
def test_closing_a_connection_first_and_its_streams_later_counts_nothing_twice(size: int) -> None:
    credit, budget = connection()
    for stream_id in (1, 3):
        assert credit.open_stream(stream_id)
        credit.received(stream_id, size // 2)
    credit.close()
    credit.hand_on(1, size // 4)
    credit.close_stream(1)
    credit.close_stream(3)
    assert budget.exposed == 0


def test_streams_that_their_peers_have_ended_expose_what_they_hold_and_no_window() -> None:
    """A thousand downloads at once on connections with large windows."""
    credit, budget = connection()
    assert credit.open_stream(1)
    stream_through(credit, 1, 64 * MIB)
    for stream_id in range(3, 2003, 2):
        assert credit.open_stream(stream_id)
        assert credit.received(stream_id, 100)
        credit.peer_ended(stream_id)
        credit.hand_on(stream_id, 100)
    credit.close_stream(1)
    assert budget.exposed == 0


def test_a_stream_that_is_not_open_is_neither_held_nor_credited() -> None:
    credit, budget = connection()
    assert not credit.received(7, 1000)
    assert credit.hand_on(7, 1000) == 0
    assert not credit.starved(7)
    assert 7 not in credit
    assert len(credit) == 0
    assert credit.held == budget.exposed == 0
