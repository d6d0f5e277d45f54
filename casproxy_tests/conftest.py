"""Owns what every test is held to: it leaves no descriptor, thread, child process or temporary file behind.

Hypothesis is short and repeatable in CI, and long under ``CASPROXY_SOAK=1`` (``just soak``).
"""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from casproxy_tests.cas import believe_nobody
from casproxy_tests.leaks import pytest_runtest_makereport  # noqa: F401 - a hook is found by its name here

_SOAK = os.environ.get("CASPROXY_SOAK") == "1"
_CI = os.environ.get("CI") == "true"

hypothesis.settings.register_profile(
    "casproxy",
    deadline=None,  # a shared machine is slow at times; slowness is measured in bench, not here
    derandomize=_CI and not _SOAK,
    max_examples=20_000 if _SOAK else 100,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("casproxy")


@pytest.fixture(scope="session")
def _temporary_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where this process and its children put temporary files; the tests' own ``tmp_path`` is elsewhere."""
    directory = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(directory))
        patch.setattr(tempfile, "tempdir", str(directory))
        yield directory


@pytest.fixture(scope="session", autouse=True)
def _no_cas_of_the_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        believe_nobody(patch, tmp_path_factory.mktemp("cas"))
        yield


@pytest.fixture(autouse=True)
def leaves_nothing_behind(_temporary_directory: Path) -> Iterator[None]:
    """Fail a test that leaves something open, running or lying around. Set up first, so checked last.

    What a fixture of a wider scope holds was there before the test and may stay.
    """
    descriptors, threads = _descriptors(), _threads()
    children, files = _children(), set(os.listdir(_temporary_directory))
    yield
    if left := _descriptors() - descriptors:
        gc.collect()  # what sits in a reference cycle after a test with an exception is nobody's any more
        left = _descriptors() - descriptors
    assert not left, f"left open: {dict(left)}"
    assert not (left_threads := _threads() - threads), f"left running: {left_threads}"
    assert not (left_children := _children() - children), f"left child processes: {left_children}"
    assert not (left_files := set(os.listdir(_temporary_directory)) - files), f"left lying around: {left_files}"


def _descriptors() -> Counter[str]:
    """Open file descriptors by what they point to, sockets and pipes by kind."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the descriptor of this very listing
            continue
        found[target.partition(":[")[0]] += 1
    return found


def _threads() -> set[threading.Thread]:
    """Threads that would keep the process alive; Trio's idle workers are daemons."""
    return {thread for thread in threading.enumerate() if not thread.daemon}


def _children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # an idle worker thread ended in between
            found.update(int(pid) for pid in (task / "children").read_text().split())
    return found
