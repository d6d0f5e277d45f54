"""What a row of the table says: its number, what was measured, what to reach, the figures, the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a row. ``reach``: at least it, or at most it; ``values``: one of each round."""

    row: int
    what: str
    values: Sequence[float]
    reach: float
    at_least: bool = True
    unit: str = "x"
    note: str = ""

    @property
    def median(self) -> float:
        """NaN when there is no value."""
        return median(self.values) if self.values else math.nan

    @property
    def reached(self) -> bool:
        """Whether the median is on the right side."""
        return self.median >= self.reach if self.at_least else self.median <= self.reach

    def as_json(self) -> dict[str, object]:
        """Everything, with the verdict."""
        return {
            "row": self.row,
            "what": self.what,
            "reach": self.reach,
            "at_least": self.at_least,
            "unit": self.unit,
            "median": None if math.isnan(self.median) else round(self.median, 4),
            "values": [round(value, 4) for value in self.values],
            "reached": self.reached,
            "note": self.note,
        }

    def line(self) -> str:
        """One line of the table."""
        sign = ">=" if self.at_least else "<="
        spread = f"({min(self.values):.3g} to {max(self.values):.3g})" if len(self.values) > 1 else ""
        verdict = "ok" if self.reached else "SHORT"
        figure = f"{self.median:9.3g} {self.unit:<7}{spread:<18}"
        return f"{self.row:>3}  {self.what:<58}{sign} {self.reach:<7g}{figure}{verdict:<6}{self.note}"


@dataclass
class Table:
    """All rows of a run. ``missing``: rows that could not be made, and why; ``seen``: absolute figures, to look at."""

    figures: list[Figure] = field(default_factory=list)
    missing: dict[int, str] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)

    def add(self, *figures: Figure) -> None:
        """Take figures and show them."""
        for figure in figures:
            self.figures.append(figure)
            print(figure.line(), flush=True)

    def miss(self, row: int, why: str) -> None:
        """A row that could not be made."""
        self.missing[row] = why
        print(f"{row:>3}  not measured: {why}", flush=True)

    def see(self, what: str, value: float, unit: str) -> None:
        """An absolute figure, for orientation only."""
        self.seen[f"{what}, {unit}"] = round(value, 3)
        print(f"     {what}: {value:,.3g} {unit}", flush=True)
