"""Owns the house rules as tests. Each says in its docstring why the rule exists."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@cache
def modules() -> dict[Path, ast.Module]:
    """Every hand-written module of the package, its tests and ``contrib``, parsed, by path from the root."""
    paths = (path for room in ("casproxy", "casproxy_tests", "contrib") for path in sorted((ROOT / room).rglob("*.py")))
    ours = (path.relative_to(ROOT) for path in paths)
    return {path: ast.parse((ROOT / path).read_text("utf-8")) for path in ours if "_proto" not in path.parts}
