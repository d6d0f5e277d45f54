"""Owns "cancel at every await". Refuses to know what is being cancelled.

A *step* is what a task does between two awaits that really yield. A Trio instrument counts the steps of the
scenario's task and of every task below it; when the n-th step has ended, and its task therefore waits somewhere, the
scope around the scenario is cancelled. n = 1, 2, 3 … until a run ends before its n-th step: then the cancel has
been at every place where it can be.

The order of tasks is made the same in each run (Trio shuffles on purpose), so that n means the same place; where worker
threads or sockets take part it may vary, and every place is still met within a run or two.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio
import trio.testing
from trio._core import _run as trio_run

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run(Generic[T]):
    """How one run ended. ``at``: the step after which the cancel came, None when the run was left alone."""

    at: int | None
    cancelled: bool
    """True: the cancel ended it, ``value`` is None. False: it finished all the same (a shield; a cancel at the end)."""
    value: T | None


async def cancel_everywhere(
    scenario: Callable[[], Awaitable[T]],
    check: Callable[[Run[T]], Awaitable[None]],
    *,
    settle: Callable[[], Awaitable[None]] | None = None,
    files: bool = True,
    max_steps: int = 5_000,
    stride: int = 1,
) -> int:
    """Run ``scenario`` unhurt, then cancelled at every await; ``await check(run)`` after each.

    Returns how many cancels were injected. ``scenario`` makes its own fresh state in each run; whatever it raises
    except the cancellation fails the test.
    ``settle`` waits for what may rightly outlive the scenario for a moment (an abandoned thread, the peer's side of a
    socket). Then, before ``check``: no task more than before, and no file or socket more (``files``; Linux).
    ``max_steps`` ends a scenario that never finishes. ``stride``: cancel at every n-th await only, where a run is slow.
    """
    await _observed(scenario, None, check, settle, files)
    for step in itertools.count(1, stride):
        assert step <= max_steps, f"the scenario still has steps to cancel after {max_steps}"
        if not await _observed(scenario, step, check, settle, files):
            assert step > 1, "the scenario has no await: nothing was tested"
            return (step - 1) // stride
    raise AssertionError("unreachable: count() does not end")


def open_files() -> frozenset[tuple[str, str]]:
    """(descriptor, what it refers to) of everything this process has open; empty where there is no ``/proc``."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the descriptor of this very listing
                found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
    return frozenset(found)


async def _observed(
    scenario: Callable[[], Awaitable[T]],
    step: int | None,
    check: Callable[[Run[T]], Awaitable[None]],
    settle: Callable[[], Awaitable[None]] | None,
    files: bool,
) -> bool:
    """One run with its checks. Returns whether the cancel was injected."""
    files_before = open_files() if files else frozenset()
    tasks_before = trio.lowlevel.current_statistics().tasks_living
    run = await _run(scenario, step)
    if settle is not None:
        await settle()
    await trio.testing.wait_all_tasks_blocked()
    tasks = trio.lowlevel.current_statistics().tasks_living - tasks_before
    assert tasks <= 0, f"{tasks} tasks left behind by {run}"
    leaked = (open_files() if files else frozenset()) - files_before
    assert not leaked, f"left open by {run}: {sorted(leaked)}"
    await check(run)
    return run.at is not None


async def _run(scenario: Callable[[], Awaitable[T]], step: int | None) -> Run[T]:
    injector = _Injector(step)
    value: T | None = None
    finished = False

    async def contained() -> None:
        nonlocal value, finished
        with injector.scope:
            injector.root = trio.lowlevel.current_task()
            try:
                value = await scenario()
                finished = True
            finally:
                injector.root = None

    with _same_order_of_tasks():
        trio.lowlevel.add_instrument(injector)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(contained)
        except BaseException as error:
            error.add_note(
                f"the scenario was cancelled after step {step}" if injector.hit else "no cancel was injected"
            )
            raise
        finally:
            trio.lowlevel.remove_instrument(injector)
    return Run(at=step if injector.hit else None, cancelled=not finished, value=value)


class _Injector(trio.abc.Instrument):
    """Cancels ``scope`` when the ``step``-th step of ``root`` and its descendants has ended."""

    def __init__(self, step: int | None) -> None:
        self.scope = trio.CancelScope()
        self.root: trio.lowlevel.Task | None = None
        self.hit = False
        self._left = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._left is None or self.root is None or not self._is_ours(task):
            return
        self._left -= 1
        if self._left == 0:
            self.hit = True
            self.scope.cancel()

    def _is_ours(self, task: trio.lowlevel.Task | None) -> bool:
        while task is not None and task is not self.root:
            task = task.parent_nursery.parent_task if task.parent_nursery is not None else None
        return task is not None


@contextlib.contextmanager
def _same_order_of_tasks() -> Iterator[None]:
    """Trio runs the tasks of one tick in random order; here: in the order of their creation, shuffled by a fixed seed.

    Both names are private to Trio, and the ones that hypothesis and pytest-trio set for the same reason.
    """
    flag, state = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_run._r.setstate(random.Random(0).getstate())
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = flag  # type: ignore[misc]
        trio_run._r.setstate(state)
