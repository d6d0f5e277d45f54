"""``just bench``: every row of the table of what to reach, as ``python -m contrib.bench [ROW…] [--full|--quick]``.

Each row is taken in turn with its limit or its peer, so that what is compared saw the same machine. Writes JSON and a
picture; prints each figure with its reach. The exit code is 0 whether or not all is reached: a bench is no test. But
``--ci`` is one: it takes only figures that noise does not touch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import trio

from casproxy import __version__
from casproxy.bench import plot
from casproxy.bench.local import running_server
from casproxy.bench.process import machine
from contrib.bench import ci, parties, rows_budget, rows_calls, rows_memory, rows_registry, rows_stream, rows_workers
from contrib.bench.plan import DEFAULT, FULL, QUICK, Plan
from contrib.bench.table import Figure, Table

_TIMES_THE_REACH = 2.0
"""Where the picture ends."""

Row: TypeAlias = Callable[[Plan, Table], Awaitable[None]]


async def main(wanted: Sequence[int], plan: Plan, table: Table) -> None:
    """Take the rows; one that fails is reported and does not end the run."""
    steps: list[tuple[tuple[int, ...], Row]] = [
        ((1, 2), _with_server(rows_stream.rows_1_and_2)),
        ((3, 4), _with_registry(rows_registry.rows_3_and_4)),
        ((5,), rows_registry.row_5),
        ((6,), rows_memory.row_6),
        ((7,), _with_registry(rows_registry.row_7)),
        ((8,), _with_server(rows_calls.row_8)),
        ((9,), rows_memory.row_9),
        ((10,), rows_memory.row_10),
        ((11,), _with_server(rows_stream.row_11)),
        ((12,), rows_calls.row_12),
        ((13,), _with_server(rows_stream.row_13)),
        ((14,), rows_workers.row_14),
        ((15,), _with_server(rows_stream.row_15)),
        ((16,), rows_budget.row_16),
    ]
    for numbers, step in steps:
        if not set(numbers) & set(wanted):
            continue
        try:
            await step(plan, table)
        except (Exception, ExceptionGroup) as error:
            for number in numbers:
                table.miss(number, f"{type(error).__name__}: {_reason(error)}")


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:300]


def _with_server(row: Callable[..., Awaitable[None]]) -> Row:
    async def run(plan: Plan, table: Table) -> None:
        async with running_server() as server:
            await row(plan, table, server)

    return run


def _with_registry(row: Row) -> Row:
    async def run(plan: Plan, table: Table) -> None:
        if parties.registry_program() is None:
            raise FileNotFoundError("docker-registry is not installed")
        await row(plan, table)

    return run


def _picture(table: Table) -> str:
    """Every figure as a part of what it is to reach, so that one line down the page tells which do."""
    panels = [
        plot.Panel(
            f"Row {row}",
            [_bar(figure) for figure in table.figures if figure.row == row and figure.values],
            scale=_TIMES_THE_REACH,
        )
        for row in sorted({figure.row for figure in table.figures})
    ]
    facts = machine()
    subtitle = f"casproxy {__version__}, {facts['processor']}, {facts['cores']} cores; line: to reach; green: reached"
    return plot.render("What to reach, and what was measured", subtitle, [panel for panel in panels if panel.bars])


def _bar(figure: Figure) -> plot.Bar:
    def part(value: float) -> float:
        return min(_TIMES_THE_REACH, value / figure.reach if figure.reach else _TIMES_THE_REACH * bool(value))

    sign = "at least" if figure.at_least else "at most"
    return plot.Bar(
        figure.what,
        part(figure.median),
        f"{figure.median:.3g} {figure.unit} ({sign} {figure.reach:g})",
        part(min(figure.values)),
        part(max(figure.values)),
        mark=1.0,
        colour=2 if figure.reached else 1,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("rows", nargs="*", type=int, help="numbers of rows; default: all")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--full", action="store_true", help="the sizes of the table to the letter; takes an hour")
    sizes.add_argument("--quick", action="store_true", help="small sizes, one round; for a look")
    sizes.add_argument(
        "--ci", action="store_true", help="only what noise does not touch; exit code 1 if it falls short"
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="directory for JSON and picture")
    return parser.parse_args()


def _write(table: Table, out: Path, seconds: float, size: str, load: float) -> None:
    out.mkdir(parents=True, exist_ok=True)
    result = {
        "sizes": size,
        "load_before": round(load, 1),
        "version": __version__,
        "python": platform.python_version(),
        "machine": machine(),
        "seconds": round(seconds),
        "figures": [figure.as_json() for figure in table.figures],
        "missing": table.missing,
        "seen": table.seen,
    }
    (out / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    plot.write(out / "bench.svg", _picture(table))
    print(f"\n{len(table.figures)} figures, {len(table.missing)} rows missing, {seconds:.0f} s")
    for figure in table.figures:
        if not figure.reached:
            print(f"short: {figure.line().rstrip()}")
    print(f"written: {out}/bench.json and bench.svg; for the page: python -m contrib.bench.page {out}/bench.json")


if __name__ == "__main__":
    args = _arguments()
    sizes, plan = ("full", FULL) if args.full else ("quick", QUICK) if args.quick else ("default", DEFAULT)
    began, made, load_before = time.monotonic(), Table(), os.getloadavg()[0]
    if args.ci:
        trio.run(ci.check, made)
        sys.exit(0 if all(figure.reached for figure in made.figures) else 1)
    try:
        trio.run(main, args.rows or range(1, 17), plan, made)
    finally:
        _write(made, args.out, time.monotonic() - began, sizes, load_before)
