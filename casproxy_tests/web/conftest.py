"""What the port logs in a test is kept for it, and printed by nobody: a traceback in colour costs a second."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
import structlog

from casproxy.observe import log


@pytest.fixture(autouse=True)
def log_lines() -> Iterator[io.StringIO]:
    out = io.StringIO()
    log.configure("info", "json", out)
    yield out
    structlog.reset_defaults()
