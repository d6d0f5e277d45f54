"""The table of the page on performance: made from what runs of ``just bench`` wrote, and nothing else of the page."""

from __future__ import annotations

from typing import Any

import pytest

from contrib.bench.page import BEGIN, END, PAGE, replaced, section
from contrib.bench.table import Figure


def run(*values: float, load: float = 0.1) -> dict[str, Any]:
    figures = [
        Figure(1, "upload", values, 0.55),
        Figure(6, "memory", [value * 10 for value in values], 32, at_least=False, unit="MiB"),
    ]
    return {
        "version": "1.0",
        "python": "3.11.7",
        "sizes": "default",
        "load_before": load,
        "machine": {"processor": "Abacus", "cores": 2, "memory": 8 << 30, "kernel": "6.1"},
        "figures": [figure.as_json() for figure in figures],
        "missing": {3: "a|b"},
    }


def test_the_median_of_the_runs_and_the_spread_of_all_rounds() -> None:
    lines = section([run(0.5, 0.6, 0.9), run(0.3, 0.4, 0.5, load=2), run(0.5, 0.5, 0.7)]).splitlines()
    assert "2 cores of Abacus, 8 GiB, Linux 6.1." in lines
    assert "3 runs of `just bench`; load of the machine before: 0.1, 2, 0.1." in lines
    assert "| 1 | upload | ≥ 0.55 | 0.5 | 0.3, 0.9 | **short** |" in lines
    assert "| 6 | memory | ≤ 32 MiB | 5 MiB | 3, 9 | reached |" in lines
    assert "| 3 | not measured: a b | | | | |" in lines


def test_only_what_is_between_the_marks_is_replaced() -> None:
    made = section([run(0.6)])
    assert replaced(f"before\n{BEGIN}\nold\n{END}\nafter\n", made) == f"before\n{made}\nafter\n"
    assert replaced(f"before\n{made}\nafter\n", made) == f"before\n{made}\nafter\n"
    with pytest.raises(ValueError, match="lacks"):
        replaced("no marks", made)


def test_the_page_has_the_marks() -> None:
    page = PAGE.read_text()
    assert replaced(page, section([run(0.6)])) != page
