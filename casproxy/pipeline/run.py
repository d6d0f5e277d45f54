"""Owns the outcome of a transfer: the ONE place that decides which of several failures its caller hears.

When one stage fails, its siblings are cancelled, and some fail as well: with an echo (a handover whose other end
is gone) or with a second true reason. The caller hears the reason that explains the others::

    peer gone > size cap > protocol error > digest mismatch > peer too slow > unexpected > store or secret > raw I/O

Raw I/O errors (``OSError``, a broken Trio channel) come from a store or are echoes: a source reports its peer as
``PeerGone``. So what is raw here ends as ``BackendBroken``, and a store's reset is never taken for a client that left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from types import TracebackType
from typing import TypeAlias

import trio

from casproxy.errors import (
    BackendBroken,
    CasproxyError,
    DigestMismatch,
    PeerGone,
    PeerTooSlow,
    RequestError,
    SizeLimitExceeded,
)
from casproxy.spans import listener, span

Stage: TypeAlias = Callable[[], Awaitable[None]]

_RAW = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel)
_BUG = 5
_RANKS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int], ...] = (
    (PeerGone, 0),
    (SizeLimitExceeded, 1),
    (DigestMismatch, 3),
    (RequestError, 2),
    (PeerTooSlow, 4),
    (CasproxyError, 6),
    (_RAW, 7),
    (Exception, _BUG),
)
"""The first row that fits decides; the lowest rank is heard."""


async def run_stages(**stages: Stage) -> None:
    """Run the stages of one transfer side by side, each under its name in a trace; return when all have ended well.

    The first failure, or a cancellation from outside, cancels the others; nothing outlives this call. Call it inside
    ``one_cause``, which turns the group it raises into one error.

    The first of them runs in the caller's own task, which would otherwise keep its frames only to wait. A stage ends
    its handovers without waiting: there the echo of a sibling's would replace its own reason by a cancellation.
    """
    run = [stage if listener.get() is None else partial(_traced, name, stage) for name, stage in stages.items()]
    async with trio.open_nursery() as nursery:
        for stage in run[1:]:
            nursery.start_soon(stage)
        try:
            await run[0]()
        except BaseException:
            # Left to the nursery, it would be done in a frame that gets the group into a variable, and that frame is
            # behind (``f_back``) those in the traceback of each ``Cancelled`` in the group: garbage in a circle.
            nursery.cancel_scope.cancel()
            raise


async def _traced(name: str, stage: Stage) -> None:
    with span(f"pipeline.{name}"):
        await stage()


class one_cause:  # reads as the block that it is
    """Let at most one error out of the block: the one that explains the others, with its own ``__cause__`` kept.

    A cancellation from outside wins over every error of ours, for whoever would hear it is gone. It wins over no
    bug: a group with an unexpected exception beside the cancellation leaves as it is.
    """

    def __enter__(self) -> None:
        """Nothing is needed."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise the one error in place of ``error``."""
        if error is None or not isinstance(error, Exception | BaseExceptionGroup):
            return
        chosen = _translated(reason(error))
        if chosen is error:
            return
        context = chosen.__context__
        try:
            raise chosen
        finally:
            # What it was chosen from holds it, and so would this frame: it must hold neither, or they are garbage
            # that only a full collection finds, with all frames of the transfer and the bytes in them.
            chosen.__context__ = context
            del chosen, context, error, trace


def reason(error: BaseException) -> BaseException:
    """The one error that explains ``error`` and all that is grouped in it; ``error`` itself when none may."""
    leaves = list(_leaves(error))
    others = [leaf for leaf in leaves if not isinstance(leaf, Exception)]
    ours = [leaf for leaf in leaves if isinstance(leaf, Exception)]
    if not others:
        return min(ours, key=_rank)
    harmless = all(isinstance(leaf, trio.Cancelled) for leaf in others) and all(_rank(leaf) != _BUG for leaf in ours)
    return others[0] if harmless else error


def _translated(error: BaseException) -> BaseException:
    if not isinstance(error, _RAW):
        return error
    broken = BackendBroken("the store's connection or file failed unexpectedly")
    broken.__cause__ = error
    return broken


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _rank(error: Exception) -> int:
    return next(rank for kind, rank in _RANKS if isinstance(error, kind))
