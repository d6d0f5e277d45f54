"""Owns how much payload this process may be made to hold, and whose it is. Refuses to know what holds it.

::

    Budget ──┬── Account "secret-a"   exposed by all its connections and transfers together
             ├── Account "secret-b"
             └── Account None         before anybody is known: bounded by the budget alone

An account may grow while it is smaller than what is free (dynamic thresholds of shared packet buffers: Choudhury and
Hahne, 1998). So whoever is alone comes to rest at a half and leaves the other half for whoever comes next; two that are
busy come to rest at a third each, for the larger one shrinks as long as it is over its share. Nobody is asked to give
back what it holds: two that hold on to all they got stand at a half and a quarter, and the third still finds an eighth.
"""

from __future__ import annotations

from collections.abc import Hashable
from weakref import WeakValueDictionary


class Budget:
    """Payload bytes this process can be made to hold by all its peers, floors apart. ``total``, ``exposed``: bytes."""

    __slots__ = ("_accounts", "exposed", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.exposed = 0
        self._accounts: WeakValueDictionary[Hashable, Account] = WeakValueDictionary()

    @property
    def free(self) -> int:
        """What may still be promised."""
        return max(0, self.total - self.exposed)

    def account(self, payer: Hashable = None) -> Account:
        """The account of ``payer``, one for all who name it; kept for as long as somebody holds it."""
        account = self._accounts.get(payer)
        if account is None:
            account = self._accounts[payer] = Account(self, payer)
        return account


class Account:
    """What one payer exposes. Whoever charges it holds it, and takes off in the end what it has put on."""

    __slots__ = ("__weakref__", "budget", "exposed", "payer", "resting")

    def __init__(self, budget: Budget, payer: Hashable) -> None:
        self.budget = budget
        self.payer = payer
        self.exposed = 0
        self.resting = 0
        """Of ``exposed``, what transfers are charged because they have begun."""

    @property
    def room(self) -> int:
        """Bytes it may grow by, so as to be no larger than what is free then."""
        free = self.budget.free
        return free if self.payer is None else max(0, free - self.exposed) // 2

    @property
    def room_ahead(self) -> int:
        """Bytes it may take in before they are needed: what is convenient leaves room for what has yet to begin.

        Alone it comes to rest at an eighth of the budget; up to a half is for windows, and for what begins. What rests
        does not count: a thousand downloads at once would all be left to read crumbs.
        """
        return max(0, self.budget.free // 7 - (self.exposed - self.resting)) // 2

    @property
    def room_moving(self) -> int:
        """The same for what is gone in a moment: alone it comes to rest at a quarter of the budget."""
        return max(0, self.budget.free // 3 - (self.exposed - self.resting)) // 2

    @property
    def tight(self) -> bool:
        """Windows shrink back: hardly anything is free, or this account has more than its share by a sixteenth."""
        free, total = self.budget.free, self.budget.total
        return free * 4 < total or (self.payer is not None and (self.exposed - free) * 16 > total)

    def rest(self, size: int) -> None:
        """``size`` bytes more of what is charged are for having begun; fewer when it is negative."""
        self.resting += size

    def charge(self, size: int) -> None:
        """Expose ``size`` bytes more; fewer when it is negative."""
        self.exposed += size
        self.budget.exposed += size
