"""Owns the token that is shown to Vault: a given one, or one from a login that is renewed before it expires.

::

    login ──── lease ────▶ 2/3 of it spent ──── renew ────▶ …
      ▲                          │ refused, or hardly any time gained (the lease's maximum is near)
      └──────────────────────────┘

Refuses to know how a login or a renewal is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
import trio

from casproxy.config.kinds import SecretStr
from casproxy.errors import SecretDenied, SecretError

_RENEW_AT: Final = 2 / 3
_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 30.0
_RELOGIN_SECONDS: Final = 30.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """A token and how long it is good for: ``seconds`` from ``since`` (Trio's clock), 0 for ever."""

    token: SecretStr
    seconds: float
    renewable: bool
    since: float

    @property
    def renew_at(self) -> float:
        """When to renew it."""
        return self.since + self.seconds * _RENEW_AT if self.seconds else math.inf

    @property
    def expires_at(self) -> float:
        """When the server forgets it."""
        return self.since + self.seconds if self.seconds else math.inf


class Tokens(Protocol):
    """Where requests get their token from."""

    async def get(self) -> SecretStr:
        """The token to show now. Errors: ``SecretError``."""

    async def replace(self, refused: SecretStr) -> bool:
        """The server refused this token. True: there is another one by now, it is worth asking again."""

    async def keep_fresh(self) -> None:
        """Renew in time, until cancelled."""


class GivenToken:
    """A token from the configuration, used as it is."""

    def __init__(self, token: SecretStr) -> None:
        self._token = token

    async def get(self) -> SecretStr:
        """See ``Tokens.get``."""
        return self._token

    async def replace(self, refused: SecretStr) -> bool:
        """See ``Tokens.replace``: there is no other."""
        return False

    async def keep_fresh(self) -> None:
        """See ``Tokens.keep_fresh``: nothing to do."""
        await trio.sleep_forever()


class LoginToken:
    """A token from ``login``, kept alive by ``renew``; both raise ``SecretError``."""

    def __init__(self, login: Callable[[], Awaitable[Lease]], renew: Callable[[SecretStr], Awaitable[Lease]]) -> None:
        self._login = login
        self._renew = renew
        self._lease: Lease | None = None
        self._one_at_a_time = trio.Lock()
        self._changed = trio.Event()

    async def get(self) -> SecretStr:
        """See ``Tokens.get``; logs in the first time, and when nothing could be renewed in time."""
        lease = self._lease
        if lease is not None and trio.current_time() < lease.expires_at:
            return lease.token
        async with self._one_at_a_time:
            if self._lease is lease or self._lease is None:
                self._take(await self._login())
            assert self._lease is not None  # noqa: S101 - set just now, or by whoever held the lock before
            return self._lease.token

    async def replace(self, refused: SecretStr) -> bool:
        """See ``Tokens.replace``. A young token is not to blame: the server means the secret."""
        async with self._one_at_a_time:
            lease = self._lease
            if lease is None or lease.token != refused:
                return True
            if trio.current_time() < lease.since + _RELOGIN_SECONDS:
                return False
            self._take(await self._login())
            return True

    async def keep_fresh(self) -> None:
        """See ``Tokens.keep_fresh``. A failure is logged, and tried again ever more slowly."""
        pause = _RETRY_SECONDS
        while True:
            await self._until_due()
            try:
                await self._refresh()
            except SecretError as error:
                _log.warning("vault_token_not_renewed", error=str(error), cause=str(error.__cause__))
                await trio.sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY_SECONDS)
            else:
                pause = _RETRY_SECONDS

    async def _until_due(self) -> None:
        """Return when the current lease, if there is one and whichever it is by then, must be renewed."""
        while self._lease is None or trio.current_time() < self._lease.renew_at:
            due = math.inf if self._lease is None else self._lease.renew_at
            with trio.move_on_at(due):
                await self._changed.wait()

    async def _refresh(self) -> None:
        async with self._one_at_a_time:
            lease = self._lease
            if lease is not None and trio.current_time() >= lease.renew_at:
                self._take(await self._renewed(lease) or await self._login())

    async def _renewed(self, lease: Lease) -> Lease | None:
        """The lease with new time on it; None when a login is due."""
        if not lease.renewable:
            return None
        try:
            renewed = await self._renew(lease.token)
        except SecretDenied:
            return None
        return renewed if renewed.seconds > lease.seconds / 2 else None

    def _take(self, lease: Lease) -> None:
        self._lease = lease
        changed, self._changed = self._changed, trio.Event()
        changed.set()
