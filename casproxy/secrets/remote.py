"""Owns what the sources behind a vendor's SDK have in common. Refuses to know any vendor.

An SDK blocks, logs what it likes and raises errors that hold whole answers. So its calls run in threads of their own
(``SdkThreads``), and what it raised is reduced to one line of text (``said``) before it becomes a ``SecretError``: no
traceback, no error and no frame outside the thread ever holds a credential or an answer's body.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import structlog
import trio

from casproxy.errors import (
    ConfigError,
    SecretDenied,
    SecretError,
    SecretMalformed,
    SecretNotFound,
    SecretUnavailable,
)
from casproxy.in_thread import run_in_thread
from casproxy.secrets.api import Secret

T = TypeVar("T")

MAX_THREADS: Final = 8
"""Threads one source may block at once; more look-ups wait for one of them, each up to its own deadline."""

PROBE: Final = "chainloop-non-existing"
"""The secret that the start-up check asks for and wants to be told is missing."""

_LONGEST_CAUSE: Final = 500
_log = structlog.get_logger(__name__)


class SourceSaid(Exception):
    """What a store or its SDK said, as one line of text: for the log, as the cause of a ``SecretError``."""


class LoginRefused(SecretDenied):
    """The store does not accept this process's own credentials, whatever secret it asks for."""


def said(text: object) -> SourceSaid:
    """The text of an answer or an error on one line, cut to a length fit for a log."""
    return SourceSaid(" ".join(str(text).split())[:_LONGEST_CAUSE])


def because(error: SecretError, cause: object) -> SecretError:
    """``error`` with what the store said as its cause, to be raised outside of any ``except`` block."""
    error.__cause__ = said(cause)
    return error


def not_found(secret_id: str) -> SecretNotFound:
    """The store has no such secret."""
    return SecretNotFound(f"secret {secret_id} not found")


def to_secret(secret_id: str, payload: str | bytes) -> Secret:
    """The secret in a JSON text. ``SecretMalformed`` holds nothing of the text, in its frames neither."""
    fields = _parse(payload)
    if isinstance(fields, dict):
        return Secret({key: value for key, value in fields.items() if value is not None})
    del payload, fields
    raise SecretMalformed(f"secret {secret_id} is not a JSON object")


def _parse(payload: str | bytes) -> object:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return None


def _nothing() -> None:
    pass


class SdkThreads:
    """The worker threads of one source."""

    def __init__(self, max_threads: int = MAX_THREADS) -> None:
        self._limiter = trio.CapacityLimiter(max_threads)
        self._lock = threading.Lock()
        self._running = 0
        self._closed = False
        self._release: Callable[[], None] = _nothing

    async def run(self, call: Callable[[], T]) -> T:
        """Run a blocking call; cancellation returns at once, and the thread ends by the SDK's own timeouts."""
        return await run_in_thread(partial(self._counted, call), limiter=self._limiter)

    def close(self, release: Callable[[], None]) -> None:
        """Call ``release`` once no call is under way: now, or in the last abandoned thread.

        SDKs open connections on demand, also when they were closed a moment ago, and nobody would close those again.
        """
        with self._lock:
            self._closed, self._release = True, release
        self._release_if_idle()

    def _counted(self, call: Callable[[], T]) -> T:
        with self._lock:
            if self._closed:
                raise SecretUnavailable("the secret source is closed")
            self._running += 1
        try:
            return call()
        finally:
            with self._lock:
                self._running -= 1
            self._release_if_idle()

    def _release_if_idle(self) -> None:
        with self._lock:
            release = _nothing if self._running else self._release
            if not self._running:
                self._release = _nothing  # once, and an SDK that nobody holds can go
        release()

    async def wait_idle(self) -> None:
        """Return once no thread works any more, abandoned ones included. Nobody may start work meanwhile."""
        borrowers = [object() for _ in range(int(self._limiter.total_tokens))]
        taken = []
        try:
            for borrower in borrowers:
                await self._limiter.acquire_on_behalf_of(borrower)
                taken.append(borrower)
        finally:
            for borrower in taken:
                self._limiter.release_on_behalf_of(borrower)


async def check_by_reading(
    read: Callable[[str], Awaitable[Secret]], probe: str, advise: Callable[[SecretError], str | None], timeout: float
) -> None:
    """The start-up check: ask for a secret that must be missing. ``timeout`` in seconds.

    ``advise`` turns what went wrong into a sentence that names the key to fix, the text of the ``ConfigError``; None
    when it does not tell against the configuration: stores whose policies name single secrets deny unknown ones.
    """
    failure: SecretError = SecretUnavailable(f"no answer within {timeout:g} s")
    with trio.move_on_after(timeout):
        try:
            await read(probe)
        except SecretNotFound:
            return
        except SecretError as error:
            failure = error
        else:
            raise ConfigError(f"credentials_service: there is a secret {probe}, which nobody should have; delete it")
    advice = advise(failure)
    if advice is None:
        _log.warning("secret_source_check_denied", secret_id=probe, error=str(failure), cause=cause_of(failure))
        return
    try:
        raise ConfigError(advice) from failure
    finally:
        del failure


def cause_of(error: BaseException) -> str:
    """What the store said, for a sentence to an operator: the cause's text, else the error's own."""
    return str(error.__cause__ or error)
