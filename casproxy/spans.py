"""Owns the hook by which a part says what it is busy with. Refuses to know who listens, and whether anybody does.

``with spans.span("storage.describe", backend="OCI"):`` costs one look into a context variable while nobody listens.
Tracing (``observe/tracing.py``) listens for the length of a call that is sampled; tasks started within inherit that.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Final, Protocol, TypeAlias

Value: TypeAlias = str | int | float | bool
"""What a span may be told. Never a secret, a token or the query of a URL."""


class Span(Protocol):
    """One stretch of work."""

    def note(self, name: str, value: Value) -> None:
        """Add a fact that was not known at its start."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Request headers that let another server continue the trace; empty unless that is switched on."""


class Listener(Protocol):
    """Who wants to know."""

    def begin(self, name: str, facts: Mapping[str, Value]) -> AbstractContextManager[Span]:
        """Called where a stretch begins; the context manager ends it, with the exception that ended it if any."""


class _Nothing:
    """A span nobody listens to."""

    headers: tuple[tuple[str, str], ...] = ()

    def note(self, name: str, value: Value) -> None:
        """Forget it."""


_NOTHING: Final[AbstractContextManager[Span]] = nullcontext(_Nothing())

listener: Final[ContextVar[Listener | None]] = ContextVar("span_listener", default=None)
"""Who listens in this task and in those it starts."""


def span(name: str, **facts: Value) -> AbstractContextManager[Span]:
    """A stretch of work called ``name``, lasting as long as the ``with`` block."""
    listening = listener.get()
    return _NOTHING if listening is None else listening.begin(name, facts)
