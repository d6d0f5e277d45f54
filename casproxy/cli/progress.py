"""Owns the progress bars of transfers. Refuses to know transfers: each bar is a ``client.progress.Progress``.

On stderr, only when a person watches it; everywhere else there is none, so that logs and pipes stay clean.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from casproxy.cli.text import printable
from casproxy.client.progress import Phase, Progress, no_progress
from casproxy.observe.terminal import is_watched

if TYPE_CHECKING:
    import rich.progress


class Bars:
    """The bars of transfers that run side by side. Made by ``progress_bars``."""

    def __init__(self, shown: rich.progress.Progress | None) -> None:
        self._shown = shown

    @contextmanager
    def bar(self, label: str) -> Iterator[Progress]:
        """Show the progress of one transfer, named ``label``, for the length of the block; erased at its end."""
        if self._shown is None:
            yield no_progress
            return
        from rich.markup import escape

        bars, name = self._shown, escape(printable(label))
        task = bars.add_task(name, total=None)
        current: Phase | None = None

        def show(phase: Phase, done: int, total: int | None) -> None:
            nonlocal current
            if phase is not current:  # another phase has a speed of its own
                bars.reset(task, description=f"{phase} {name}")
                current = phase
            bars.update(task, completed=done, total=total)

        try:
            yield show
        finally:
            bars.refresh()  # small files come and go between two frames
            bars.remove_task(task)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within the block a line may be printed to the same terminal: the bars are out of the way."""
        if self._shown is None:
            yield
            return
        self._shown.stop()
        yield
        self._shown.start()


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Show bars for the length of the block, when anybody watches."""
    if not is_watched(sys.stderr):
        yield Bars(None)
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from casproxy.cli.console import Console

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    # Results go to stdout; rich would take them over to its own stream, stderr.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as shown:
        yield Bars(shown)
