"""Owns the search for what only a collection of garbage finds: our objects in a circle. Refuses to know who made it.

Most circles are an exception, its traceback, a frame in it and that frame's variable with the exception. What is found
is named, frames by their functions: the circle goes through one of them, and the rest hangs on it. What libraries leave
in circles among their own objects is not ours to mend, and is not counted. From CPython 3.12 on ``contextlib`` does so
whenever an exception passes, and our objects hang on its circles: there nothing can be told, and the tests are skipped.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import CodeType, CoroutineType, FrameType, FunctionType, TracebackType
from typing import Final

import pytest
import trio

TIMES: Final = 2


async def circles_of(road: Callable[[], Awaitable[None]]) -> Counter[str]:
    """What ``road``, taken ``TIMES``, leaves in circles: names and how many. It runs once before, to warm caches up."""
    if _contextlib_leaves_circles():
        pytest.skip("contextlib of this Python leaves circles of its own")
    tasks = _tasks()
    await road()
    await _until_as_few(tasks)
    gc.disable()
    gc.freeze()  # what is there already is not looked at: that would take ten times as long
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(TIMES):
            await road()
            await _until_as_few(tasks)
        gc.collect()
        return Counter(name for thing in gc.garbage if (name := _name_of_ours(thing)))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


@cache
def _contextlib_leaves_circles() -> bool:
    @contextmanager
    def translated() -> Iterator[None]:
        try:
            yield
        except LookupError:
            raise ValueError from None

    gc.collect()
    gc.disable()
    try:
        with suppress(ValueError), translated():
            raise LookupError
        return gc.collect() > 0
    finally:
        gc.enable()


def told(found: Counter[str]) -> str:
    """For the message of a failed assertion."""
    listed = "".join(f"\n{count:6} {name}" for name, count in found.most_common())
    return f"{found.total()} objects after {TIMES} times, found by a collection only:{listed}"


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def _until_as_few(tasks: int) -> None:
    """Let the server, which works in the same loop, end what the road has begun."""
    with trio.fail_after(20):
        while _tasks() > tasks:  # noqa: ASYNC110 - what is waited for is a number in Trio, not an event
            await trio.sleep(0.001)


def _name_of_ours(thing: object) -> str:
    """What ``thing`` is, ``""`` when it is none of ours."""
    match thing:
        case FrameType():
            return _of_ours("frame of", thing.f_code)
        case TracebackType():
            return _of_ours("traceback in", thing.tb_frame.f_code)
        case CoroutineType():
            return _of_ours("coroutine", thing.cr_code)
        case FunctionType():
            return _of_ours("function", thing.__code__)
        case trio.lowlevel.Task():
            return f"task {thing.name}" if thing.name.startswith("casproxy.") else ""
    kind = type(thing)
    return f"object of {kind.__module__}.{kind.__qualname__}" if kind.__module__.startswith("casproxy.") else ""


def _of_ours(what: str, code: CodeType) -> str:
    _, ours, module = code.co_filename.rpartition("/casproxy/")
    return f"{what} casproxy/{module}: {code.co_qualname}" if ours else ""
