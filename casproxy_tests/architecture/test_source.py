"""The house rules that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from casproxy_tests.architecture import ROOT, modules

# The patterns are written so that they do not match themselves.
_FOREIGN = re.compile(r"/(?:home|roo[t]|wor[k])/[a-z.]|py[p]i\.org|python[h]osted")
_UNFINISHED = re.compile(r"#\s*(?:TO[D]O|FIX[M]E|XX[X])")
_TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".proto", ".txt", ".json", ".cfg", ".service"}


def test_every_module_says_what_it_owns() -> None:
    """The reader arrives in the middle of the program; the first line tells them where they are."""
    silent = [
        str(path) for path, tree in modules().items() if path.name != "__init__.py" and not ast.get_docstring(tree)
    ]
    packages = [path for path, tree in modules().items() if path.name == "__init__.py" and path.parts[0] == "casproxy"]
    silent += [str(path) for path in packages if not ast.get_docstring(modules()[path])]
    assert not silent


def test_no_file_is_the_package() -> None:
    """A file of more than 400 lines has more than one subject; the tests of one contract may go on to 600."""
    lengths = {path: len((ROOT / path).read_text("utf-8").splitlines()) for path in modules()}
    most = {"casproxy": 400, "casproxy_tests": 600, "contrib": 400}
    assert not {str(path): lines for path, lines in lengths.items() if lines > most[path.parts[0]]}


def test_nothing_is_left_for_later_or_names_a_machine() -> None:
    """Unfinished work belongs in an issue; paths and package hosts of one machine belong nowhere."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in _text_files()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if _FOREIGN.search(line) or _UNFINISHED.search(line)
    ]
    assert not found


def _text_files() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith("."))
    yield from (ROOT / ".ci").iterdir()
    for room in ("casproxy", "casproxy_tests", "contrib", "docs", "newsfragments", "proto"):
        yield from (path for path in (ROOT / room).rglob("*") if path.is_file() and path.suffix in _TEXT)


@pytest.mark.parametrize("path", [path for path in modules() if path.parts[0] == "casproxy"], ids=str)
def test_cancellation_is_safe(path: Path) -> None:
    """A swallowed ``Cancelled`` hangs a drain, and a shield without a deadline hangs it for ever."""
    found = [
        f"{path}:{node.lineno}: {fault}"
        for node in ast.walk(modules()[path])
        if isinstance(node, ast.ExceptHandler | ast.Call | ast.Assign)
        and (fault := _swallows(node) or _shields_for_ever(node))
    ]
    assert not found


def _swallows(node: ast.AST) -> str:
    """Why a handler may eat a cancellation, or ``""``: it takes everything and its last word is not ``raise``."""
    if not isinstance(node, ast.ExceptHandler):
        return ""
    taken = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    if any(kind is None for kind in taken):
        return "bare except"
    everything = any(ast.unparse(kind).split(".")[-1] in {"BaseException", "Cancelled"} for kind in taken if kind)
    if everything and not any(isinstance(inner, ast.Raise) for inner in node.body):
        return "takes cancellation and does not raise again"
    return ""


def _shields_for_ever(node: ast.AST) -> str:
    """Why a shield may never end, or ``""``. House style: ``trio.move_on_after(seconds, shield=True)``."""
    if isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Attribute) and target.attr == "shield" for target in node.targets
    ):
        return "sets shield by hand: use trio.move_on_after(seconds, shield=True)"
    if not isinstance(node, ast.Call) or not any(keyword.arg == "shield" for keyword in node.keywords):
        return ""
    name = ast.unparse(node.func).split(".")[-1]
    bounded = node.args or any(keyword.arg in {"deadline", "relative_deadline"} for keyword in node.keywords)
    return "" if bounded and "math.inf" not in ast.unparse(node) else f"{name} shields without a deadline"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("try: x\nexcept: pass", "bare except"),
        ("try: x\nexcept BaseException: log()", "does not raise"),
        ("try: x\nexcept (OSError, trio.Cancelled): log()", "does not raise"),
        ("with trio.CancelScope(shield=True): pass", "without a deadline"),
        ("with trio.CancelScope(deadline=math.inf, shield=True): pass", "without a deadline"),
        ("scope.shield = True", "by hand"),
        ("try: x\nexcept BaseException:\n  log()\n  raise", ""),
        ("with trio.move_on_after(5, shield=True): pass", ""),
        ("with trio.CancelScope(deadline=5, shield=True): pass", ""),
    ],
)
def test_the_rule_itself(source: str, fault: str) -> None:
    """A rule that finds nothing proves nothing; these are what it must find, and what it must leave alone."""
    faults = [found for node in ast.walk(ast.parse(source)) if (found := _swallows(node) or _shields_for_ever(node))]
    assert len(faults) == (1 if fault else 0) and fault in "".join(faults)
