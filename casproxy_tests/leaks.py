"""Owns the search for secrets in what tests leave for people to read: captured output and log lines, and shown values.

Every credential that tests use begins with ``canary`` or has the form of a JWT. A test that prints one on purpose reads
it back with ``capsys``; what is left over was written by the program.
"""

from __future__ import annotations

import re
from collections.abc import Generator

import pytest

LEAK = re.compile(r"canary|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}", re.IGNORECASE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose captured output or log shows a credential. For ``conftest.py`` to import."""
    report = yield
    found = [f"{name}: {shown(leak, text)}" for name, text in report.sections if (leak := LEAK.search(text))]
    if found and report.passed:
        report.outcome = "failed"
        report.longrepr = "a credential was written: " + "; ".join(found)
    return report


def shown(leak: re.Match[str], text: str) -> str:
    """The place of a leak, and no more of it than tells which one it is."""
    return f"…{text[max(0, leak.start() - 80) : leak.start()]}[{leak.group()[:10]}…]"
