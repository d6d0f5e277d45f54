"""Owns the progress bar of a transfer. Refuses to know transfers: it is a ``client.progress.Progress``.

On stderr, only when that is a terminal; everywhere else it is silent, so that logs and pipes stay clean.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from casproxy.cli.text import printable
from casproxy.client.progress import Phase, Progress, no_progress


@contextmanager
def progress_bar(label: str) -> Iterator[Progress]:
    """Show the progress of one transfer, named ``label``, for the length of the block; erased at its end."""
    if not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    name = escape(printable(label))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(name, total=None)
        current: Phase | None = None

        def show(phase: Phase, done: int, total: int | None) -> None:
            nonlocal current
            if phase is not current:  # another phase has a speed of its own
                bars.reset(task, description=f"{phase} {name}")
                current = phase
            bars.update(task, completed=done, total=total)

        yield show
