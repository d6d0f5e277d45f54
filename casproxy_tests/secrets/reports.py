"""Owns what an error report could show at most: the whole chain, with the variables of every frame but the tests'."""

from __future__ import annotations

import traceback
from pathlib import Path

_TESTS = str(Path(__file__).parents[1])


def everything(error: BaseException) -> str:
    """Texts, causes, contexts, and the repr of each local variable on the way."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    _without_tests(report)
    return "".join(report.format())


def _without_tests(report: traceback.TracebackException | None) -> None:
    """A test knows its secrets; that its own variables show them is no leak."""
    while report is not None:
        report.stack[:] = [frame for frame in report.stack if not frame.filename.startswith(_TESTS)]
        _without_tests(report.__context__)
        report = report.__cause__
