"""Every row of the table of faults, and the page that tells people about it."""

from __future__ import annotations

import pytest
import trio

from casproxy_tests.faults.cases import Case, cases
from casproxy_tests.faults.matrix import run
from casproxy_tests.faults.page import PAGE, render


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
async def test_row(case: Case, autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0.02  # loopback delivers at once; only then may the clock jump
    await run(case)


def test_page_says_what_the_rows_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(cases())


def test_rows_are_told_apart() -> None:
    names = [case.name for case in cases()]
    assert len(set(names)) == len(names)
