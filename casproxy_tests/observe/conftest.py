"""Fixtures of this room."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from casproxy.dev.place import Place
from casproxy.observe import log
from casproxy_tests.app.serving import place_at


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_at(tmp_path) as made:
        yield made


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    """Everything that is logged, as JSON lines."""
    out = io.StringIO()
    log.configure("debug", "json", out)
    yield out
    structlog.reset_defaults()
