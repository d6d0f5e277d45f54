"""Owns checking tokens in a running process: keys, clock, verdict cache and worker threads around ``verify``.

A check costs about 0.5 ms of CPU and clients send the same token with every call, so the good verdict on a
byte-identical token is kept, under the token's sha256 and never the token itself. Bad verdicts are not kept: a flood of
bad tokens must not push out good ones. Refuses to know gRPC, HTTP and where keys come from.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from casproxy.auth.claims import Claims
from casproxy.auth.keys import KeySource, VerificationKey
from casproxy.auth.verify import UnknownKid, check_time, require_token, verify
from casproxy.in_thread import run_in_thread


@dataclass(frozen=True, slots=True)
class VerifierSettings:
    """``require_exp`` and ``issuer`` harden the check; the rest bounds its cost."""

    require_exp: bool = False
    issuer: str | None = None
    max_verdicts: int = 4096
    max_threads: int = 2


def bearer_token(authorization: str) -> str:
    """The token in an ``Authorization`` value, ``""`` when its scheme is another (RFC 6750, section 2.1)."""
    scheme, _, token = authorization.partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else ""


class Verifier:
    """Checks tokens for any number of tasks at once. gRPC and HTTP share one."""

    def __init__(
        self,
        source: KeySource,
        settings: VerifierSettings = VerifierSettings(),
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._settings = settings
        self._now = now
        self._keys: Sequence[VerificationKey] = source.keys()
        self._verdicts: OrderedDict[bytes, Claims] = OrderedDict()
        self._flights: dict[bytes, trio.Lock] = {}
        self._limiter = trio.CapacityLimiter(settings.max_threads)
        self.signature_checks = 0
        """How many tokens were checked in full since the start; the others were hits."""

    async def verify(self, token: str) -> Claims:
        """The claims of a good token; ``AuthError`` otherwise. A hit does not leave the event loop's thread.

        Calls that bring the same unknown token at once share one check. Cancelled, it returns at once; the
        thread's verdict is thrown away.
        """
        require_token(token)
        name = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        claims = self._recall(name)
        if claims is not None:
            return claims
        async with self._flight(name):
            claims = self._recall(name)
            return claims if claims is not None else await self._check(name, token)

    def _recall(self, name: bytes) -> Claims | None:
        self._renew_keys()
        claims = self._verdicts.get(name)
        if claims is not None:
            check_time(claims, self._now())
            self._verdicts.move_to_end(name)
        return claims

    def _renew_keys(self) -> None:
        keys = self._source.keys()
        if keys is not self._keys:
            self._keys = keys
            self._verdicts.clear()

    async def _check(self, name: bytes, token: str) -> Claims:
        tried = self._keys
        try:
            return await self._check_once(name, token)
        except UnknownKid:
            await self._source.seek()
            self._renew_keys()
            if self._keys is tried:
                raise
        return await self._check_once(name, token)

    async def _check_once(self, name: bytes, token: str) -> Claims:
        keys = self._keys
        self.signature_checks += 1
        settings = self._settings
        check = partial(verify, token, keys, self._now(), require_exp=settings.require_exp, issuer=settings.issuer)
        claims = await run_in_thread(check, limiter=self._limiter)
        if keys is self._keys:  # else they changed meanwhile and this verdict is of the old ones
            self._remember(name, claims)
        return claims

    def _remember(self, name: bytes, claims: Claims) -> None:
        self._verdicts[name] = claims
        if len(self._verdicts) > self._settings.max_verdicts:
            self._verdicts.popitem(last=False)

    @asynccontextmanager
    async def _flight(self, name: bytes) -> AsyncIterator[None]:
        lock = self._flights.setdefault(name, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():  # nobody holds it, so nobody waits for it either
                self._flights.pop(name, None)
