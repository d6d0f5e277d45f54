"""Owns how rich writes to a terminal here. Refuses to know what.

rich decides for itself when to use colour, and ends the process on a broken pipe; both are decided elsewhere in this
program: ``observe/terminal.py`` and ``cli/errors.py``.
"""

from __future__ import annotations

import sys

import rich.console

from casproxy.observe.terminal import is_watched


class Console(rich.console.Console):
    """A rich console on stdout or stderr: escape sequences for those who watch, else plain text."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        watched = is_watched(sys.stderr if stderr else sys.stdout)
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, highlight=False, force_terminal=watched)

    def on_broken_pipe(self) -> None:
        """Called while the ``BrokenPipeError`` is handled: let it pass, ``cli/errors.py`` has the answer."""
        raise
