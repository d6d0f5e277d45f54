"""Owns reports of unexpected exceptions to Sentry. The only module to name its SDK; imported only when a DSN is set.

What is unexpected is decided by whoever logs it: a line of severity error with an exception becomes a report, once.
Everything the SDK would find out by itself is switched off: local variables, request bodies, environment, breadcrumbs.
Sending happens in the SDK's own thread behind a bounded queue.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import sentry_sdk
import trio
from sentry_sdk.integrations.dedupe import DedupeIntegration

from casproxy import __version__
from casproxy.observe import log

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

_FLUSH_SECONDS: Final = 2.0
_TAGS: Final = ("request_id", "trace_id", "method", "route", "logger")
_PAIR: Final = re.compile(
    r"((?:token|authorization|passw(?:or)?d|passphrase|credential|api_?key|access_?key|secret|private)\w*"
    r"[\"']?\s*[:=]\s*)(\"[^\"]*\"|'[^']*'|[^\s,;)}\]]+)",
    re.IGNORECASE,
)


@asynccontextmanager
async def open_sentry(dsn: str, environment: str, ca_file: str | None = None) -> AsyncIterator[None]:
    """Report to ``dsn`` for the length of the block; leaving sends what is queued, for 2 s at most.

    ``ca_file``: the CAs to believe, as PEM; None leaves the choice to the SDK.
    """
    sentry_sdk.init(
        dsn=dsn,
        environment=environment or None,
        ca_certs=ca_file,
        release=f"casproxy@{__version__}",
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[DedupeIntegration()],
        include_local_variables=False,
        include_source_context=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        traces_sample_rate=None,
        auto_session_tracking=False,
        before_send=_scrub,
    )
    client = sentry_sdk.get_client()
    try:
        with log.reporting_errors(_report):
            yield
    finally:
        with trio.move_on_after(2 * _FLUSH_SECONDS, shield=True):
            await trio.to_thread.run_sync(lambda: client.close(timeout=_FLUSH_SECONDS), abandon_on_cancel=True)
        sentry_sdk.get_global_scope().set_client(None)


def _report(error: BaseException, line: Mapping[str, Any]) -> None:
    with sentry_sdk.isolation_scope() as scope:
        for name in _TAGS:
            if name in line:
                scope.set_tag(name, str(line[name]))
        scope.set_context("log", {"event": str(line.get("event", ""))})
        scope.fingerprint = _fingerprint(error)
        scope.capture_exception(error)


def _fingerprint(error: BaseException) -> list[str]:
    """The same for the same bug: what was raised, and the innermost of our functions it came through."""
    root = error
    while isinstance(root, BaseExceptionGroup):
        root = root.exceptions[0]
    return [type(root).__qualname__, _innermost(root.__traceback__)]


def _innermost(traceback: TracebackType | None) -> str:
    place = ""
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] == "casproxy":
            place = f"{module}.{traceback.tb_frame.f_code.co_qualname}"
        traceback = traceback.tb_next
    return place


def _scrub(event: Event, _hint: Hint) -> Event:
    scrubbed: Event = _clean(event)
    return scrubbed


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _PAIR.sub(r"\1[hidden]", log.clean(value))
    if isinstance(value, dict):
        return {key: _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return value
