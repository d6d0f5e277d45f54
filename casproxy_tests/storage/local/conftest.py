"""Fixtures and system-call faults for the FS backend's tests."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from casproxy.storage.local.root import LocalRoot, open_local_root


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The root's directory."""
    return tmp_path / "root"


@pytest.fixture
async def root(place: Path) -> AsyncIterator[LocalRoot]:
    async with open_local_root(place) as opened:
        yield opened


class Gate:
    """Holds up one system call until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def held(*args: Any, **options: Any) -> Any:
            self.reached.set()
            self._open.wait()
            return call(*args, **options)

        return held


@contextmanager
def gate_at(name: str) -> Iterator[Gate]:
    """``os.{name}`` waits at a gate inside the block; leaving opens it."""
    gate = Gate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, gate.wrap(getattr(os, name)))
        try:
            yield gate
        finally:
            gate.open()


CHANGING = ("open", "mkdir", "writev", "fsync", "rename")
"""The system calls by which an upload changes the disk, or finds its way."""


@contextmanager
def failing_call(number: int, error: Callable[[], BaseException]) -> Iterator[list[str]]:
    """The ``number``-th (from 1) call of ``CHANGING`` raises ``error()``, once. Yields the names of the calls made."""
    calls: list[str] = []

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) == number:
                raise error()
            return call(*args, **options)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGING:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        yield calls
