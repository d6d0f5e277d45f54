"""Owns timing a request to something outside: how long, how it ended, and a span for it. Refuses to know for what."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, TypeAlias

import trio

from casproxy import errors
from casproxy.spans import Span, Value, span

Report: TypeAlias = Callable[[str, float], None]
"""Told how a request ended (one of ``RESULTS``) and how many seconds it took."""

_TABLE: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (errors.AlreadyStored, "ok"),
    (errors.ArtifactNotFound, "not_found"),
    (errors.SecretNotFound, "not_found"),
    (errors.BackendRefused, "refused"),
    (errors.SecretDenied, "refused"),
    (errors.SecretMalformed, "refused"),
    (errors.BackendUnavailable, "unavailable"),
    (errors.SecretUnavailable, "unavailable"),
    (trio.Cancelled, "cancelled"),
)
RESULTS: Final = ("ok", "not_found", "refused", "unavailable", "error", "cancelled")


class Timed:
    """Around one request: ``with Timed("storage.describe", report, backend="OCI"):``."""

    __slots__ = ("_began", "_report", "_span")

    def __init__(self, name: str, report: Report, **facts: Value) -> None:
        self._report = report
        self._span = span(name, **facts)

    def __enter__(self) -> Span:
        self._began = time.perf_counter()
        return self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._report(result_of(error), time.perf_counter() - self._began)
        self._span.__exit__(kind, error, traceback)


def result_of(error: BaseException | None) -> str:
    """The word for how something ended: the first row that fits; a group counts as ``error`` unless all cancelled."""
    if error is None:
        return "ok"
    if isinstance(error, BaseExceptionGroup):
        return "cancelled" if error.split(trio.Cancelled)[1] is None else "error"
    return next((word for kind, word in _TABLE if isinstance(error, kind)), "error")
