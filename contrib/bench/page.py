"""Writes what runs of ``just bench`` found into the page on performance: ``python -m contrib.bench.page JSON…``.

Everything between the two marks of the page is made here: the machine, the runs, and for each figure the median of the
runs' medians and the lowest and highest of all rounds. The rest of the page is left alone.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

PAGE = Path(__file__).parents[2] / "docs/explanation/performance.md"
BEGIN, END = "<!-- figures: python -m contrib.bench.page -->", "<!-- end of figures -->"
_MIB = 1 << 20


def section(runs: Sequence[Mapping[str, Any]]) -> str:
    """The text between the marks."""
    return "\n".join([BEGIN, "", *_conditions(runs), "", *_table(runs), "", END])


def _conditions(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    first = runs[0]
    machine = first["machine"]
    loads = ", ".join(f"{run['load_before']:g}" for run in runs)
    flags = "" if first["sizes"] == "default" else f" --{first['sizes']}"
    yield f"casproxy {first['version']} on Python {first['python']},"
    memory = f"{machine['memory'] / (_MIB << 10):.0f} GiB"
    yield f"{machine['cores']} cores of {machine['processor']}, {memory}, Linux {machine['kernel']}."
    yield f"{len(runs)} run{'s' if len(runs) > 1 else ''} of `just bench{flags}`; load of the machine before: {loads}."


def _table(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| # | what | to reach | median | lowest, highest | |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row, what in dict.fromkeys((figure["row"], figure["what"]) for run in runs for figure in run["figures"]):
        yield _line([f for run in runs for f in run["figures"] if (f["row"], f["what"]) == (row, what)])
    missing = {row: why for run in runs for row, why in run["missing"].items()}
    for row, why in sorted(missing.items(), key=lambda item: int(item[0])):
        yield f"| {row} | not measured: {why.replace('|', ' ')} | | | | |"


def _line(figures: Sequence[Mapping[str, Any]]) -> str:
    """One figure over all runs."""
    first = figures[0]
    medians = [figure["median"] for figure in figures if figure["median"] is not None]
    middle = median(medians) if medians else math.nan
    at_least = first["at_least"]
    reached = middle >= first["reach"] if at_least else middle <= first["reach"]
    values = [value for figure in figures for value in figure["values"]]
    spread = f"{min(values):.3g}, {max(values):.3g}" if len(values) > 1 else ""
    unit = "" if first["unit"] == "x" else f" {first['unit']}"
    return (
        f"| {first['row']} | {first['what']} | {'≥' if at_least else '≤'} {first['reach']:g}{unit} "
        f"| {middle:.3g}{unit} | {spread} | {'reached' if reached else '**short**'} |"
    )


def replaced(page: str, text: str) -> str:
    """``page`` with ``text`` for what is between the marks, and for them. Raises ``ValueError`` when there are none."""
    before, found, rest = page.partition(BEGIN)
    _, also_found, after = rest.partition(END)
    if not found or not also_found:
        raise ValueError(f"{PAGE.name} lacks {BEGIN!r} and {END!r}, each on a line of its own")
    return before + text + after


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="JSON", help="bench.json of each run")
    runs = [json.loads(path.read_text()) for path in parser.parse_args().runs]
    if len({json.dumps([run["machine"], run["version"], run["sizes"]]) for run in runs}) > 1:
        parser.error("runs of several machines, versions or sizes are no medians of anything")
    PAGE.write_text(replaced(PAGE.read_text(), section(runs)))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
