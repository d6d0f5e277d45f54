"""Owns the way to real counterparts: programs of other people that the tests run against.

A missing one is a reason to skip on a developer's machine, and a failure where ``CASPROXY_REQUIRE_REAL=1`` says that
the machine was prepared for them, so that a test cannot go missing unnoticed. ``CASPROXY_WITHOUT`` names, separated by
spaces, those that cannot be had on that machine and are known to be missing.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest


def require_real(program: str, reason: str) -> Path:
    """The path of ``program``, or skip (fail) the calling test. ``reason``: what it is needed for, for the reader."""
    beside_python = str(Path(sys.executable).parent)  # some come as Python packages, and pytest may run unactivated
    found = shutil.which(program, path=os.pathsep.join([beside_python, os.environ.get("PATH", os.defpath)]))
    if found is None:
        if program in os.environ.get("CASPROXY_WITHOUT", "").split():
            pytest.skip(f"{program} cannot be had here; needed for {reason}")
        missing(f"{program} is not installed; needed for {reason}")
    return Path(found)


def require_root(reason: str) -> None:
    """Skip (fail) the calling test unless it runs as root."""
    if os.geteuid() != 0:
        missing(f"not root; needed for {reason}")


def missing(text: str) -> NoReturn:
    """Skip the calling test with ``text``, or fail it where real counterparts are required."""
    if os.environ.get("CASPROXY_REQUIRE_REAL") == "1":
        pytest.fail(f"CASPROXY_REQUIRE_REAL=1, but {text}", pytrace=False)
    pytest.skip(text)
